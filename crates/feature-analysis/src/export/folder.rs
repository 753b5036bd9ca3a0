//! A folder that appears whole or not at all.

use super::ExportError;
use crate::{Error, Result};
use std::path::{Component, Path, PathBuf};
use tempfile::TempDir;

/// A folder under a temporary name beside the one that it will have. Dropped, it vanishes with all that is in it.
pub(crate) struct NewFolder {
    target: PathBuf,
    new: TempDir,
}

impl NewFolder {
    /// Begins a folder; the folders above it are made.
    ///
    /// # Errors
    /// [`ExportError::Exists`]; I/O.
    pub(crate) fn begin(target: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: target.to_path_buf(), source };
        if target.symlink_metadata().is_ok() {
            return Err(ExportError::Exists { path: target.to_path_buf() }.into());
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(io)?;
        let mut builder = tempfile::Builder::new();
        // Temporary folders are private by default; this one becomes an ordinary folder, with the rights that the user's umask leaves.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let new = builder.prefix(".partial-").tempdir_in(parent).map_err(io)?;
        Ok(Self { target: target.to_path_buf(), new })
    }

    /// Where files go meanwhile.
    pub(crate) fn path(&self) -> &Path {
        self.new.path()
    }

    /// A file without a name, on the folder's disk, for what does not fit in memory.
    pub(crate) fn scratch(&self) -> Result<std::fs::File> {
        tempfile::tempfile_in(self.path()).map_err(|source| Error::Io { path: self.target.clone(), source })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// I/O: something that appeared there meanwhile, for one.
    pub(crate) fn finish(self) -> Result<()> {
        let io = |source| Error::Io { path: self.target.clone(), source };
        std::fs::rename(self.new.path(), &self.target).map_err(io)?;
        // It has moved: nothing is left to be removed.
        let _ = self.new.keep();
        Ok(())
    }
}

/// An error of a file that has no name.
pub(crate) fn io(what: &str, source: std::io::Error) -> Error {
    Error::Io { path: what.into(), source }
}

/// Checks that a name is one plain part of a path.
pub(crate) fn plain_name(what: &'static str, name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if plain && !name.contains(['/', '\\', '\0']) {
        return Ok(());
    }
    Err(ExportError::Name { what, name: name.into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "/", "a/b", "a\\b", "../a", "/etc", "a/", "a\0b"] {
            assert!(plain_name("the hookpoint", name).is_err(), "{name:?}");
        }
        for name in ["layers.3.mlp", "blocks.1.hook_resid_pre", "..a", "a b"] {
            assert!(plain_name("the hookpoint", name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_folder_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        let folder = NewFolder::begin(&target).unwrap();
        std::fs::write(folder.path().join("x"), b"x").unwrap();
        drop(folder);
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
        let folder = NewFolder::begin(&target).unwrap();
        std::fs::write(folder.path().join("x"), b"x").unwrap();
        folder.finish().unwrap();
        assert_eq!(std::fs::read(target.join("x")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        let error = NewFolder::begin(&target).err().unwrap().to_string();
        assert!(error.contains("a/b exists already"), "{error}");
        // What appears meanwhile is left as it is.
        let other = dir.path().join("c");
        let folder = NewFolder::begin(&other).unwrap();
        std::fs::write(&other, b"mine").unwrap();
        assert!(folder.finish().is_err());
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
