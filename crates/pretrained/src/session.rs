//! One repository at one commit: which files it has, and where they lie once they are here.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::cache::{CachedRepo, Kind};
#[cfg(feature = "hub")]
use crate::download::Downloader;
use crate::registry::near;
use crate::{Error, Hub, Result, names};
use std::path::PathBuf;

pub(crate) struct Session<'a> {
    cached: CachedRepo,
    pub(crate) commit: String,
    /// The files of the repository; without the hub, those that are here.
    files: Vec<String>,
    online: bool,
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    from: &'a Hub,
}

impl<'a> Session<'a> {
    /// Looks a revision up: at the hub, or in the cache where the hub may not or cannot be asked.
    pub(crate) fn open(from: &'a Hub, kind: Kind, id: &str, revision: &str) -> Result<Self> {
        let cached = from.cache.as_ref().ok_or(Error::NoCache)?.repo(kind, id)?;
        names::revision(revision)?;
        #[cfg(feature = "hub")]
        if !from.offline {
            match Downloader::new(from).look_up(&cached, revision) {
                Ok((commit, files)) => return Ok(Self { cached, commit, files, online: true, from }),
                // Nobody answers: what an earlier download left is used.
                Err(Error::Unreachable { .. }) if cached.commit_of(revision)?.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let commit = cached.commit_of(revision)?.ok_or_else(|| not_here(from, &cached, None))?;
        let files = cached.held(&commit)?;
        if files.is_empty() {
            return Err(not_here(from, &cached, None));
        }
        Ok(Self { cached, commit, files, online: false, from })
    }

    /// A commit whose files are all in the cache, so that no request is needed.
    pub(crate) fn pinned(
        from: &'a Hub,
        kind: Kind,
        id: &str,
        revision: &str,
        required: &[String],
        optional: &[String],
    ) -> Result<Option<Self>> {
        let Some(cache) = from.cache.as_ref().filter(|_| names::is_commit(revision)) else { return Ok(None) };
        let cached = cache.repo(kind, id)?;
        for file in required {
            if cached.find(revision, file)?.is_none() {
                return Ok(None);
            }
        }
        for file in optional {
            if cached.find(revision, file)?.is_none() && !cached.is_absent(revision, file)? {
                return Ok(None);
            }
        }
        let files = cached.held(revision)?;
        Ok(Some(Self { cached, commit: revision.into(), files, online: false, from }))
    }

    /// All files; without the hub, those that are here.
    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.files.iter().any(|other| other == file)
    }

    /// The folder of this commit's files.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        self.cached.snapshot(&self.commit)
    }

    /// Brings files here, and says where they are. All names are looked at before anything is fetched.
    pub(crate) fn get(&self, required: &[String], optional: &[String]) -> Result<Vec<PathBuf>> {
        let mut wanted = Vec::new();
        for file in required {
            names::file(file)?;
            if !self.has(file) {
                return Err(self.missing(file));
            }
            wanted.push(file);
        }
        for file in optional {
            names::file(file)?;
            match self.has(file) {
                true => wanted.push(file),
                false => self.note_absent(file)?,
            }
        }
        wanted.iter().enumerate().map(|(i, file)| self.one(file, i + 1, wanted.len())).collect()
    }

    #[cfg_attr(not(feature = "hub"), allow(unused_variables))]
    fn one(&self, file: &str, number: usize, of: usize) -> Result<PathBuf> {
        if let Some(path) = self.cached.find(&self.commit, file)? {
            return Ok(path);
        }
        #[cfg(feature = "hub")]
        if self.online {
            return Downloader::new(self.from).download(&self.cached, &self.commit, file, number, of);
        }
        Err(self.missing(file))
    }

    #[cfg_attr(not(feature = "hub"), allow(unused_variables, clippy::unused_self))]
    fn note_absent(&self, file: &str) -> Result<()> {
        #[cfg(feature = "hub")]
        if self.online && !self.cached.is_absent(&self.commit, file)? {
            return self.cached.set_absent(&self.commit, file);
        }
        Ok(())
    }

    fn missing(&self, file: &str) -> Error {
        match self.online {
            true => Error::NoSuchFile {
                repo: self.cached.id.clone(),
                commit: self.commit.clone(),
                file: file.into(),
                near: near(file, self.files.iter().map(String::as_str), 5),
            },
            false => not_here(self.from, &self.cached, Some(file)),
        }
    }
}

fn not_here(from: &Hub, cached: &CachedRepo, file: Option<&str>) -> Error {
    let what = match file {
        Some(file) => format!("`{file}` of `{}`", cached.id),
        None => format!("`{}`", cached.id),
    };
    let cache = from.cache.as_ref().map(|cache| cache.path().to_path_buf()).unwrap_or_default();
    let reason = if !cfg!(feature = "hub") {
        "this program was built without the feature `hub`, which downloads"
    } else if from.offline {
        "downloads are switched off (offline)"
    } else {
        "the hub cannot be reached"
    };
    Error::NotInCache { what, cache, reason }
}
