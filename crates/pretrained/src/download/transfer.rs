//! Bytes of one file, over as many connections as it takes.

use super::response::{Wanted, good, header};
use super::{Downloader, Failure, checksum, unreachable};
use crate::cache::CachedRepo;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const PIECE: usize = 1 << 18;

/// Brings a blob here and gives it its name, once it is whole and its checksum is right. The caller holds the blob's lock.
pub(super) fn bring(
    downloader: &Downloader<'_>,
    wanted: &Wanted,
    repo: &CachedRepo,
    blob: &Path,
    told: &dyn Fn(u64),
) -> Result<()> {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    let path = PathBuf::from(name);
    let resumed = fs::metadata(&path).is_ok_and(|found| found.len() > 0);
    fill(downloader, wanted, repo, &path, told)?;
    if !checksum::matches(&path, wanted.length, &wanted.etag)? {
        remove(&path)?;
        // What an earlier run left may have been wrong from the start: once more, from nothing.
        if resumed {
            fill(downloader, wanted, repo, &path, told)?;
        }
        if !resumed || !checksum::matches(&path, wanted.length, &wanted.etag)? {
            let _ = remove(&path);
            let what = format!("bytes whose checksum is not {}", wanted.etag);
            return Err(Error::BadAnswer { url: wanted.url.clone(), what });
        }
    }
    Ok(tensor_files::rename_durably(&path, blob).map_err(sae_core::Error::from)?)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|source| Error::Io { path: path.into(), source })
}

/// Fills the file from where it ends. A try that brought bytes does not count as failed.
fn fill(
    downloader: &Downloader<'_>,
    wanted: &Wanted,
    repo: &CachedRepo,
    path: &Path,
    told: &dyn Fn(u64),
) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut file = open(path).map_err(io)?;
    let mut done = file.seek(SeekFrom::End(0)).map_err(io)?;
    if done > wanted.length {
        file.set_len(0).map_err(io)?;
        done = 0;
    }
    let mut failed = 0;
    told(done);
    while done < wanted.length {
        let before = done;
        match continue_at(downloader, wanted, repo, path, &mut file, &mut done, told) {
            Ok(()) => {}
            Err(Failure::Final(error)) => {
                // Nothing that a wrong answer brought is kept.
                if matches!(*error, Error::BadAnswer { .. }) {
                    let _ = remove(path);
                }
                return Err(*error);
            }
            Err(Failure::Again(error, asked)) => {
                failed = if done > before { 1 } else { failed + 1 };
                downloader.wait(&wanted.url, *error, failed, asked)?;
            }
        }
    }
    file.sync_all().map_err(io)
}

/// Not through a link: its target would be written to.
fn open(path: &Path) -> std::io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        fs::remove_file(path)?;
    }
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn continue_at(
    downloader: &Downloader<'_>,
    wanted: &Wanted,
    repo: &CachedRepo,
    path: &Path,
    file: &mut File,
    done: &mut u64,
    told: &dyn Fn(u64),
) -> Result<(), Failure> {
    let io = |source| Failure::from(Error::Io { path: path.into(), source });
    let wrong = |what: String| Failure::from(Error::BadAnswer { url: wanted.url.clone(), what });
    let (url, response) = downloader.follow(&wanted.url, true, (*done > 0).then_some(*done))?;
    if response.status().as_u16() == 416 {
        file.set_len(0).map_err(io)?;
        *done = 0;
        return Err(Failure::again(Error::Status { url, status: 416 }, None));
    }
    let response = good(response, &url, repo, None, downloader.from.token.is_some())?;
    if response.status().as_u16() == 206 {
        let range = header(&response, "content-range").unwrap_or_default();
        if range != format!("bytes {done}-{}/{}", wanted.length - 1, wanted.length) {
            return Err(wrong(format!("the range `{range}`, asked for {done} to {}", wanted.length)));
        }
    } else if *done > 0 {
        // The server knows no ranges: from the beginning.
        file.set_len(0).map_err(io)?;
        *done = 0;
    }
    if let Some(length) = header(&response, "content-length").and_then(|text| text.parse::<u64>().ok())
        && length != wanted.length - *done
    {
        return Err(wrong(format!("{length} bytes, expected {}", wanted.length - *done)));
    }
    file.seek(SeekFrom::Start(*done)).map_err(io)?;
    let mut body = response.into_body().into_reader();
    let mut piece = vec![0; PIECE];
    while *done < wanted.length {
        let read = match body.read(&mut piece) {
            Ok(0) => return Err(Failure::again(unreachable(&url, "the connection ended before the file"), None)),
            Ok(read) => read,
            Err(error) => return Err(Failure::again(unreachable(&url, &error.to_string()), None)),
        };
        if *done + read as u64 > wanted.length {
            return Err(wrong(format!("more than the {} bytes that were announced", wanted.length)));
        }
        file.write_all(piece.get(..read).unwrap_or_default()).map_err(io)?;
        *done += read as u64;
        told(*done);
    }
    // A body without a length may go on.
    match body.read(&mut [0]) {
        Ok(1..) => Err(wrong(format!("more than the {} bytes that were announced", wanted.length))),
        _ => Ok(()),
    }
}
