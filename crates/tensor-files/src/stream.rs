use crate::{Error, Result, write_atomically};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::io::Write;
use std::path::Path;

/// Writes a safetensors file whose values come in a stream, atomically: for tensors that never are in memory as a whole.
///
/// `tensors` are the names, types and shapes; `fill` writes their bytes (little-endian), one tensor after the other in that order, without gaps.
/// Give those of the widest elements first, so that each lies aligned.
///
/// # Errors
/// [`Error::Malformed`] for two tensors of one name, or when `fill` writes more or fewer bytes than the shapes say; [`Error::Io`]; the errors of `fill`.
/// The file is then as it was.
pub fn stream_safetensors<E: From<Error>>(
    path: &Path,
    tensors: &[(&str, Dtype, Vec<usize>)],
    fill: impl FnOnce(&mut dyn Write) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let io = |source| Error::Io { path: path.into(), source };
    let (header, expected) = header(path, tensors)?;
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&header).map_err(io)?;
        let mut counted = Counted { inner: file, bytes: 0 };
        fill(&mut counted)?;
        match counted.bytes {
            found if found == expected => Ok(()),
            found => {
                let reason = format!("{found} bytes of tensors were written, the shapes need {expected}");
                Err(Error::Malformed { path: path.into(), format: "safetensors", reason }.into())
            }
        }
    })
}

/// The JSON header, filled with spaces up to a multiple of 8 bytes as the format asks, and the bytes that follow it.
fn header(path: &Path, tensors: &[(&str, Dtype, Vec<usize>)]) -> Result<(Vec<u8>, u64)> {
    let malformed = |reason: String| Error::Malformed { path: path.into(), format: "safetensors", reason };
    let (mut infos, mut end) = (Vec::with_capacity(tensors.len()), 0usize);
    for (name, dtype, shape) in tensors {
        if infos.iter().any(|(other, _): &(String, TensorInfo)| other == name) {
            return Err(malformed(format!("two tensors named `{name}` to be written")));
        }
        let start = end;
        let bytes = shape.iter().try_fold(dtype.bitsize() / 8, |bytes, dim| bytes.checked_mul(*dim));
        end = bytes
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| malformed(format!("`{name}` of shape {shape:?} is too large")))?;
        infos
            .push(((*name).to_owned(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) }));
    }
    let header = Metadata::new(None, infos).map_err(|e| malformed(e.to_string()))?;
    let mut json = serde_json::to_vec(&header).map_err(|e| malformed(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok((json, end as u64))
}

/// Counts what is written through it.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SafetensorsFile;

    fn write(path: &Path, bytes: &[u8]) -> Result<()> {
        let tensors = [("a", Dtype::F32, vec![1]), ("b", Dtype::U16, vec![2, 1]), ("none", Dtype::U16, vec![0, 3])];
        stream_safetensors(path, &tensors, |file| {
            file.write_all(bytes).map_err(|source| Error::Io { path: path.into(), source })
        })
    }

    #[test]
    fn what_is_streamed_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&path, &[0, 0, 128, 63, 1, 0, 255, 255]).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.read_f32("a", &[1]).unwrap(), [1.0]);
        assert_eq!(file.read_i64("b", &[2, 1]).unwrap(), [1, 65535]);
        assert_eq!(file.read_i64("none", &[0, 3]).unwrap(), Vec::<i64>::new());
        let error = file.read_i64("a", &[1]).unwrap_err().to_string();
        assert!(error.contains("`a`") && error.contains("I64"), "{error}");
        assert!(matches!(file.read_i64("b", &[2]).unwrap_err(), Error::Shape { .. }));
    }

    #[test]
    fn a_stream_of_another_length_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, b"old").unwrap();
        for bytes in [&[0u8; 7][..], &[0; 9]] {
            let error = write(&path, bytes).unwrap_err().to_string();
            assert!(error.contains("the shapes need 8"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let twice = [("a", Dtype::U8, vec![0]), ("a", Dtype::U8, vec![0])];
        assert!(stream_safetensors::<Error>(&path, &twice, |_| Ok(())).is_err());
        let huge = [("a", Dtype::F64, vec![usize::MAX, 2])];
        assert!(stream_safetensors::<Error>(&path, &huge, |_| Ok(())).unwrap_err().to_string().contains("too large"));
    }
}
