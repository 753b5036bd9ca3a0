//! From patterns to a sorted list of files, and from a file's name to how it is read.

use super::zstd_frames::{WindowTooLarge, ZstdFrames};
use crate::{Error, Place, Result};
use model_hooks::ChatTemplate;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;
const KNOWN: &str = ".txt, .jsonl, .ndjson or .json (each also with .gz or .zst), or .parquet";

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    JsonLines,
    Parquet,
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a field of documents holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Tokens,
    /// Messages, of which a chat template makes text.
    Chat,
}

impl Kind {
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Tokens => "a list of token ids",
            Self::Chat => "a list of messages",
        }
    }
}

/// One file, and all that is known about it before it is read.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) compression: Compression,
    /// The field of a line or the column of a table.
    pub(super) field: String,
    pub(super) kind: Kind,
    /// The largest window of a zstd file, in bytes.
    pub(super) max_zstd_window: u64,
    /// What makes text of conversations.
    pub(super) chat: Option<ChatTemplate>,
    /// Text is one message of a user.
    pub(super) text_is_user: bool,
}

impl Input {
    /// A file that exists, with what its name says.
    pub(super) fn named(path: PathBuf, max_zstd_window: u64) -> Result<Self> {
        let metadata = std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        if metadata.is_dir() {
            return Err(Error::IsFolder { path });
        }
        if metadata.len() == 0 {
            return Err(Error::EmptyFile { path });
        }
        let Some((format, compression)) = by_name(&path) else {
            return Err(Error::UnknownFormat { path, expected: KNOWN });
        };
        Ok(Self {
            path,
            format,
            compression,
            field: String::new(),
            kind: Kind::Text,
            max_zstd_window,
            chat: None,
            text_is_user: false,
        })
    }

    /// The decompressed bytes.
    pub(super) fn open(&self) -> Result<Bytes> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let file = BufReader::with_capacity(BUFFER_BYTES, File::open(&self.path).map_err(io)?);
        let inner: Box<dyn Read + Send> = match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(ZstdFrames::new(file, self.max_zstd_window)),
        };
        Ok(BufReader::with_capacity(BUFFER_BYTES, Counted { inner, read: 0 }))
    }

    /// What a failed read of [`open`](Self::open)'s bytes means.
    pub(super) fn read_error(&self, source: std::io::Error, bytes: &Bytes) -> Error {
        let (path, read) = (self.path.clone(), bytes.get_ref().read);
        if let Some(frame) = source.get_ref().and_then(|inner| inner.downcast_ref::<WindowTooLarge>()) {
            return Error::ZstdWindow { path, window: frame.window, max: frame.max };
        }
        let compression = match self.compression {
            _ if source.raw_os_error().is_some() => return Error::Io { path, source },
            Compression::None => return Error::Io { path, source },
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        Error::Compressed { path, compression, read, source }
    }

    pub(super) fn not_utf8(&self, place: Place, detail: String) -> Error {
        Error::NotUtf8 { path: self.path.clone(), place, detail }
    }

    pub(super) fn wrong_type(&self, place: Place, found: impl Into<String>) -> Error {
        let (path, field) = (self.path.clone(), self.field.clone());
        Error::WrongType { path, place, field, expected: self.kind.expected(), found: found.into() }
    }
}

/// A file's decompressed bytes.
pub(super) type Bytes = BufReader<Counted>;

/// Counts what went through.
pub(super) struct Counted {
    inner: Box<dyn Read + Send>,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

fn by_name(path: &Path) -> Option<(Format, Compression)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, compression) = match name.rsplit_once('.')? {
        (stem, "gz") => (stem, Compression::Gzip),
        (stem, "zst") => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::None),
    };
    match (name.rsplit_once('.')?.1, compression) {
        ("txt", _) => Some((Format::Text, compression)),
        ("jsonl" | "ndjson" | "json", _) => Some((Format::JsonLines, compression)),
        ("parquet", Compression::None) => Some((Format::Parquet, compression)),
        _ => None,
    }
}

/// The files that the patterns name: sorted, each once however it was named.
pub(super) fn expand(patterns: &[&Path]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        match pattern.to_str() {
            // A file whose name happens to hold a wildcard is meant literally.
            Some(text) if text.contains(['*', '?', '[']) && !pattern.exists() => matching(text, &mut files)?,
            _ => files.push(pattern.to_path_buf()),
        }
    }
    if files.is_empty() {
        return Err(Error::NothingMatches { pattern: "(no pattern)".into() });
    }
    files.sort();
    let mut seen = HashSet::new();
    let mut unique = Vec::with_capacity(files.len());
    for path in files {
        let real = path.canonicalize().map_err(|source| Error::Io { path: path.clone(), source })?;
        if seen.insert(real) {
            unique.push(path);
        }
    }
    Ok(unique)
}

/// As in a shell, a wildcard matches no hidden file or folder (`._x.jsonl` of macOS, `.ipynb_checkpoints`) unless the pattern names the dot.
struct Hidden(Vec<glob::Pattern>);

impl Hidden {
    fn of(pattern: &str) -> Self {
        let named = pattern.split(['/', std::path::MAIN_SEPARATOR]).filter(|part| part.starts_with('.'));
        Self(named.filter_map(|part| glob::Pattern::new(part).ok()).collect())
    }

    fn passes_over(&self, path: &Path) -> bool {
        path.components().any(|part| match part {
            std::path::Component::Normal(name) => {
                let name = name.to_string_lossy();
                name.starts_with('.') && !self.0.iter().any(|named| named.matches(&name))
            }
            _ => false,
        })
    }
}

fn matching(pattern: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |e: glob::PatternError| Error::Pattern { pattern: pattern.into(), reason: e.to_string() };
    let before = files.len();
    let hidden = Hidden::of(pattern);
    for found in glob::glob(pattern).map_err(wrong)? {
        let path = found.map_err(|e| Error::Io { path: e.path().to_path_buf(), source: e.into() })?;
        if path.is_file() && !hidden.passes_over(&path) {
            files.push(path);
        }
    }
    if files.len() == before { Err(Error::NothingMatches { pattern: pattern.into() }) } else { Ok(()) }
}
