use crate::finite::first_not_finite;
use crate::view::View;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use safetensors::tensor::{Dtype, TensorInfo};

/// Headers above this are refused. The largest published checkpoints need well under 10 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An opened safetensors file whose header has been checked against the file's length.
///
/// ```text
/// [u64 little-endian: n][n bytes of JSON header][tensor bytes, contiguous, no gaps]
/// ```
///
/// Tensors are read one at a time on demand, so peak memory is one tensor.
/// Format: the safetensors specification of Hugging Face.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: Mutex<File>,
    data_start: u64,
    header: Metadata,
}

impl SafetensorsFile {
    /// Opens `path` and checks its header: bounded, valid JSON, offsets contiguous, sizes equal to shape times type, length exact.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Malformed`] when any check fails.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let io = |source| Error::Io { path: path.clone(), source };
        let malformed = |reason: String| Error::Malformed { path: path.clone(), format: "safetensors", reason };
        // Checked before opening: opening a pipe blocks until another process writes.
        if !std::fs::metadata(&path).map_err(io)?.is_file() {
            return Err(malformed("it is no regular file".into()));
        }
        let mut file = File::open(&path).map_err(io)?;
        let file_len = file.metadata().map_err(io)?.len();
        if file_len < 8 {
            return Err(malformed(format!("{file_len} bytes long, shorter than the 8-byte header length")));
        }
        let mut length = [0u8; 8];
        file.read_exact(&mut length).map_err(io)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > MAX_HEADER_BYTES || header_len > file_len - 8 {
            let limit = MAX_HEADER_BYTES.min(file_len - 8);
            return Err(malformed(format!("header claims {header_len} bytes, at most {limit} are possible")));
        }
        let mut json = vec![0u8; usize::try_from(header_len).map_err(|e| malformed(e.to_string()))?];
        file.read_exact(&mut json).map_err(io)?;
        distinct(&json).map_err(|e| malformed(e.to_string()))?;
        let header: Metadata = serde_json::from_slice(&json).map_err(|e| malformed(e.to_string()))?;
        // A tensor without elements takes no bytes, whatever its other sizes: their product must still be a number.
        for (name, info) in header.tensors() {
            let sizes = info.shape.iter().filter(|n| **n > 0);
            if sizes.copied().try_fold(8usize, usize::checked_mul).is_none() {
                return Err(malformed(format!("tensor `{name}` of shape {:?} is larger than any memory", info.shape)));
            }
        }
        let data_start = 8 + header_len;
        let expected = data_start.checked_add(header.data_len() as u64);
        if expected != Some(file_len) {
            return Err(malformed(format!(
                "header describes {} tensor bytes, the file holds {}",
                header.data_len(),
                file_len - data_start
            )));
        }
        Ok(Self { path, file: Mutex::new(file), data_start, header })
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in the order of the file.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Type and shape of a tensor, if the file holds it.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// Whether the file holds a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.info(name).is_some()
    }

    /// The free-form `__metadata__` strings of the file.
    #[must_use]
    pub fn metadata(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }

    /// Reads a tensor in its own type (f64, f32, f16, bf16, i64, i32, i16, u32, u8; booleans as u8).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Dtype`] for other types, [`Error::Io`].
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let info = self.require(name)?;
        let bytes = self.bytes(info)?;
        let dtype = match info.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            Dtype::I32 => DType::I32,
            Dtype::I16 => DType::I16,
            Dtype::U32 => DType::U32,
            Dtype::U8 | Dtype::BOOL => DType::U8,
            other => {
                return Err(Error::Dtype {
                    path: self.path.clone(),
                    name: name.into(),
                    expected: "F64, F32, F16, BF16, I64, I32, I16, U32, U8 or BOOL",
                    found: format!("{other:?}"),
                });
            }
        };
        if info.shape.iter().product::<usize>() == 0 {
            return Ok(Tensor::zeros(info.shape.as_slice(), dtype, &Device::Cpu)?);
        }
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)?)
    }

    /// Reads a floating-point tensor, widened or narrowed to f32, and refuses NaN and infinity.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::Dtype`] for integers, [`Error::NotFinite`] with the first bad element.
    pub fn load_f32(&self, name: &str) -> Result<Tensor> {
        let info = self.require(name)?;
        Ok(Tensor::from_vec(self.floats(name, info)?, info.shape.as_slice(), &Device::Cpu)?)
    }

    /// As [`load_f32`](Self::load_f32), and the shape must be `expected`.
    ///
    /// # Errors
    /// As [`load_f32`](Self::load_f32), and [`Error::Shape`].
    pub fn load_f32_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.read_f32(name, expected)?, expected, &Device::Cpu)?)
    }

    /// The values of a floating-point tensor, widened or narrowed to f32, row after row; its shape must be `expected`, and
    /// NaN and infinity are refused. f32 goes from the file straight to where it stays.
    ///
    /// # Errors
    /// As [`load_f32_shaped`](Self::load_f32_shaped).
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let info = self.require(name)?;
        if info.shape != expected {
            return Err(Error::shape(&self.path, name, expected, &info.shape));
        }
        self.floats(name, info)
    }

    /// The values of a tensor of whole numbers or truth values; its shape must be `expected`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`] for floats, [`Error::Io`].
    pub fn read_i64(&self, name: &str, expected: &[usize]) -> Result<Vec<i64>> {
        let info = self.require(name)?;
        if info.shape != expected {
            return Err(Error::shape(&self.path, name, expected, &info.shape));
        }
        let malformed = |reason| Error::Malformed { path: self.path.clone(), format: "safetensors", reason };
        let view = View::dense(info.dtype, info.shape.clone(), false).map_err(malformed)?;
        view.integers(&self.path, name, &mut |byte, out| self.read_at(info.data_offsets.0 + byte as usize, out))
    }

    fn floats(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let mut values = vec![0f32; info.shape.iter().product()];
        match info.dtype {
            Dtype::F32 => {
                self.read_at(info.data_offsets.0, bytemuck::cast_slice_mut(&mut values))?;
                if cfg!(target_endian = "big") {
                    values.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().swap_bytes()));
                }
            }
            Dtype::F64 => self.widen(info, &mut values, |b: [u8; 8]| f64::from_le_bytes(b) as f32)?,
            Dtype::F16 => self.widen(info, &mut values, |b: [u8; 2]| half::f16::from_le_bytes(b).to_f32())?,
            Dtype::BF16 => self.widen(info, &mut values, |b: [u8; 2]| half::bf16::from_le_bytes(b).to_f32())?,
            other => {
                return Err(Error::Dtype {
                    path: self.path.clone(),
                    name: name.into(),
                    expected: "F64, F32, F16 or BF16",
                    found: format!("{other:?}"),
                });
            }
        }
        match first_not_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(Error::NotFinite { path: self.path.clone(), name: name.into(), value, index }),
        }
    }

    /// Reads values of `N` bytes, a part of the tensor at a time.
    fn widen<const N: usize>(
        &self,
        info: &TensorInfo,
        values: &mut [f32],
        widen: impl Fn([u8; N]) -> f32,
    ) -> Result<()> {
        const PART: usize = 1 << 16;
        let mut bytes = vec![0u8; N * PART.min(values.len())];
        let mut at = info.data_offsets.0;
        for values in values.chunks_mut(PART) {
            // Only the last part is shorter.
            bytes.truncate(N * values.len());
            self.read_at(at, &mut bytes)?;
            at += bytes.len();
            let (each, _) = bytes.as_chunks::<N>();
            values.iter_mut().zip(each).for_each(|(value, bytes)| *value = widen(*bytes));
        }
        Ok(())
    }

    fn require(&self, name: &str) -> Result<&TensorInfo> {
        self.info(name).ok_or_else(|| Error::missing(&self.path, name, &self.names()))
    }

    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - start];
        self.read_at(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from an offset into the tensors' data.
    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        // A poisoned lock only means that another reader panicked between seek and read; this one seeks anew.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.data_start + offset as u64)).map_err(io)?;
        file.read_exact(bytes).map_err(io)
    }
}

/// Refuses a header that names a tensor, or an entry of its metadata, twice: which of the two counts would be the parser's choice.
fn distinct(json: &[u8]) -> serde_json::Result<()> {
    struct Names {
        depth: usize,
    }
    impl<'de> DeserializeSeed<'de> for Names {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, value: D) -> std::result::Result<(), D::Error> {
            if self.depth == 2 {
                value.deserialize_ignored_any(IgnoredAny).map(drop)
            } else {
                value.deserialize_any(self)
            }
        }
    }
    impl<'de> Visitor<'de> for Names {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of tensors")
        }
        fn visit_unit<E>(self) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                map.next_value_seed(Names { depth: self.depth + 1 })?;
                if let Some(name) = seen.replace(name) {
                    return Err(serde::de::Error::custom(format_args!("`{name}` appears twice")));
                }
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(json);
    Names { depth: 0 }.deserialize(&mut json)
}
