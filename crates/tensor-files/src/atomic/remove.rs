//! Removing.

use super::crash_points::step;
use super::partial::{is_partial, partial_folder, remove_stale};
use super::{entries, parent, sync_folder};
use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;

/// Removes a folder with all that is in it, if it is there: by one rename to a partial name, and then file by file. A process that is killed leaves all of
/// it or nothing of it under its name.
///
/// # Errors
/// [`Error::Io`]. What could not be deleted stays under the partial name, and an operation on the same name tries again.
pub fn remove_folder(path: &Path) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(io)?,
    };
    let (holder, _lock) = partial_folder(path, parent(path))?;
    step();
    std::fs::rename(path, holder.path().join("removed")).map_err(io)?;
    step();
    sync_folder(parent(path))?;
    remove_tree(&holder.keep())
}

/// Removes partial files and folders (`.partial-NAME-XXXXXX`) of processes that have ended. Those of running processes stay. A missing folder is not an error.
pub fn remove_stale_partials(folder: &Path) {
    remove_stale(folder, is_partial);
}

/// Deletes a file, or a folder with its contents. Links are not followed. Tolerates another process that deletes the same tree.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let gone = |done: std::io::Result<()>| match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| Error::Io { path: path.into(), source }),
    };
    if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        step();
        return gone(std::fs::remove_file(path));
    }
    for (entry, kind) in entries(path).unwrap_or_default() {
        if kind.is_dir() {
            remove_tree(&entry)?;
        } else {
            step();
            gone(std::fs::remove_file(entry))?;
        }
    }
    step();
    gone(std::fs::remove_dir_all(path))
}
