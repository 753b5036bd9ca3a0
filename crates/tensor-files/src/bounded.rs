use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a regular file. The type is checked before opening: opening a pipe blocks until another process writes, and a device has no end.
///
/// # Errors
/// Those of the system; [`ErrorKind::InvalidInput`] for a folder, a pipe, a device or a socket.
pub fn open_regular(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(path)
}

/// Reads a regular file of at most `most` bytes: a configuration, an index, a list.
///
/// # Errors
/// As [`open_regular`]; [`ErrorKind::FileTooLarge`] for a longer file, before any of it is read.
pub fn read_bounded(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let said = file.metadata()?.len();
    let too_large = |len: u64| Error::new(ErrorKind::FileTooLarge, format!("{len} bytes, at most {most} are read"));
    if said > most {
        return Err(too_large(said));
    }
    let mut bytes = Vec::with_capacity(said as usize + 1);
    // The file may have grown meanwhile.
    match file.take(most.saturating_add(1)).read_to_end(&mut bytes)? {
        read if read as u64 > most => Err(too_large(read as u64)),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of `/proc` say that they are empty, as one does that grows after its length was asked for.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_is_longer_than_it_said() {
        let path = "/proc/self/maps";
        assert_eq!(std::fs::metadata(path).unwrap().len(), 0);
        let error = read_bounded(path, 20).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::FileTooLarge, "21 bytes, at most 20 are read".into())
        );
        assert!(read_bounded(path, 1 << 24).unwrap().len() > 20);
    }

    #[test]
    fn only_files_and_only_so_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), [7; 10]);
        let error = read_bounded(&path, 9).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::FileTooLarge, "10 bytes, at most 9 are read".into()));
        assert_eq!(read_bounded(dir.path(), 9).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(read_bounded(dir.path().join("none"), 9).unwrap_err().kind(), ErrorKind::NotFound);
        #[cfg(unix)]
        assert_eq!(read_bounded("/dev/zero", 9).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
