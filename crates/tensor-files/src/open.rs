use crate::bytes::Bytes;
use crate::torch::{LEGACY_MAGIC, is_pickle};
use crate::{NpzFile, Result, SafetensorsFile, TensorFile, TorchFile, zip};
use std::path::Path;

/// Opens a file of tensors. The format is detected from its first bytes, not from its name: safetensors, `.npz`, or `torch.save`'s (zip or older).
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) when it is none of these, and the errors of the one that it is.
pub fn open_tensors(path: impl AsRef<Path>) -> Result<Box<dyn TensorFile>> {
    let path = path.as_ref();
    let file = Bytes::open(path, "tensor (safetensors, npz or PyTorch)")?;
    let mut start = vec![0; file.len().min(LEGACY_MAGIC.len() as u64) as usize];
    file.read_at(0, &mut start)?;
    if start == LEGACY_MAGIC {
        return Ok(Box::new(TorchFile::open(path)?));
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        let is_torch = zip::directory(&file)?.iter().any(|entry| is_pickle(&entry.name));
        return Ok(if is_torch { Box::new(TorchFile::open(path)?) } else { Box::new(NpzFile::open(path)?) });
    }
    // The length of a JSON object, and the object.
    if start.get(8) == Some(&b'{') {
        return Ok(Box::new(SafetensorsFile::open(path)?));
    }
    start.truncate(8);
    Err(file.malformed(format!("it starts with {start:02x?}")))
}
