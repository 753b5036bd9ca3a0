use crate::{Error, Result};
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Saves named tensors (f64, f32, f16, bf16, i64, i32, i16, u32, u8) as one safetensors file, atomically.
///
/// # Errors
/// [`Error::Io`], or [`Error::Dtype`] for a type that the format or this crate does not know.
pub fn save_safetensors<S: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: &[(S, Tensor)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|source| Error::Io { path: path.into(), source })?;
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        views.push((name.as_ref(), Bytes::of(path, name.as_ref(), tensor)?));
    }
    // `serialize_to_file` itself writes beside the target and renames.
    safetensors::serialize_to_file(views, metadata, path)
        .map_err(|e| Error::Malformed { path: path.into(), reason: format!("could not be written: {e}") })
}

struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Bytes {
    fn of(path: &Path, name: &str, tensor: &Tensor) -> Result<Self> {
        let flat = tensor.flatten_all()?;
        let (dtype, data) = match tensor.dtype() {
            DType::F64 => (Dtype::F64, bytemuck::cast_slice(&flat.to_vec1::<f64>()?).to_vec()),
            DType::F32 => (Dtype::F32, bytemuck::cast_slice(&flat.to_vec1::<f32>()?).to_vec()),
            DType::F16 => (Dtype::F16, bytemuck::cast_slice(&flat.to_vec1::<half::f16>()?).to_vec()),
            DType::BF16 => (Dtype::BF16, bytemuck::cast_slice(&flat.to_vec1::<half::bf16>()?).to_vec()),
            DType::I64 => (Dtype::I64, bytemuck::cast_slice(&flat.to_vec1::<i64>()?).to_vec()),
            DType::I32 => (Dtype::I32, bytemuck::cast_slice(&flat.to_vec1::<i32>()?).to_vec()),
            DType::I16 => (Dtype::I16, bytemuck::cast_slice(&flat.to_vec1::<i16>()?).to_vec()),
            DType::U32 => (Dtype::U32, bytemuck::cast_slice(&flat.to_vec1::<u32>()?).to_vec()),
            DType::U8 => (Dtype::U8, flat.to_vec1::<u8>()?),
            other => {
                return Err(Error::Dtype {
                    path: path.into(),
                    name: name.into(),
                    expected: "F64, F32, F16, BF16, I64, I32, I16, U32 or U8",
                    found: format!("{other:?}"),
                });
            }
        };
        Ok(Self { dtype, shape: tensor.dims().to_vec(), data })
    }
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}
