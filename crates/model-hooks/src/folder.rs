//! The weight files of a Hugging Face folder: one file or several with an index, safetensors or `torch.save`'s, read by tensor name.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::weights::TensorSource;
use crate::{Error, LoadWarning, Result};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tensor_files::{SafetensorsFile, TensorFile, TorchFile, read_weight_map};

/// A format of weights: its one file, the index of its shards, what opens it.
struct Format {
    single: &'static str,
    index: &'static str,
    open: fn(&Path) -> tensor_files::Result<Box<dyn TensorFile>>,
}

/// The first of these that a folder has is read.
const FORMATS: [Format; 2] = [
    Format {
        single: "model.safetensors",
        index: "model.safetensors.index.json",
        open: |path| Ok(Box::new(SafetensorsFile::open(path)?)),
    },
    // What was published before safetensors was: a pickle, read without executing anything.
    Format {
        single: "pytorch_model.bin",
        index: "pytorch_model.bin.index.json",
        open: |path| Ok(Box::new(TorchFile::open(path)?)),
    },
];

const MAP: &str = "an object of tensor names and file names, each tensor once";

/// Tensors by name, each read when taken; [`finish`](TensorSource::finish) then tells which were never taken.
pub(crate) struct HfFolder {
    path: PathBuf,
    files: Vec<Box<dyn TensorFile>>,
    /// Name without the family's prefix -> (file, name in the file).
    held: BTreeMap<String, (usize, String)>,
    taken: Mutex<BTreeSet<String>>,
    warnings: Mutex<Vec<LoadWarning>>,
}

impl HfFolder {
    /// Opens the first of `model.safetensors`, the shards that `model.safetensors.index.json` names, `pytorch_model.bin` and the shards
    /// of `pytorch_model.bin.index.json`. The first of `prefixes` (`transformer.`, `model.`) that a name has is removed from it.
    pub(crate) fn open(folder: &Path, prefixes: &[&str]) -> Result<Self> {
        let files = open_files(folder)?;
        let mut held = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                let short = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name).to_string();
                if held.insert(short, (i, name.clone())).is_some() {
                    return Err(Error::UnexpectedTensors {
                        path: folder.into(),
                        names: vec![format!("{name} (twice)")],
                    });
                }
            }
        }
        Ok(Self { path: folder.into(), files, held, taken: Mutex::default(), warnings: Mutex::default() })
    }

    fn missing(&self, name: &str) -> Error {
        let nearest = crate::hook::nearest(name, self.held.keys().cloned());
        let hint = format!("the files hold {} tensors; nearest: {}", self.held.len(), nearest.join(", "));
        Error::MissingWeight { path: self.path.clone(), name: name.into(), hint }
    }
}

impl TensorSource for HfFolder {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (file, full) = self.held.get(name).ok_or_else(|| self.missing(name))?;
        let values = self.files.get(*file).ok_or_else(|| self.missing(name))?.read_f32(full, shape)?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
        Ok(values)
    }

    fn holds(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    fn warn(&self, warning: LoadWarning) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    fn warnings(&self) -> Vec<LoadWarning> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&self, spare: &dyn Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.held.iter().filter(|(name, _)| !taken.contains(*name) && !spare(name));
        let mut names: Vec<String> = left.map(|(_, (_, full))| full.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        shorten(&mut names);
        Err(Error::UnexpectedTensors { path: self.path.clone(), names })
    }
}

pub(crate) fn shorten(names: &mut Vec<String>) {
    let count = names.len();
    if count > 12 {
        names.truncate(12);
        names.push(format!("... ({count} in all)"));
    }
}

/// Whether a file of a folder is a link to somewhere else: neither to a file of the same folder nor, where that is a snapshot in the
/// hub's cache (`models--NAME/snapshots/REVISION`), to one of `models--NAME/blobs`, where all files of such snapshots are.
///
/// A path that cannot be resolved is not a link elsewhere: opening it returns the reason.
fn leads_out(folder: &Path, file: &str) -> bool {
    let (Ok(real), Ok(home)) = (folder.join(file).canonicalize(), folder.canonicalize()) else { return false };
    let snapshots = home.parent().filter(|parent| parent.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    let place = real.parent();
    place != Some(&home) && (blobs.is_none() || place != blobs.as_deref())
}

fn open_files(folder: &Path) -> Result<Vec<Box<dyn TensorFile>>> {
    for format in &FORMATS {
        let (single, index) = (folder.join(format.single), folder.join(format.index));
        if single.is_file() {
            return Ok(vec![(format.open)(&single)?]);
        }
        if index.is_file() {
            return open_shards(folder, &index, format);
        }
    }
    let reason = "the folder has none of model.safetensors, model.safetensors.index.json, pytorch_model.bin and \
                  pytorch_model.bin.index.json";
    Err(Error::NotAModel { path: folder.into(), reason })
}

/// Opens every file that the index names, after checking that each is in the folder (or is the hub's cache's, see [`leads_out`]) and holds what the index says.
fn open_shards(folder: &Path, index: &Path, format: &Format) -> Result<Vec<Box<dyn TensorFile>>> {
    let map = weight_map(index)?;
    let bad = |name: &str, file: &str, reason| Error::BadIndex {
        path: index.into(),
        name: name.into(),
        file: file.into(),
        reason,
    };
    let mut files: BTreeMap<&str, Box<dyn TensorFile>> = BTreeMap::new();
    for (name, file) in &map {
        let mut parts = Path::new(file).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
            || file.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
        {
            return Err(bad(name, file, "a shard must be a plain file name inside the folder"));
        }
        let shard = match files.entry(file) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(_) if leads_out(folder, file) => {
                return Err(bad(
                    name,
                    file,
                    "a shard may be a link to a file of its folder or of the hub's cache, this leads elsewhere",
                ));
            }
            Entry::Vacant(place) => place.insert((format.open)(&folder.join(file))?),
        };
        if !shard.contains(name) {
            return Err(bad(name, file, "that file does not hold the tensor"));
        }
    }
    Ok(files.into_values().collect())
}

fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let bad = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::InvalidData => Error::BadKey {
            path: index.into(),
            key: "weight_map".into(),
            expected: MAP.into(),
            found: source.to_string(),
        },
        _ => Error::Io { path: index.into(), source },
    };
    let missing = || Error::MissingKey { path: index.into(), key: "weight_map".into(), expected: MAP.into() };
    read_weight_map(index).map_err(bad)?.ok_or_else(missing)
}
