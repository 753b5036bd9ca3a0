//! Texts by name.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::cache::Kind;
use crate::hub_client::is_local;
use crate::session::Session;
use crate::{Error, Hub, Result};
use std::path::{Path, PathBuf};

/// The branch on which the hub keeps every data set as Parquet, `CONFIG/SPLIT/0000.parquet`.
pub const PARQUET_REVISION: &str = "refs/convert/parquet";
const KNOWN: [&str; 4] = [".parquet", ".jsonl", ".ndjson", ".txt"];
const PACKED: [&str; 3] = ["", ".gz", ".zst"];

/// Which files of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetFilter {
    /// A part of the files' names, such as `train` or `en/`.
    pub name_contains: Option<String>,
    /// At most so many files, the first by name; all where it is `None`, and that can be terabytes.
    pub max_files: Option<usize>,
}

/// A data set's files, here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadedDataset {
    /// What `activation_store::Documents::open` takes.
    pub files: Vec<PathBuf>,
    /// How many files of the data set the part left out.
    pub left_out: usize,
    /// The commit of its repository; `None` for a local path.
    pub revision: Option<String>,
}

impl Hub {
    /// Brings files of a data set here: Parquet, or jsonl and text (plain, gz, zst).
    ///
    /// Where the repository's own branch has none of these, [`PARQUET_REVISION`] is taken.
    ///
    /// # Errors
    /// [`Error::NoText`] with what is there instead, and everything that a download can meet.
    pub fn dataset(&self, name: &str, part: &DatasetFilter) -> Result<DownloadedDataset> {
        if is_local(name) {
            return local(Path::new(name), part);
        }
        let first = match Session::open(self, Kind::Dataset, name, self.revision_or_main()) {
            // Without the hub: of a data set that was taken from its conversion nothing of the own branch is here.
            Err(error @ Error::NotInCache { .. }) if self.revision.is_none() => {
                Session::open(self, Kind::Dataset, name, PARQUET_REVISION).map_err(|_| error)?
            }
            opened => opened?,
        };
        let (mut session, mut chosen) = (first, Vec::new());
        for again in [true, false] {
            chosen = choose(session.files(), part);
            if !chosen.is_empty()
                || !again
                || self.revision.is_some()
                || part.name_contains.is_some() && readable(session.files())
            {
                break;
            }
            match Session::open(self, Kind::Dataset, name, PARQUET_REVISION) {
                Ok(converted) => session = converted,
                Err(Error::NoSuchRevision { .. } | Error::NotInCache { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        if chosen.is_empty() {
            let held = session.files().iter().take(8).cloned().collect();
            return Err(Error::NoText { name: name.into(), held });
        }
        let kept: Vec<String> = chosen.iter().take(part.max_files.unwrap_or(usize::MAX)).cloned().collect();
        let files = session.get(&kept, &[])?;
        Ok(DownloadedDataset { files, left_out: chosen.len() - kept.len(), revision: Some(session.commit) })
    }
}

fn readable(files: &[String]) -> bool {
    !choose(files, &DatasetFilter::default()).is_empty()
}

/// Files that can be read, Parquet alone if there is any, in the order of names.
fn choose(files: &[String], part: &DatasetFilter) -> Vec<String> {
    let is = |file: &str, kind: &str| PACKED.iter().any(|packed| file.ends_with(&format!("{kind}{packed}")));
    let of = |kinds: &[&str]| -> Vec<String> {
        let mut found: Vec<String> = files
            .iter()
            .filter(|file| kinds.iter().any(|kind| is(file, kind)))
            .filter(|file| {
                part.name_contains.as_ref().is_none_or(|name_contains| file.contains(name_contains.as_str()))
            })
            // What is about the data, not the data.
            .filter(|file| !matches!(file.as_str(), "requirements.txt" | "LICENSE.txt" | "license.txt" | "README.txt"))
            .cloned()
            .collect();
        found.sort();
        found
    };
    KNOWN.iter().map(|kind| of(&[kind])).find(|found| !found.is_empty()).unwrap_or_default()
}

fn local(path: &Path, part: &DatasetFilter) -> Result<DownloadedDataset> {
    if !path.is_dir() {
        return Ok(DownloadedDataset { files: vec![path.to_path_buf()], left_out: 0, revision: None });
    }
    let io = |source| Error::Io { path: path.into(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    let chosen = choose(&names, part);
    if chosen.is_empty() {
        return Err(Error::NoText { name: path.display().to_string(), held: names.into_iter().take(8).collect() });
    }
    let kept = chosen.len().min(part.max_files.unwrap_or(usize::MAX));
    let files = chosen.iter().take(kept).map(|name| path.join(name)).collect();
    Ok(DownloadedDataset { files, left_out: chosen.len() - kept, revision: None })
}
