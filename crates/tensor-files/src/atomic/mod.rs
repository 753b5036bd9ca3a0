//! Files and folders that appear, change and disappear whole.
//!
//! A file or folder is written under the name `.partial-NAME-XXXXXX` in the target's folder, synced, and renamed. A process that is killed leaves
//! either the old state or the new one, and perhaps something under a partial name, which the next operation on the same name removes: the process that
//! makes a partial file or folder holds a lock on it, so that only those of processes that have ended are removed.

pub mod crash_points;
mod file;
mod folder;
mod partial;
mod remove;

pub use file::{rename_durably, write_atomically};
pub use folder::AtomicFolder;
pub use remove::{remove_folder, remove_stale_partials};

use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder in which a path lies.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it, each durably.
fn create_folders(folder: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
    std::fs::create_dir_all(folder)?;
    missing.into_iter().rev().try_for_each(|made| sync_folder_io(parent(made)))
}

/// Brings the entries of a folder to the disk, where the system can do that.
fn sync_folder(folder: &Path) -> Result<()> {
    sync_folder_io(folder).map_err(|source| Error::Io { path: folder.into(), source })
}

fn sync_folder_io(folder: &Path) -> std::io::Result<()> {
    // Elsewhere a folder is not a file that can be opened.
    if !cfg!(unix) {
        return Ok(());
    }
    match std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder that may be written to and not read, and file systems that sync no folders.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Brings a folder and all that is in it to the disk. Links are not followed.
fn sync_tree(folder: &Path) -> Result<()> {
    for (path, kind) in entries(folder)? {
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::Io { path, source })?;
        }
    }
    sync_folder(folder)
}

/// The entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, std::fs::FileType)>> {
    let io = |source| Error::Io { path: folder.into(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        entries.push((entry.path(), entry.file_type().map_err(io)?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}
