//! Many streams of records in one file without a name, however many there are.

use super::folder::io;
use crate::Result;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use tensor_files::AtomicFolder;

/// What a stream holds in memory, in bytes, at most.
const HELD: usize = 1 << 16;
const WHAT: &str = "activations on their way to disk";

/// Shared scratch file; full parts of all streams are appended to it.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    end: u64,
}

impl Scratch {
    pub(crate) fn new(folder: &AtomicFolder) -> Result<Self> {
        Ok(Self { file: folder.scratch_file()?, end: 0 })
    }

    /// Appends a part and says where it begins.
    fn append(&mut self, part: &[u8]) -> std::io::Result<u64> {
        let at = self.end;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(part)?;
        self.end += part.len() as u64;
        Ok(at)
    }

    fn read(&mut self, at: u64, part: &mut [u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(part)
    }
}

/// Records of `N` bytes each, in the order in which they came. Memory: 64 KiB, and 8 bytes for every 64 KiB on disk.
#[derive(Debug, Default)]
pub(crate) struct Stream<const N: usize> {
    held: Vec<u8>,
    /// Where the parts begin in the file, each of [`Self::PART`] bytes.
    parts: Vec<u64>,
    count: u64,
}

impl<const N: usize> Stream<N> {
    /// Whole records alone.
    const PART: usize = HELD / N * N;

    pub(crate) fn push(&mut self, scratch: &mut Scratch, record: &[u8; N]) -> Result<()> {
        self.held.extend_from_slice(record);
        self.count += 1;
        if self.held.len() >= Self::PART {
            self.parts.push(scratch.append(&self.held).map_err(|source| io(WHAT, source))?);
            self.held.clear();
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// All records again, from the first on.
    pub(crate) fn each(
        &self,
        scratch: &mut Scratch,
        mut with: impl FnMut(&[u8; N]) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut all = || -> std::io::Result<()> {
            let mut part = vec![0; if self.parts.is_empty() { 0 } else { Self::PART }];
            for &at in &self.parts {
                scratch.read(at, &mut part)?;
                part.as_chunks::<N>().0.iter().try_for_each(&mut with)?;
            }
            self.held.as_chunks::<N>().0.iter().try_for_each(&mut with)
        };
        all().map_err(|source| io(WHAT, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let folder = AtomicFolder::create(&dir.path().join("x")).unwrap();
        let mut scratch = Scratch::new(&folder).unwrap();
        let mut streams: Vec<Stream<14>> = (0..3).map(|_| Stream::default()).collect();
        // One of them never fills a part, one ends with a part, one goes on behind several.
        let part = Stream::<14>::PART / 14;
        let lengths = [5, 2 * part, 2 * part + 7];
        let record = |stream: usize, i: usize| {
            let mut record = [stream as u8; 14];
            record[..8].copy_from_slice(&i.to_le_bytes());
            record
        };
        for i in 0..2 * part + 7 {
            for (stream, records) in streams.iter_mut().enumerate().filter(|(stream, _)| i < lengths[*stream]) {
                records.push(&mut scratch, &record(stream, i)).unwrap();
            }
        }
        for (stream, records) in streams.iter().enumerate() {
            let mut i = 0;
            records
                .each(&mut scratch, |found| {
                    assert_eq!(*found, record(stream, i));
                    i += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!((i, records.count()), (lengths[stream], i as u64));
        }
    }
}
