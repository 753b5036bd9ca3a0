//! One folder.

use super::crash_points::step;
use super::partial::{is_partial, partial_folder};
use super::remove::remove_tree;
use super::{entries, parent, sync_folder, sync_tree};
use crate::{Error, Result};
use std::fs::{File, rename};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder that is filled under a partial name beside its final one, and then appears whole. If it is dropped before
/// [`finish`](Self::finish) or [`replace`](Self::replace), it is deleted with its contents.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let target = dir.path().join("results");
/// let folder = tensor_files::AtomicFolder::create(&target)?;
/// std::fs::write(folder.path().join("a.txt"), "a")?;
/// assert!(!target.exists());
/// folder.finish()?;
/// assert_eq!(std::fs::read_to_string(target.join("a.txt"))?, "a");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AtomicFolder {
    target: PathBuf,
    new: TempDir,
    /// Keeps others from removing it as left over.
    _lock: Option<File>,
}

impl AtomicFolder {
    /// Begins a folder; the folders above it are made. What processes that were killed left of the same folder is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(target: &Path) -> Result<Self> {
        // Resolve links and `.`: the rename needs the real path and its name.
        let real = if target.is_dir() { target.canonicalize() } else { Ok(target.to_path_buf()) };
        let target = real.map_err(|source| Error::Io { path: target.into(), source })?;
        let home = if is_mounted(&target) { &target } else { parent(&target) };
        let (new, lock) = match partial_folder(&target, home) {
            // The parent is not writable: build the new folder inside the target instead.
            Err(_) if target.is_dir() => partial_folder(&target, &target)?,
            made => made?,
        };
        Ok(Self { target, new, _lock: lock })
    }

    /// Path of the folder while it is filled.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.new.path()
    }

    /// An unnamed temporary file on the same file system.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scratch_file(&self) -> Result<File> {
        tempfile::tempfile_in(self.path()).map_err(self.io())
    }

    /// Gives the folder its name. Nothing may be there yet, but for an empty folder.
    ///
    /// # Errors
    /// [`Error::Io`]; what is there is left as it is.
    pub fn finish(self) -> Result<()> {
        sync_tree(self.path())?;
        step();
        rename(self.path(), &self.target).map_err(self.io())?;
        step();
        sync_folder(parent(&self.target))?;
        // It has moved: nothing is left to be removed.
        let _ = self.new.keep();
        Ok(())
    }

    /// Gives the folder its name in place of one that is there and has the files `own`, of which a reader needs the first. Files of other names stay.
    ///
    /// The two folders change places in one step of the system, so that a reader finds the old files or the new ones. Where the system has no such step, or the old
    /// folder has folders in it or is a mounted disk, its files change one after the other, `own[0]` going first and coming last: a process that is killed
    /// meanwhile leaves a folder that every reader refuses, and calling again mends it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn replace(self, own: &[&str]) -> Result<()> {
        match self.target.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return self.finish(),
            found => found.map_err(self.io())?,
        };
        sync_tree(self.path())?;
        if self.is_inside() || !self.carry_over(own)? {
            return self.change_files(own);
        }
        step();
        match exchange(self.path(), &self.target) {
            Err(_) => self.change_files(own),
            Ok(()) => {
                step();
                sync_folder(parent(&self.target))?;
                // Move back files that other processes created in the old folder since `carry_over`.
                let made = |path: &Path| path.file_name().map(|name| self.target.join(name)).filter(|to| !to.exists());
                for (path, _) in entries(self.path())? {
                    let is_own = own.iter().any(|name| path.ends_with(name));
                    if let (false, Some(to)) = (is_own || has_partial_name(&path), made(&path)) {
                        rename(&path, to).map_err(self.io())?;
                    }
                }
                remove_tree(&self.new.keep())
            }
        }
    }

    /// Whether the new folder is being made within the one that it replaces.
    fn is_inside(&self) -> bool {
        self.path().parent() == Some(&self.target)
    }

    /// Links the files of other names into the new folder; not when there are folders among them.
    fn carry_over(&self, own: &[&str]) -> Result<bool> {
        let old = entries(&self.target)?;
        let others =
            || old.iter().filter(|(path, _)| !has_partial_name(path) && !own.iter().any(|n| path.ends_with(n)));
        if others().any(|(_, kind)| !kind.is_file()) {
            return Ok(false);
        }
        for (path, _) in others() {
            let to = self.path().join(path.file_name().unwrap_or_default());
            step();
            if std::fs::hard_link(path, &to).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the new files into the old folder.
    fn change_files(self, own: &[&str]) -> Result<()> {
        let Some((key, others)) = own.split_first() else { return self.finish() };
        for name in own {
            step();
            match std::fs::remove_file(self.target.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.io()(error)),
                _ => {}
            }
        }
        sync_folder(&self.target)?;
        for name in others.iter().chain([key]) {
            let new = self.path().join(name);
            if new.symlink_metadata().is_ok() {
                step();
                rename(new, self.target.join(name)).map_err(self.io())?;
            }
        }
        step();
        sync_folder(&self.target)?;
        remove_tree(&self.new.keep())
    }

    fn io(&self) -> impl Fn(std::io::Error) -> Error + use<> {
        let path = self.target.clone();
        move |source| Error::Io { path: path.clone(), source }
    }
}

fn has_partial_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_partial)
}

/// Whether a folder is on another disk than the folder in which it lies: it cannot be renamed.
fn is_mounted(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        folder.is_dir() && device(folder) != device(parent(folder))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        false
    }
}

/// Two folders change places, in one step.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(new: &Path, old: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
