//! The folder of an export, which appears whole or not at all.

use super::ExportError;
use crate::{Error, Result};
use std::path::{Component, Path};
use tensor_files::AtomicFolder;

/// Begins the folder; nothing may be there.
///
/// # Errors
/// [`ExportError::Exists`]; I/O.
pub(crate) fn begin(target: &Path) -> Result<AtomicFolder> {
    if target.symlink_metadata().is_ok() {
        return Err(ExportError::Exists { path: target.to_path_buf() }.into());
    }
    Ok(AtomicFolder::create(target)?)
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
        let folder = begin(&target).unwrap();
        std::fs::write(folder.path().join("x"), b"x").unwrap();
        drop(folder);
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
        let folder = begin(&target).unwrap();
        std::fs::write(folder.path().join("x"), b"x").unwrap();
        folder.finish().unwrap();
        assert_eq!(std::fs::read(target.join("x")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        let error = begin(&target).err().unwrap().to_string();
        assert!(error.contains("a/b exists already"), "{error}");
        // What appears meanwhile is left as it is.
        let other = dir.path().join("c");
        let folder = begin(&other).unwrap();
        std::fs::write(&other, b"mine").unwrap();
        assert!(folder.finish().is_err());
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
