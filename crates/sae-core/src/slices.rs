use crate::Result;
use candle_core::{CpuStorage, Storage, Tensor};

/// Lends the f32 values of a contiguous CPU tensor without copying them; other tensors are copied once.
pub(crate) fn with_f32<R>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(use_it(&data[start..end]));
    }
    drop(storage);
    let copy: Vec<f32> = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(use_it(&copy))
}
