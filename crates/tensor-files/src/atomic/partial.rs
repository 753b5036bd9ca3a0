//! Names and locks of partial files and folders.

use super::{create_folders, parent, remove::remove_tree};
use crate::{Error, Result};
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use tempfile::{NamedTempFile, TempDir};

/// Prefix of all partial names.
const PREFIX: &str = ".partial-";
/// Characters at the end of such a name that are drawn at random.
const RANDOM: usize = 6;
/// Bytes of the final name in it: file systems limit the length of a name.
const MOST_NAME_BYTES: usize = 100;
/// Attempts where another process deletes the new partial before it is locked.
const TRIES: usize = 16;

/// `.partial-NAME-` of the final name.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or(OsStr::new("folder")).to_string_lossy();
    format!("{PREFIX}{}-", &name[..name.floor_char_boundary(MOST_NAME_BYTES)])
}

fn builder(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).rand_bytes(RANDOM);
    builder
}

/// A new file that will become `target`. Deletes stale partials of the same target first. Its mode is that of a new file (umask applied), not 0600.
pub(super) fn partial_file(target: &Path) -> Result<(NamedTempFile, Option<File>)> {
    make(target, parent(target), |builder, folder| {
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(folder)
    })
}

/// A new folder in `folder` that will become `target`, as [`partial_file`].
pub(super) fn partial_folder(target: &Path, folder: &Path) -> Result<(TempDir, Option<File>)> {
    make(target, folder, |builder, folder| {
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.tempdir_in(folder)
    })
}

fn make<T: AsRef<Path>>(
    target: &Path,
    folder: &Path,
    new: impl Fn(&mut tempfile::Builder<'_, 'static>, &Path) -> std::io::Result<T>,
) -> Result<(T, Option<File>)> {
    let io = |source| Error::Io { path: target.into(), source };
    create_folders(folder).map_err(io)?;
    let prefix = prefix(target);
    remove_stale(folder, |name| name.strip_prefix(&prefix).is_some_and(is_random));
    for _ in 0..TRIES {
        super::crash_points::step();
        let made = new(&mut builder(&prefix), folder).map_err(io)?;
        match lock(made.as_ref()) {
            Lock::Held(file) => return Ok((made, Some(file))),
            Lock::Unsupported => return Ok((made, None)),
            // Another process deleted it before it was locked: try again.
            Lock::Gone => {}
        }
    }
    Err(io(std::io::Error::new(ErrorKind::ResourceBusy, "another process removes what is written here")))
}

fn is_random(suffix: &str) -> bool {
    suffix.len() == RANDOM && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a name is that of a partial file or folder of any target.
pub(super) fn is_partial(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX);
    rest.is_some_and(|rest| is_random(rest) || rest.rsplit_once('-').is_some_and(|(_, suffix)| is_random(suffix)))
}

/// Deletes the partials in a folder whose processes have ended. Errors are ignored: a leftover does no harm.
pub(super) fn remove_stale(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(&is_ours);
        // Skip links (they point elsewhere) and pipes (opening one blocks).
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
            continue;
        }
        if let Lock::Held(_lock) = lock(&entry.path()) {
            let _ = remove_tree(&entry.path());
        }
    }
}

enum Lock {
    /// By this process, until it is dropped.
    Held(File),
    /// By another one, or it is no longer there.
    Gone,
    /// The file system has no locks: nothing is ever removed there.
    Unsupported,
}

/// Locks a file or folder as in use. The system takes the lock back when the process ends, however it ends.
fn lock(path: &Path) -> Lock {
    // On Windows a lock is mandatory and a folder cannot be opened as a file.
    if !cfg!(unix) {
        return Lock::Unsupported;
    }
    let Ok(file) = File::open(path) else { return Lock::Gone };
    match file.try_lock() {
        Ok(()) if path.symlink_metadata().is_ok() => Lock::Held(file),
        Ok(()) | Err(TryLockError::WouldBlock) => Lock::Gone,
        Err(TryLockError::Error(_)) => Lock::Unsupported,
    }
}
