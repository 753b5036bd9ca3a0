//! The table of published SAEs, and what is asked of it.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod entry;
mod layer;
mod parse;
mod search;
mod suggest;

use crate::{Error, Result};
pub use entry::{Entry, Release};
pub use search::Query;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
pub use suggest::is_same_model;
pub(crate) use suggest::{model_names, near};

static BUILT_IN: LazyLock<Registry> = LazyLock::new(|| {
    // The table is part of this crate, and a test reads all of it.
    Registry::read(crate::RELEASE_TABLE).unwrap_or_else(|error| panic!("the crate's own table: {error}"))
});

/// A table of releases and the SAEs in each.
///
/// Held as the text that it was read from, with the places of its lines: 1.6 MB for the table of this crate. [`Entry`]s are made when asked for.
#[derive(Clone)]
pub struct Registry {
    text: String,
    releases: Vec<ReleaseAt>,
    /// Where each SAE's line begins.
    lines: Vec<u32>,
}

/// One release: where its own line begins, and which of the SAEs' lines are its own.
#[derive(Clone)]
struct ReleaseAt {
    line: u32,
    first: u32,
    count: u32,
}

impl Registry {
    /// The table of this crate: 170 releases, 13,857 SAEs. Read when first asked for, once (about 10 ms of one core).
    #[must_use]
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// Reads a table in the format of `data/README.md`, gzipped or not.
    ///
    /// # Errors
    /// [`Error::Table`] with the number of the line: an unknown format, a field too many, a number that is none, a format that is not known,
    /// a repository or path that could not be one, a name twice.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        parse::read(bytes)
    }

    /// Reads a table from a file.
    ///
    /// # Errors
    /// [`Error::Io`], and as [`read`](Self::read).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(
            &tensor_files::read_bounded(path, parse::MOST_BYTES)
                .map_err(|source| Error::Io { path: path.into(), source })?,
        )
    }

    /// How many SAEs it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it lists none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity()
            + size_of::<u32>() * self.lines.capacity()
            + size_of::<ReleaseAt>() * self.releases.capacity()
    }

    /// All releases, in the order of the table.
    pub fn releases(&self) -> impl Iterator<Item = Release> + '_ {
        self.releases.iter().map(|at| self.release_at(at))
    }

    /// A release by name.
    ///
    /// # Errors
    /// [`Error::UnknownRelease`] with the names nearest to it.
    pub fn release(&self, name: &str) -> Result<Release> {
        Ok(self.release_at(self.at(name)?))
    }

    /// All SAEs of a release, in the order of the table.
    ///
    /// # Errors
    /// [`Error::UnknownRelease`].
    pub fn entries(&self, release: &str) -> Result<Vec<Entry>> {
        let at = self.at(release)?;
        let release = Arc::new(self.release_at(at));
        Ok(self.lines_of(at).map(|line| Entry::read(&release, line)).collect())
    }

    /// One SAE, by its release and its name in it.
    ///
    /// # Errors
    /// [`Error::UnknownRelease`], [`Error::UnknownSae`]: both say what is there instead.
    pub fn find(&self, release: &str, sae_id: &str) -> Result<Entry> {
        let at = self.at(release)?;
        match self.lines_of(at).find(|line| entry::id(line) == sae_id) {
            Some(line) => Ok(Entry::read(&Arc::new(self.release_at(at)), line)),
            None => {
                let ids: Vec<&str> = self.lines_of(at).map(entry::id).collect();
                Err(Error::UnknownSae {
                    release: release.into(),
                    sae_id: sae_id.into(),
                    count: ids.len(),
                    held: layer::others(sae_id, &ids),
                    near: near(sae_id, ids.iter().copied(), 5),
                })
            }
        }
    }

    /// The SAE that a release publishes as this folder or file of a repository; where several do, that of the first release.
    #[must_use]
    pub fn find_path(&self, repo: &str, path: &str) -> Option<Entry> {
        let of_repo = self.releases.iter().filter(|at| self.line(at.line).split('\t').nth(2) == Some(repo));
        of_repo.into_iter().find_map(|at| {
            let line = self.lines_of(at).find(|line| entry::path(line) == path)?;
            Some(Entry::read(&Arc::new(self.release_at(at)), line))
        })
    }

    /// The SAEs that a query asks for, sorted by release and by name (layer 2 before layer 10).
    #[must_use]
    pub fn search(&self, query: &Query) -> Vec<Entry> {
        search::search(self, query)
    }

    fn at(&self, name: &str) -> Result<&ReleaseAt> {
        self.releases.iter().find(|at| self.name(at) == name).ok_or_else(|| Error::UnknownRelease {
            name: name.into(),
            near: near(name, self.releases.iter().map(|at| self.name(at)), 5),
        })
    }

    fn name(&self, at: &ReleaseAt) -> &str {
        self.line(at.line).split('\t').nth(1).unwrap_or_default()
    }

    fn release_at(&self, at: &ReleaseAt) -> Release {
        Release::read(self.line(at.line))
    }

    fn lines_of<'a>(&'a self, at: &ReleaseAt) -> impl Iterator<Item = &'a str> + use<'a> {
        let first = at.first as usize;
        self.lines.iter().skip(first).take(at.count as usize).map(|start| self.line(*start))
    }

    fn line(&self, start: u32) -> &str {
        let rest = self.text.get(start as usize..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or(rest);
        line.strip_suffix('\r').unwrap_or(line)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} releases, {} SAEs)", self.releases.len(), self.lines.len())
    }
}
