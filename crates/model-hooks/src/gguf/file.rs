use super::header::{Header, RawTensor};
use super::value::{Array, Value};
use super::{TensorType, dequantize};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tensor_files::open_regular;

const DEFAULT_ALIGNMENT: u64 = 32;

/// An opened GGUF file (version 2 or 3, little-endian) whose header has been checked against the file's real length.
///
/// ```text
/// "GGUF" version n_tensors n_entries | metadata entries | tensor list | padding | tensor bytes, each aligned
/// ```
///
/// Nothing in the file is believed: counts and lengths are compared with the bytes that are left before memory is asked for,
/// so opening costs at most a small multiple of the header's real size (itself at most 64 MiB). Tensors are read one at a
/// time, so peak memory is the stored and the expanded form of one tensor. Nothing is memory-mapped.
///
/// Format: the GGUF specification of ggml.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: Mutex<File>,
    version: u32,
    metadata: HashMap<String, Value>,
    tensors: BTreeMap<String, GgufTensor>,
}

/// Location of a tensor in the file, its shape and type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgufTensor {
    /// Storage type of the elements.
    pub kind: TensorType,
    /// Slowest-running dimension first, as everywhere in this crate: a projection is `[out, in]`. The file stores the reverse.
    pub shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

impl GgufFile {
    /// Opens `path` and checks its header: magic, version, counts, types, names, and that every tensor lies aligned, inside
    /// the file, and apart from the others.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::GgufMalformed`] with the position when a check fails,
    /// [`Error::GgufUnsupported`] for other versions and for tensor types that are not read here.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let io = |source| Error::Io { path: path.clone(), source };
        let mut file = open_regular(&path).map_err(io)?;
        let file_len = file.metadata().map_err(io)?.len();
        let header = Header::read(BufReader::with_capacity(1 << 16, &mut file), file_len, &path)?;
        let mut opened = Self {
            path,
            file: Mutex::new(file),
            version: header.version,
            metadata: header.metadata,
            tensors: BTreeMap::new(),
        };
        let alignment = opened.alignment()?;
        let data_start = header.end.next_multiple_of(alignment);
        for raw in header.tensors {
            let (name, tensor) = opened.place(raw, data_start, alignment, file_len)?;
            if opened.tensors.contains_key(&name) {
                return Err(opened.malformed(header.end, format!("tensor `{name}` appears twice")));
            }
            opened.tensors.insert(name, tensor);
        }
        opened.check_overlaps()?;
        Ok(opened)
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All metadata entries, in no particular order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &GgufTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A tensor's description, if the file holds it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }

    /// The value of `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| match v {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A non-negative integer of any width and sign that fits in 32 bits, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type, negative or larger.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |v| match v {
            Value::Unsigned(n) => u32::try_from(*n).ok(),
            Value::Signed(n) => u32::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A finite float of either width, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type, NaN or infinite.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite float", |v| match v {
            Value::F32(x) => Some(f64::from(*x)).filter(|x| x.is_finite()),
            Value::F64(x) => Some(*x).filter(|x| x.is_finite()),
            _ => None,
        })
    }

    /// A list of texts, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of string", |v| match v {
            Value::Array(Array::String(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of 32-bit floats, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |v| match v {
            Value::Array(Array::F32(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of signed 32-bit integers, if the key is there.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is there with another type.
    pub fn i32s(&self, key: &str) -> Result<Option<&[i32]>> {
        self.typed(key, "an array of i32", |v| match v {
            Value::Array(Array::I32(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// Turns the absence of a key into an error: `file.require("llama.block_count", GgufFile::u32)`.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or the getter's own.
    pub fn require<'a, T>(&'a self, key: &str, get: impl FnOnce(&'a Self, &str) -> Result<Option<T>>) -> Result<T> {
        let missing =
            || Error::MissingKey { path: self.path.clone(), key: key.into(), expected: "a metadata entry".into() };
        get(self, key)?.ok_or_else(missing)
    }

    /// The error for a key whose value cannot be used.
    pub(crate) fn bad_key(&self, key: &str, expected: impl Into<String>, found: impl ToString) -> Error {
        let (expected, found) = (expected.into(), found.to_string());
        Error::BadKey { path: self.path.clone(), key: key.into(), expected, found }
    }

    /// The error for something that exists but is not read here.
    pub(crate) fn unsupported(&self, what: &'static str, found: impl ToString, supported: impl Into<String>) -> Error {
        Error::GgufUnsupported { path: self.path.clone(), what, found: found.to_string(), supported: supported.into() }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        cast: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match cast(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(self.bad_key(key, expected, value)),
        }
    }

    /// Reads a tensor, expanded to f32, in its [shape](GgufTensor::shape).
    ///
    /// # Errors
    /// [`tensor_files::Error::MissingTensor`], [`tensor_files::Error::NotFinite`] with the first bad element, [`Error::Io`].
    pub fn load_f32(&self, name: &str) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else { return Err(self.missing(name)) };
        Ok(Tensor::from_vec(self.values(name, tensor)?, tensor.shape.as_slice(), &Device::Cpu)?)
    }

    /// As [`load_f32`](Self::load_f32), and the shape must be `expected`; that is checked before anything is read.
    ///
    /// # Errors
    /// As [`load_f32`](Self::load_f32), and [`tensor_files::Error::Shape`].
    pub fn load_f32_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.read_f32(name, expected)?, expected, &Device::Cpu)?)
    }

    /// The values of a tensor, expanded to f32, row after row; its shape must be `expected`, which is checked before anything is read.
    ///
    /// # Errors
    /// As [`load_f32_shaped`](Self::load_f32_shaped).
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        match self.tensors.get(name) {
            None => Err(self.missing(name)),
            Some(tensor) if tensor.shape != expected => Err(tensor_files::Error::Shape {
                path: self.path.clone(),
                name: name.into(),
                expected: expected.to_vec(),
                found: tensor.shape.clone(),
            }
            .into()),
            Some(tensor) => self.values(name, tensor),
        }
    }

    fn values(&self, name: &str, tensor: &GgufTensor) -> Result<Vec<f32>> {
        let values = dequantize(tensor.kind, &self.read(tensor)?);
        match values.iter().copied().enumerate().find(|(_, value)| !value.is_finite()) {
            None => Ok(values),
            Some((index, value)) => {
                let (path, name) = (self.path.clone(), name.into());
                Err(tensor_files::Error::NotFinite { path, name, value, index }.into())
            }
        }
    }

    fn read(&self, tensor: &GgufTensor) -> Result<Vec<u8>> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let mut bytes = vec![0; tensor.bytes];
        // A poisoned lock only means that another reader panicked between seek and read; this one seeks anew.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(tensor.start)).map_err(io)?;
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    fn missing(&self, name: &str) -> Error {
        let mut held = self.tensors.keys().take(12).cloned().collect::<Vec<_>>().join(", ");
        if self.tensors.len() > 12 {
            held.push_str(&format!(", ... ({} in all)", self.tensors.len()));
        }
        tensor_files::Error::MissingTensor { path: self.path.clone(), name: name.into(), held }.into()
    }

    fn malformed(&self, at: u64, reason: String) -> Error {
        Error::GgufMalformed { path: self.path.clone(), at, reason }
    }

    fn alignment(&self) -> Result<u64> {
        let alignment = self.u32("general.alignment")?.map_or(DEFAULT_ALIGNMENT, u64::from);
        if alignment.is_power_of_two() {
            return Ok(alignment);
        }
        Err(self.malformed(0, format!("`general.alignment` is {alignment}, not a power of two")))
    }

    /// Checks one tensor of the list against the file, with every product and sum checked for overflow.
    fn place(&self, raw: RawTensor, data_start: u64, alignment: u64, file_len: u64) -> Result<(String, GgufTensor)> {
        let RawTensor { name, dims, kind, offset } = raw;
        let malformed = |reason: String| self.malformed(data_start, format!("tensor `{name}` {reason}"));
        let kind = TensorType::from_id(kind).map_err(|found| {
            let known = TensorType::ALL.map(|t| t.to_string()).join(", ");
            self.unsupported("tensor type", format!("{found} in tensor `{name}`"), known)
        })?;
        let row = dims.first().copied().unwrap_or(1);
        let block = kind.block_len() as u64;
        if dims.contains(&0) || row % block != 0 {
            return Err(malformed(format!(
                "has dimensions {dims:?}; {kind} rows are whole, non-empty blocks of {block}"
            )));
        }
        let too_large = || malformed(format!("of dimensions {dims:?} is larger than any file"));
        let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
        let bytes = (elements / block).checked_mul(kind.block_bytes() as u64).ok_or_else(too_large)?;
        if offset % alignment != 0 {
            return Err(malformed(format!("starts at offset {offset}, not a multiple of the alignment {alignment}")));
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes));
        let (Some(start), Some(_)) = (start, end.filter(|end| *end <= file_len)) else {
            return Err(malformed(format!(
                "takes {bytes} bytes at offset {offset} of the data at {data_start}; the file ends at {file_len}"
            )));
        };
        let usize_of = |n: u64| usize::try_from(n).map_err(|_| too_large());
        let shape = dims.iter().rev().map(|d| usize_of(*d)).collect::<Result<Vec<_>>>()?;
        // Expanded to f32 the tensor must still be addressable.
        usize_of(elements.checked_mul(4).ok_or_else(too_large)?)?;
        let placed = GgufTensor { kind, shape, start, bytes: usize_of(bytes)? };
        Ok((name, placed))
    }

    fn check_overlaps(&self) -> Result<()> {
        let mut by_start: Vec<_> = self.tensors.iter().collect();
        by_start.sort_by_key(|(_, tensor)| tensor.start);
        for [(first, a), (second, b)] in by_start.array_windows() {
            if a.start + a.bytes as u64 > b.start {
                return Err(self.malformed(b.start, format!("tensors `{first}` and `{second}` overlap")));
            }
        }
        Ok(())
    }
}
