//! One file.

use super::crash_points::step;
use super::partial::partial_file;
use super::{parent, sync_folder};
use crate::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a file through `fill` so that `path` holds either its old content or the complete new one, never a part.
///
/// The bytes go to a partial file in the same folder (made if it is missing), which is synced and renamed over `path`; then the folder is synced. What
/// processes that were killed left of the same file is removed.
///
/// # Errors
/// Any I/O error, or the error of `fill` (the partial file is then removed and `path` is untouched).
pub fn write_atomically<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let (partial, _lock) = partial_file(path)?;
    step();
    let mut writer = BufWriter::with_capacity(1 << 20, partial.as_file());
    fill(&mut writer)?;
    writer.flush().map_err(io)?;
    drop(writer);
    step();
    partial.as_file().sync_all().map_err(io)?;
    step();
    partial.persist(path).map_err(|e| io(e.error))?;
    step();
    Ok(sync_folder(parent(path))?)
}

/// Renames a file or a link over `to`, which lies on the same disk: both the content and the new name are on the disk afterwards.
///
/// # Errors
/// [`Error::Io`].
pub fn rename_durably(from: &Path, to: &Path) -> crate::Result<()> {
    let io = |source| Error::Io { path: to.to_path_buf(), source };
    if from.symlink_metadata().map_err(io)?.is_file() {
        step();
        File::open(from).and_then(|file| file.sync_all()).map_err(io)?;
    }
    step();
    std::fs::rename(from, to).map_err(io)?;
    step();
    sync_folder(parent(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_file_has_the_rights_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_atomically::<Error>(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/x.bin");
        write_atomically::<Error>(&path, |w| {
            w.write_all(b"old").map_err(|source| Error::Io { path: path.clone(), source })
        })
        .unwrap();
        let failed = write_atomically::<Error>(&path, |w| {
            w.write_all(b"half of the n").unwrap();
            Err(Error::Malformed { path: path.clone(), format: "test", reason: "stopped on purpose".into() })
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
