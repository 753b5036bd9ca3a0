//! The folder of downloads, laid out as Python's `huggingface_hub` lays it out, so that both use one copy.
//!
//! ```text
//! models--owner--name/refs/main                    the commit that a branch had when it was last looked up
//! models--owner--name/snapshots/COMMIT/path/file   -> ../../../../blobs/ETAG
//! models--owner--name/blobs/ETAG                   the bytes, under a name that is their checksum
//! models--owner--name/blobs/ETAG.incomplete        what has arrived of them so far
//! models--owner--name/.no_exist/COMMIT/path/file   empty: the repository has no such file at this commit
//! .locks/models--owner--name/ETAG.lock             held while a blob is written, by Python too
//! ```

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::{Error, Result, names};
use hf_hub::{Repo, RepoType};
use std::env;
use std::path::{Path, PathBuf};

/// Where downloads are kept: a folder shared with Python's `huggingface_hub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Dataset,
}

/// A repository's part of the cache.
#[derive(Clone, Debug)]
pub(crate) struct CachedRepo {
    pub(crate) id: String,
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    pub(crate) kind: Kind,
    root: PathBuf,
    folder: PathBuf,
}

impl Cache {
    /// A cache in this folder (Python's `HF_HUB_CACHE`); it is made when something is downloaded.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that Python's tools use: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `XDG_CACHE_HOME/huggingface/hub`, else
    /// `~/.cache/huggingface/hub`.
    ///
    /// # Errors
    /// [`Error::NoCache`] when none of them is set and there is no home folder.
    pub fn from_env() -> Result<Self> {
        match variable("HF_HUB_CACHE") {
            Some(folder) => Ok(Self::new(folder)),
            None => Ok(Self::new(home_from_env()?.join("hub"))),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn repo(&self, kind: Kind, id: &str) -> Result<CachedRepo> {
        let id = names::repo(id)?.to_owned();
        let of_type = match kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        let folder = self.root.join(Repo::new(id.clone(), of_type).folder_name());
        Ok(CachedRepo { id, kind, root: self.root.clone(), folder })
    }
}

/// A variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The folder of Python's tools: `HF_HOME`.
pub(crate) fn home_from_env() -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(home.into());
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&cache).join("huggingface"));
    }
    env::home_dir().map(|home| home.join(".cache/huggingface")).ok_or(Error::NoCache)
}

impl CachedRepo {
    /// The commit that a revision had when it was last looked up.
    pub(crate) fn commit_of(&self, revision: &str) -> Result<Option<String>> {
        if names::is_commit(revision) {
            return Ok(Some(revision.into()));
        }
        match tensor_files::read_bounded(self.reference(revision)?, 4096) {
            Ok(commit) => names::commit(String::from_utf8_lossy(&commit).trim()).map(|commit| Some(commit.into())),
            Err(_) => Ok(None),
        }
    }

    fn reference(&self, revision: &str) -> Result<PathBuf> {
        Ok(self.folder.join("refs").join(names::revision(revision)?))
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> Result<PathBuf> {
        Ok(self.folder.join("snapshots").join(names::commit(commit)?))
    }

    /// A file that is there, whole.
    pub(crate) fn find(&self, commit: &str, file: &str) -> Result<Option<PathBuf>> {
        let path = self.snapshot(commit)?.join(names::file(file)?);
        let Ok(real) = path.canonicalize() else { return Ok(None) };
        self.is_inside(file, &real)?;
        Ok(Some(path))
    }

    /// A link that leads out of the cache is not followed.
    fn is_inside(&self, file: &str, real: &Path) -> Result<()> {
        let root = self.root.canonicalize().map_err(|source| Error::Io { path: self.root.clone(), source })?;
        match real.starts_with(&root) {
            true => Ok(()),
            false => Err(Error::UnsafeName {
                what: "file in the cache",
                name: file.into(),
                reason: "it is a link that leads out of the cache",
            }),
        }
    }

    /// Whether the repository is known to have no such file.
    pub(crate) fn is_absent(&self, commit: &str, file: &str) -> Result<bool> {
        Ok(self.folder.join(".no_exist").join(names::commit(commit)?).join(names::file(file)?).is_file())
    }

    /// The files of a commit that are there.
    pub(crate) fn held(&self, commit: &str) -> Result<Vec<String>> {
        let root = self.snapshot(commit)?;
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                // Folders of a snapshot are real; files are links.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                } else if let Ok(name) = entry.path().strip_prefix(&root) {
                    found.push(name.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(feature = "hub")]
mod write {
    use super::*;
    use std::fs::{self, File};
    use std::io::Write;
    use tensor_files::{AtomicFolder, remove_stale_partials, rename_durably, write_atomically};

    impl CachedRepo {
        pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
            // What a download that was killed left of a link.
            remove_stale_partials(&self.folder);
            if names::is_commit(revision)
                || self.commit_of(revision).is_ok_and(|known| known.as_deref() == Some(commit))
            {
                return Ok(());
            }
            let path = self.reference(revision)?;
            write_atomically(&path, |file| {
                let source = |source| tensor_files::Error::Io { path: path.clone(), source };
                file.write_all(names::commit(commit).unwrap_or_default().as_bytes()).map_err(source)
            })
            .map_err(|error: tensor_files::Error| sae_core::Error::from(error).into())
        }

        /// Notes that the repository has no such file at this commit.
        pub(crate) fn set_absent(&self, commit: &str, file: &str) -> Result<()> {
            let path = self.folder.join(".no_exist").join(names::commit(commit)?).join(names::file(file)?);
            made(path.parent())?;
            File::create(&path).map(drop).map_err(|source| Error::Io { path, source })
        }

        /// Where a blob goes; its name was checked by [`names::etag`].
        pub(crate) fn blob(&self, etag: &str) -> Result<PathBuf> {
            let folder = self.folder.join("blobs");
            made(Some(&folder))?;
            Ok(folder.join(etag))
        }

        /// Waits until no other process (Python included) writes this blob. Released when dropped.
        pub(crate) fn lock(&self, etag: &str) -> Result<File> {
            let folder = self.folder.file_name().unwrap_or_default();
            let path = self.root.join(".locks").join(folder).join(format!("{etag}.lock"));
            made(path.parent())?;
            let io = |source| Error::Io { path: path.clone(), source };
            let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
            // File systems without locks: the blob's name is its checksum, and it is renamed into place.
            match file.lock() {
                Err(error) if error.kind() != std::io::ErrorKind::Unsupported => Err(io(error)),
                _ => Ok(file),
            }
        }

        /// Gives a blob its name in a snapshot: a relative link, or a copy where links cannot be made.
        pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
            let path = self.snapshot(commit)?.join(names::file(file)?);
            let io = |source| Error::Io { path: path.clone(), source };
            let folder = path.parent().unwrap_or(&path);
            made(Some(folder))?;
            // A folder of the snapshot that was made a link leads elsewhere.
            self.is_inside(file, &folder.canonicalize().map_err(io)?)?;
            if self.find(commit, file)?.is_some() {
                return Ok(path);
            }
            // Not in the snapshot, where everything is a file of the commit.
            let partial = AtomicFolder::create(&self.folder.join("link")).map_err(sae_core::Error::from)?;
            let link = partial.path().join("link");
            let up = "../".repeat(1 + file.split('/').count());
            if relative_link(&format!("{up}blobs/{etag}"), &link).is_err() {
                fs::copy(self.blob(etag)?, &link).map_err(io)?;
            }
            // A link that leads nowhere is replaced.
            rename_durably(&link, &path).map_err(sae_core::Error::from)?;
            Ok(path)
        }
    }

    fn made(folder: Option<&Path>) -> Result<()> {
        let Some(folder) = folder else { return Ok(()) };
        fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.into(), source })
    }

    #[cfg(unix)]
    fn relative_link(target: &str, link: &Path) -> std::io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    #[cfg(not(unix))]
    fn relative_link(_: &str, _: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
