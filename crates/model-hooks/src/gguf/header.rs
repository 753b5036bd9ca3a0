//! The front of a GGUF file: everything before the tensor bytes, read without believing any number in it.

use super::value::{Array, Value};
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// Metadata and tensor list above this are refused. The largest published vocabularies (262,144 tokens with merges) need about 20 MB;
/// a vector of one-letter strings, the worst case, takes about seven times its bytes in the file.
const MAX_HEADER_BYTES: u64 = 1 << 26;
/// Published files have at most a few dozen metadata entries.
const MAX_ENTRIES: u64 = 1 << 16;
/// Published files have at most a few thousand tensors.
const MAX_TENSORS: u64 = 1 << 16;
/// Limit of the specification.
const MAX_KEY_BYTES: u64 = 65_535;
/// The specification says 64; some writers exceed it a little.
const MAX_TENSOR_NAME_BYTES: u64 = 1024;
/// No known key nests at all.
const MAX_ARRAY_DEPTH: usize = 4;
/// Key length, type, and a value of one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// Name length, number of dimensions, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// One tensor as the header describes it, not yet checked against the file.
pub(super) struct RawTensor {
    pub name: String,
    /// As stored: fastest-running dimension first.
    pub dims: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

pub(super) struct Header {
    pub version: u32,
    pub metadata: HashMap<String, Value>,
    pub tensors: Vec<RawTensor>,
    /// Position after the last byte of the header, before padding.
    pub end: u64,
}

impl Header {
    pub fn read(from: impl Read, file_len: u64, path: &Path) -> Result<Self> {
        let mut cursor = Cursor { from, at: 0, limit: file_len.min(MAX_HEADER_BYTES), file_len, path };
        let version = cursor.magic_and_version()?;
        let n_tensors = cursor.u64("the number of tensors")?;
        let n_entries = cursor.u64("the number of metadata entries")?;
        cursor.check_count(n_entries, MAX_ENTRIES, MIN_ENTRY_BYTES, "metadata entries")?;
        cursor.check_count(n_tensors, MAX_TENSORS, MIN_TENSOR_BYTES, "tensors")?;
        let mut metadata = HashMap::new();
        for _ in 0..n_entries {
            let (key, value) = cursor.entry()?;
            if metadata.contains_key(&key) {
                return Err(cursor.malformed(format!("metadata key `{key}` appears twice")));
            }
            metadata.insert(key, value);
        }
        // The entries have eaten into what was left, so the count is held against the rest again before it sizes anything.
        cursor.check_count(n_tensors, MAX_TENSORS, MIN_TENSOR_BYTES, "tensors")?;
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(cursor.tensor()?);
        }
        Ok(Self { version, metadata, tensors, end: cursor.at })
    }
}

/// A reader that knows how many bytes can still come, and asks for none beyond.
struct Cursor<'a, R> {
    from: R,
    at: u64,
    limit: u64,
    file_len: u64,
    path: &'a Path,
}

impl<R: Read> Cursor<'_, R> {
    fn malformed(&self, reason: String) -> Error {
        Error::GgufMalformed { path: self.path.to_path_buf(), at: self.at, reason }
    }

    fn require(&self, bytes: u64, what: &str) -> Result<()> {
        let left = self.limit - self.at;
        if bytes <= left {
            return Ok(());
        }
        let why = if self.limit < self.file_len {
            format!("before the limit of {MAX_HEADER_BYTES} bytes for metadata and tensor list")
        } else {
            "in the file".to_owned()
        };
        Err(self.malformed(format!("{what} needs {bytes} bytes, {left} are left {why}")))
    }

    fn check_count(&self, count: u64, limit: u64, min_bytes: u64, what: &str) -> Result<()> {
        let most = limit.min((self.limit - self.at) / min_bytes);
        if count <= most {
            return Ok(());
        }
        Err(self.malformed(format!("the file claims {count} {what}, at most {most} are possible here")))
    }

    fn fill<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.require(N as u64, what)?;
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|source| Error::Io { path: self.path.to_path_buf(), source })?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn bytes(&mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        self.require(len, what)?;
        let size = usize::try_from(len).map_err(|e| self.malformed(format!("{what}: {e}")))?;
        let mut bytes = vec![0; size];
        self.from.read_exact(&mut bytes).map_err(|source| Error::Io { path: self.path.to_path_buf(), source })?;
        self.at += len;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fill(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fill(what)?))
    }

    fn string(&mut self, limit: u64, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        if len > limit {
            return Err(self.malformed(format!("{what} is {len} bytes long, at most {limit} are allowed")));
        }
        let bytes = self.bytes(len, what)?;
        String::from_utf8(bytes).map_err(|e| self.malformed(format!("{what} is not UTF-8: {}", e.utf8_error())))
    }

    fn magic_and_version(&mut self) -> Result<u32> {
        let magic: [u8; 4] = self.fill("the magic number")?;
        if magic != *b"GGUF" {
            return Err(self.malformed(format!("it starts with {magic:02x?}, a GGUF file starts with \"GGUF\"")));
        }
        let version = self.u32("the version")?;
        match version {
            2 | 3 => Ok(version),
            _ if matches!(version.swap_bytes(), 1..=3) => {
                Err(self.unsupported("version", "big-endian", "little-endian"))
            }
            _ => Err(self.unsupported("version", &version.to_string(), "2, 3")),
        }
    }

    fn unsupported(&self, what: &'static str, found: &str, supported: &str) -> Error {
        Error::GgufUnsupported { path: self.path.to_path_buf(), what, found: found.into(), supported: supported.into() }
    }

    fn entry(&mut self) -> Result<(String, Value)> {
        let key = self.string(MAX_KEY_BYTES, "a metadata key")?;
        let kind = self.u32(&key)?;
        let value = self.value(kind, &key)?;
        Ok((key, value))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(self.scalar::<1, _>(key, u8::from_le_bytes)?.into()),
            1 => Value::Signed(self.scalar::<1, _>(key, i8::from_le_bytes)?.into()),
            2 => Value::Unsigned(self.scalar::<2, _>(key, u16::from_le_bytes)?.into()),
            3 => Value::Signed(self.scalar::<2, _>(key, i16::from_le_bytes)?.into()),
            4 => Value::Unsigned(self.scalar::<4, _>(key, u32::from_le_bytes)?.into()),
            5 => Value::Signed(self.scalar::<4, _>(key, i32::from_le_bytes)?.into()),
            6 => Value::F32(self.scalar(key, f32::from_le_bytes)?),
            7 => Value::Bool(self.boolean(key)?),
            8 => Value::String(self.string(MAX_HEADER_BYTES, key)?),
            9 => Value::Array(self.array(key, 1)?),
            10 => Value::Unsigned(self.scalar(key, u64::from_le_bytes)?),
            11 => Value::Signed(self.scalar(key, i64::from_le_bytes)?),
            12 => Value::F64(self.scalar(key, f64::from_le_bytes)?),
            _ => {
                return Err(
                    self.malformed(format!("`{key}` has the unknown value type {kind}; types run from 0 to 12"))
                );
            }
        })
    }

    fn scalar<const N: usize, T>(&mut self, key: &str, from: impl Fn([u8; N]) -> T) -> Result<T> {
        Ok(from(self.fill(key)?))
    }

    fn boolean(&mut self, key: &str) -> Result<bool> {
        match self.fill::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.malformed(format!("`{key}` is a bool of value {other}; only 0 and 1 are allowed"))),
        }
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<Array> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(self.malformed(format!("`{key}` nests arrays deeper than {MAX_ARRAY_DEPTH}")));
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        Ok(match kind {
            0 => Array::U8(self.scalars(count, key, u8::from_le_bytes)?),
            1 => Array::I8(self.scalars(count, key, i8::from_le_bytes)?),
            2 => Array::U16(self.scalars(count, key, u16::from_le_bytes)?),
            3 => Array::I16(self.scalars(count, key, i16::from_le_bytes)?),
            4 => Array::U32(self.scalars(count, key, u32::from_le_bytes)?),
            5 => Array::I32(self.scalars(count, key, i32::from_le_bytes)?),
            6 => Array::F32(self.scalars(count, key, f32::from_le_bytes)?),
            7 => Array::Bool(self.list(count, 1, key, |c| c.boolean(key))?),
            8 => Array::String(self.list(count, 8, key, |c| c.string(MAX_HEADER_BYTES, key))?),
            9 => Array::Array(self.list(count, 12, key, |c| c.array(key, depth + 1))?),
            10 => Array::U64(self.scalars(count, key, u64::from_le_bytes)?),
            11 => Array::I64(self.scalars(count, key, i64::from_le_bytes)?),
            12 => Array::F64(self.scalars(count, key, f64::from_le_bytes)?),
            _ => {
                return Err(
                    self.malformed(format!("`{key}` is an array of the unknown type {kind}; types run from 0 to 12"))
                );
            }
        })
    }

    fn scalars<const N: usize, T>(&mut self, count: u64, key: &str, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.list(count, N as u64, key, |c| c.scalar(key, &from))
    }

    /// `count` elements of at least `min_bytes` each. The count is checked first and the vector still grows only as elements arrive.
    fn list<T>(
        &mut self,
        count: u64,
        min_bytes: u64,
        key: &str,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.check_count(count, u64::MAX, min_bytes, &format!("elements in `{key}`"))?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn tensor(&mut self) -> Result<RawTensor> {
        let name = self.string(MAX_TENSOR_NAME_BYTES, "a tensor name")?;
        let n_dims = self.u32(&name)?;
        if n_dims > 4 {
            return Err(self.malformed(format!("tensor `{name}` claims {n_dims} dimensions, at most 4 are allowed")));
        }
        let mut dims = Vec::with_capacity(4);
        for _ in 0..n_dims {
            dims.push(self.u64(&name)?);
        }
        Ok(RawTensor { dims, kind: self.u32(&name)?, offset: self.u64(&name)?, name })
    }
}
