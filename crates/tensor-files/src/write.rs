use crate::{Error, Result, write_atomically};
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Saves named tensors (f64, f32, f16, bf16, i64, i32, i16, u32, u8) as one safetensors file, atomically.
///
/// One tensor at a time is turned into bytes. Tensors go to the file in the order given, widest elements first, so that each lies aligned.
///
/// # Errors
/// [`Error::Io`], [`Error::Dtype`] for a type that the format or this crate does not know, [`Error::Malformed`] for two tensors of one name.
pub fn save_safetensors<S: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: &[(S, Tensor)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let io = |source| Error::Io { path: path.into(), source };
    let mut order: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_ref(), tensor)).collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size_in_bytes()));
    let header = header(path, &order, metadata)?;
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&header).map_err(io)?;
        for (name, tensor) in order {
            file.write_all(&bytes(path, name, tensor)?).map_err(io)?;
        }
        Ok(())
    })
}

/// The JSON header, filled with spaces up to a multiple of 8 bytes as the format asks.
fn header(path: &Path, tensors: &[(&str, &Tensor)], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let malformed = |reason: String| Error::Malformed { path: path.into(), format: "safetensors", reason };
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in tensors {
        if infos.iter().any(|(other, _): &(String, TensorInfo)| other == name) {
            return Err(malformed(format!("two tensors named `{name}` to be written")));
        }
        let start = end;
        end += tensor.elem_count() * tensor.dtype().size_in_bytes();
        let dtype = dtype(path, name, tensor.dtype())?;
        infos.push((
            (*name).to_owned(),
            TensorInfo { dtype, shape: tensor.dims().to_vec(), data_offsets: (start, end) },
        ));
    }
    let header = Metadata::new(metadata, infos).map_err(|e| malformed(e.to_string()))?;
    let mut json = serde_json::to_vec(&header).map_err(|e| malformed(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}

fn dtype(path: &Path, name: &str, dtype: DType) -> Result<Dtype> {
    match dtype {
        DType::F64 => Ok(Dtype::F64),
        DType::F32 => Ok(Dtype::F32),
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::BF16),
        DType::I64 => Ok(Dtype::I64),
        DType::I32 => Ok(Dtype::I32),
        DType::I16 => Ok(Dtype::I16),
        DType::U32 => Ok(Dtype::U32),
        DType::U8 => Ok(Dtype::U8),
        other => Err(Error::Dtype {
            path: path.into(),
            name: name.into(),
            expected: "F64, F32, F16, BF16, I64, I32, I16, U32 or U8",
            found: format!("{other:?}"),
        }),
    }
}

fn bytes(path: &Path, name: &str, tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match dtype(path, name, tensor.dtype())? {
        Dtype::F64 => bytemuck::cast_slice(&flat.to_vec1::<f64>()?).to_vec(),
        Dtype::F32 => bytemuck::cast_slice(&flat.to_vec1::<f32>()?).to_vec(),
        Dtype::F16 => bytemuck::cast_slice(&flat.to_vec1::<half::f16>()?).to_vec(),
        Dtype::BF16 => bytemuck::cast_slice(&flat.to_vec1::<half::bf16>()?).to_vec(),
        Dtype::I64 => bytemuck::cast_slice(&flat.to_vec1::<i64>()?).to_vec(),
        Dtype::I32 => bytemuck::cast_slice(&flat.to_vec1::<i32>()?).to_vec(),
        Dtype::I16 => bytemuck::cast_slice(&flat.to_vec1::<i16>()?).to_vec(),
        Dtype::U32 => bytemuck::cast_slice(&flat.to_vec1::<u32>()?).to_vec(),
        _ => flat.to_vec1::<u8>()?,
    })
}
