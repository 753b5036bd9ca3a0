//! From a file's name to how it is read.

use super::zstd_frames::{WindowTooLarge, ZstdFrames};
use crate::{Error, Place, Result};
use model_hooks::ChatTemplate;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Read at a time.
const BUFFER_BYTES: usize = 64 << 10;
pub(super) const KNOWN: &str = ".txt, .jsonl, .ndjson or .json (each also with .gz or .zst), .parquet or .arrow";

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    JsonLines,
    Parquet,
    /// Arrow IPC.
    Arrow,
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
    /// The field of a line or the column of a table, as people write it.
    pub(super) field: String,
    /// The names that lead to it: one, or those of the objects around it and its own.
    pub(super) keys: Vec<String>,
    pub(super) kind: Kind,
    /// The largest window of a zstd file, in bytes.
    pub(super) max_zstd_window: u64,
    /// Chat template that turns conversations into text.
    pub(super) chat: Option<ChatTemplate>,
    /// Text is one message of a user.
    pub(super) text_is_user: bool,
}

impl Input {
    /// A file that exists, with what its name says.
    pub(super) fn named(path: PathBuf, max_zstd_window: u64) -> Result<Self> {
        let metadata = std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
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
            keys: Vec::new(),
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
        Ok(BufReader::with_capacity(BUFFER_BYTES, Counted::new(inner)))
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

    /// The field for the identity of a stream: `a.b` inside of `a` is another one than a field of this very name.
    pub(super) fn field_words(&self) -> String {
        let inside = if self.keys.len() > 1 { " (inside)" } else { "" };
        format!("`{}`{inside}", self.field)
    }

    pub(super) fn wrong_type(&self, place: Place, found: impl Into<String>) -> Error {
        let (path, field) = (self.path.clone(), self.field.clone());
        Error::WrongType { path, place, field, expected: self.kind.expected(), found: found.into() }
    }
}

/// A file's decompressed bytes.
pub(super) type Bytes = BufReader<Counted>;

/// Counts what went through. A byte order mark at the start is passed over.
pub(super) struct Counted {
    inner: Box<dyn Read + Send>,
    read: u64,
    /// Bytes of a byte order mark that were passed over.
    pub(super) mark: u64,
    /// The first bytes, until they are handed out; `None` before they are read.
    head: Option<Vec<u8>>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Counted {
    fn new(inner: Box<dyn Read + Send>) -> Self {
        Self { inner, read: 0, mark: 0, head: None }
    }

    fn first_bytes(&mut self) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.inner.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut head)?;
        self.read = head.len() as u64;
        if head == BYTE_ORDER_MARK {
            self.mark = self.read;
            head.clear();
        }
        Ok(head)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut head = match self.head.take() {
            Some(head) => head,
            None => self.first_bytes()?,
        };
        let n = if head.is_empty() {
            let n = self.inner.read(buffer)?;
            self.read += n as u64;
            n
        } else {
            let n = head.as_slice().read(buffer)?;
            head.drain(..n);
            n
        };
        self.head = Some(head);
        Ok(n)
    }
}

/// What the ending of a file's name says: `None` for a kind that is not read.
pub(super) fn by_name(path: &Path) -> Option<(Format, Compression)> {
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
        ("arrow", Compression::None) => Some((Format::Arrow, compression)),
        _ => None,
    }
}
