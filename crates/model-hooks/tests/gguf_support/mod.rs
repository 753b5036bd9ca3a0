//! Writes GGUF files byte by byte, right ones and wrong ones.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod convert;

use model_hooks::gguf::{Array, GgufFile, Value};
use std::path::{Path, PathBuf};

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A value with its type number in front, as it follows a key.
pub fn value(value: &Value) -> Vec<u8> {
    match value {
        Value::Unsigned(n) => [&4u32.to_le_bytes()[..], &u32::try_from(*n).unwrap().to_le_bytes()].concat(),
        Value::Signed(n) => [&11u32.to_le_bytes()[..], &n.to_le_bytes()].concat(),
        Value::F32(x) => [&6u32.to_le_bytes()[..], &x.to_le_bytes()].concat(),
        Value::F64(x) => [&12u32.to_le_bytes()[..], &x.to_le_bytes()].concat(),
        Value::Bool(b) => [&7u32.to_le_bytes()[..], &[u8::from(*b)]].concat(),
        Value::String(s) => [&8u32.to_le_bytes()[..], &text(s)].concat(),
        Value::Array(a) => [&9u32.to_le_bytes()[..], &array(a)].concat(),
        other => panic!("no test writes {other}"),
    }
}

fn array(a: &Array) -> Vec<u8> {
    let list = |kind: u32, elements: Vec<Vec<u8>>| {
        [&kind.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes(), &elements.concat()].concat()
    };
    match a {
        Array::String(v) => list(8, v.iter().map(|s| text(s)).collect()),
        Array::I32(v) => list(5, v.iter().map(|n| n.to_le_bytes().to_vec()).collect()),
        Array::Bool(v) => list(7, v.iter().map(|b| vec![u8::from(*b)]).collect()),
        Array::F32(v) => list(6, v.iter().map(|x| x.to_le_bytes().to_vec()).collect()),
        Array::Array(v) => list(9, v.iter().map(array).collect()),
        other => panic!("no test writes {other:?}"),
    }
}

pub fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// One tensor of the list.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    /// Fastest-running first, as in the file.
    pub dims: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

/// A file in parts, so that a test can spoil one.
#[derive(Clone)]
pub struct Gguf {
    pub magic: Vec<u8>,
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_entries: Option<u64>,
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub tensors: Vec<Entry>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

impl Default for Gguf {
    fn default() -> Self {
        Self {
            magic: b"GGUF".to_vec(),
            version: 3,
            n_tensors: None,
            n_entries: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }
}

impl Gguf {
    pub fn entry(mut self, key: &str, v: Value) -> Self {
        self.entries.retain(|(k, _)| *k != text(key));
        self.entries.push((text(key), value(&v)));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(k, _)| *k != text(key));
        self
    }

    pub fn raw_entry(mut self, key: &[u8], value: &[u8]) -> Self {
        self.entries.push((key.to_vec(), value.to_vec()));
        self
    }

    /// Adds f32 values after the data so far. `shape` is slowest first.
    pub fn tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let dims = shape.iter().rev().map(|d| *d as u64).collect();
        self.tensors.push(Entry { name: name.into(), dims, kind: 0, offset: self.data.len() as u64 });
        self.data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        self
    }

    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.clone();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_entries.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            out.extend(key);
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }

    pub fn write(&self) -> (tempfile::TempDir, PathBuf) {
        write(&self.bytes())
    }

    /// The metadata of an existing file, without its tensors.
    pub fn metadata_of(path: &Path) -> Self {
        let file = GgufFile::open(path).unwrap();
        file.metadata().fold(Self::default(), |gguf, (key, value)| gguf.entry(key, value.clone()))
    }
}

pub fn write(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// `count` copies of `whole`, each with one to four random bytes inside `range` replaced (seeded).
pub fn damaged(whole: &[u8], range: std::ops::Range<usize>, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..count).map(move |_| {
        let mut bytes = whole.to_vec();
        for _ in 0..=random(4) {
            bytes[range.start + random(range.len())] = random(256) as u8;
        }
        bytes
    })
}
