//! [`StreamId`]: the identity of an activation stream, compared on resume.

use crate::{ActivationSpec, Error, PackingOptions, Result, Shuffle, TokenFilter};
use model_hooks::ProcessingSteps;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Version of the fields and of how their digests are made.
const VERSION: u32 = 1;
/// Files up to this length are hashed whole, longer ones in parts.
const WHOLE_BYTES: u64 = 64 << 20;
/// Length of a part.
const PART_BYTES: u64 = 64 << 10;
/// Number of parts, spread evenly from the first byte to the last.
const PARTS: u64 = 1024;

/// Identity of a stream of activations: model, tokenizer, text, and everything that decides which batches it delivers. On one machine, two streams of the same id
/// deliver the same batches, bit for bit, as far as digests can tell: files above 64 MiB are hashed in parts ([`FileDigest::sha256`]).
///
/// For a custom source only the fields of its [`ActivationSpec`] are set; the others are `None` or empty, and are compared as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StreamId {
    /// Version of this type.
    pub version: u32,
    /// Name of the model.
    pub model: String,
    /// What was done to its weights.
    pub processing: Option<ProcessingSteps>,
    /// What computes it.
    pub engine: Option<String>,
    /// SHA-256 of the tokenizer's JSON and special tokens.
    pub tokenizer_sha256: Option<String>,
    /// The text's files, or what is in memory.
    pub documents: Vec<FileDigest>,
    /// How tokens become rows, BOS and separators included.
    pub packing: Option<PackingOptions>,
    /// The hook points.
    pub hooks: Vec<String>,
    /// Which positions of a row are delivered: the first and the last, and their number.
    pub positions: Option<(u32, u32, usize)>,
    /// Which tokens are delivered.
    pub filter: TokenFilter,
    /// How rows become batches.
    pub batches: BatchOrder,
    /// SHA-256 of the activations of a fixed row of tokens at the hook points. Other weights, another processing or engine give other activations.
    pub activations_sha256: Option<String>,
}

/// How the rows of a stream become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchOrder {
    /// Rows of tokens in one forward pass.
    pub store_batch_size_prompts: usize,
    /// Activation rows in a batch, at most.
    pub batch_rows: usize,
    /// Slots of the ring.
    pub ring_slots: usize,
    /// The order.
    pub shuffle: Shuffle,
    /// SAELens' mixing fraction, where its schedule is followed.
    pub mix_fraction: Option<f64>,
    /// Whether a last batch that is not full is dropped.
    pub drop_last: bool,
}

/// Digest of a file of documents, without its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileDigest {
    /// Its name, without folders.
    pub name: String,
    /// How it is read: format, field, kind.
    pub read_as: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of the file. Above 64 MiB, of 1,024 parts of 64 KiB spread evenly from its first byte to its last: an edit that changes neither the length nor any of
    /// these bytes is not noticed.
    pub sha256: String,
}

/// The first field in which two streams differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDifference {
    /// Its name, and for a list which entry.
    pub field: String,
    /// Its value in the first one.
    pub left: String,
    /// Its value in the second one.
    pub right: String,
}

impl StreamId {
    /// What a spec says, without model, tokenizer and text.
    #[must_use]
    pub fn of_spec(spec: &ActivationSpec) -> Self {
        let ends = spec.positions.first().zip(spec.positions.last());
        Self {
            version: VERSION,
            model: spec.model.clone(),
            processing: None,
            engine: None,
            tokenizer_sha256: None,
            documents: Vec::new(),
            packing: None,
            hooks: spec.hooks.iter().map(ToString::to_string).collect(),
            positions: ends.map(|(first, last)| (*first, *last, spec.positions.len())),
            filter: spec.filter.clone(),
            batches: BatchOrder::of_spec(spec),
            activations_sha256: None,
        }
    }

    /// SHA-256 of all of it, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        // Derived, of plain structs, lists and enums without a custom part: no value of it fails to be written.
        sha256_hex([serde_json::to_vec(self).unwrap_or_else(|_| format!("{self:?}").into_bytes())])
    }

    /// SHA-256 of the text's files alone: equal for the same text, however it is read into batches.
    #[must_use]
    pub fn documents_digest(&self) -> String {
        sha256_hex(self.documents.iter().map(|file| format!("{file:?}").into_bytes()))
    }

    /// Compares two streams.
    ///
    /// # Errors
    /// [`Error::OtherStream`] with the first field that differs; `self` is the one that was found, `other` the one that is expected.
    pub fn check_same(&self, other: &Self) -> Result<()> {
        match self.difference(other) {
            None => Ok(()),
            Some(StreamDifference { field, left, right }) => {
                Err(Error::OtherStream { field, found: left, expected: right })
            }
        }
    }

    /// The first field in which two streams differ: what a user chose before what follows from it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<StreamDifference> {
        let Self {
            version,
            model,
            processing,
            engine,
            tokenizer_sha256,
            documents,
            packing,
            hooks,
            positions,
            filter,
            ..
        } = self;
        differs("version", version, &other.version)
            .or_else(|| differs("model", model, &other.model))
            .or_else(|| differs("processing", processing, &other.processing))
            .or_else(|| differs("engine", engine, &other.engine))
            .or_else(|| differs("tokenizer", tokenizer_sha256, &other.tokenizer_sha256))
            .or_else(|| differs("number of files of documents", &documents.len(), &other.documents.len()))
            .or_else(|| {
                let mut pairs = documents.iter().zip(&other.documents).enumerate();
                pairs.find_map(|(i, (left, right))| differs(&format!("documents, file {i}"), left, right))
            })
            .or_else(|| differs("packing", packing, &other.packing))
            .or_else(|| differs("hooks", hooks, &other.hooks))
            .or_else(|| differs("positions", positions, &other.positions))
            .or_else(|| differs("filter", filter, &other.filter))
            .or_else(|| differs("batches", &self.batches, &other.batches))
            .or_else(|| {
                differs("weights (activations of a fixed row)", &self.activations_sha256, &other.activations_sha256)
            })
    }
}

impl BatchOrder {
    pub(crate) fn of_spec(spec: &ActivationSpec) -> Self {
        Self {
            store_batch_size_prompts: spec.store_batch_size_prompts,
            batch_rows: spec.batch_rows,
            ring_slots: spec.ring_slots,
            shuffle: spec.shuffle,
            mix_fraction: spec.mix_fraction,
            drop_last: false,
        }
    }
}

impl FileDigest {
    /// Of a file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_file(path: &Path, read_as: impl Into<String>) -> std::io::Result<Self> {
        // A pipe can be read only once.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let mut hash = Sha256::new();
        if length <= WHOLE_BYTES {
            std::io::copy(&mut file.take(WHOLE_BYTES), &mut hash)?;
        } else {
            for part in 0..PARTS {
                // In 128 bits: the product of a length and a part passes 64.
                let start = u128::from(length - PART_BYTES) * u128::from(part) / u128::from(PARTS - 1);
                file.seek(SeekFrom::Start(start as u64))?;
                std::io::copy(&mut Read::by_ref(&mut file).take(PART_BYTES), &mut hash)?;
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, read_as: read_as.into(), length, sha256: hex(hash) })
    }

    /// Of documents in memory, each as bytes.
    pub fn of_memory(read_as: impl Into<String>, documents: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut hash, mut length) = (Sha256::new(), 0);
        for document in documents {
            length += document.len() as u64;
            hash.update((document.len() as u64).to_le_bytes());
            hash.update(document);
        }
        Self { name: "memory".into(), read_as: read_as.into(), length, sha256: hex(hash) }
    }
}

/// SHA-256 over parts, each with its length, in hexadecimal digits.
pub fn sha256_hex<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn differs<T: PartialEq + Debug>(field: &str, left: &T, right: &T) -> Option<StreamDifference> {
    (left != right).then(|| StreamDifference {
        field: field.into(),
        left: format!("{left:?}"),
        right: format!("{right:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> StreamId {
        StreamId::of_spec(&ActivationSpec::new("model", Vec::new(), 4))
    }

    #[test]
    fn what_differs_is_named() {
        let same = id();
        assert!(same.check_same(&id()).is_ok());
        assert_eq!(same.digest(), id().digest());
        let others = [
            ("model", StreamId { model: "other".into(), ..id() }),
            ("processing", StreamId { processing: Some(ProcessingSteps::default()), ..id() }),
            ("engine", StreamId { engine: Some("f64".into()), ..id() }),
            ("tokenizer", StreamId { tokenizer_sha256: Some("1".into()), ..id() }),
            ("number of files of documents", StreamId { documents: vec![memory("a")], ..id() }),
            ("packing", StreamId { packing: Some(PackingOptions::new(8)), ..id() }),
            ("hooks", StreamId { hooks: vec!["hook_embed".into()], ..id() }),
            ("positions", StreamId { positions: Some((1, 2, 2)), ..id() }),
            ("filter", StreamId { filter: TokenFilter::default(), ..id() }),
            ("batches", StreamId { batches: BatchOrder { batch_rows: 5, ..id().batches }, ..id() }),
            ("weights", StreamId { activations_sha256: Some("1".into()), ..id() }),
        ];
        for (field, other) in others {
            let error = other.check_same(&same).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
            assert_ne!(other.digest(), same.digest());
            let read: StreamId = serde_json::from_str(&serde_json::to_string(&other).unwrap()).unwrap();
            assert!(read.check_same(&other).is_ok());
        }
        let [a, b] = ["a", "b"].map(|text| StreamId { documents: vec![memory("same"), memory(text)], ..id() });
        assert_eq!(a.difference(&b).unwrap().field, "documents, file 1");
        assert_ne!(a.documents_digest(), b.documents_digest());
    }

    fn memory(text: &str) -> FileDigest {
        FileDigest::of_memory("texts", [text.as_bytes().to_vec()].into_iter())
    }

    #[test]
    fn long_files_differ_by_length_and_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.txt");
        let digest = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            FileDigest::of_file(&path, "text").unwrap()
        };
        assert_eq!(digest(b"abc").sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut bytes = vec![7; WHOLE_BYTES as usize + 1];
        let whole = digest(&bytes);
        assert_eq!((whole.name.as_str(), whole.length), ("x.txt", WHOLE_BYTES + 1));
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] = 8;
            assert_ne!(digest(&bytes).sha256, whole.sha256);
            bytes[at] = 7;
        }
        assert_eq!(digest(&bytes), whole);
        bytes.pop();
        assert_ne!(digest(&bytes), whole);
    }
}
