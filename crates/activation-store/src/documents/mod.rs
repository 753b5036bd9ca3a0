//! Documents from files: text, JSON Lines, Parquet and Arrow, one stream in a stable order and bounded memory.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod arrow_json;
mod emit;
mod encoding;
mod files;
mod inspect;
mod ipc;
mod json_fields;
mod json_line;
mod json_stream;
mod json_text;
mod jsonl;
mod non_finite;
mod patterns;
mod records;
mod report;
mod rows;
mod table;
mod txt;
mod zstd_frames;

pub use report::DocumentReport;

use crate::{DocId, DocumentSource, Error, FileDigest, Piece, Result, sha256_hex};
use emit::{Emitter, Message, Stop};
use files::{Format, Input, Kind};
use inspect::inspect;
use model_hooks::ChatTemplate;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches of pieces read ahead.
const READ_AHEAD: usize = 2;
/// What is a document in a `.txt` file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextSplit {
    /// The whole file.
    #[default]
    File,
    /// Each paragraph: lines up to a blank one (empty, or whitespace only), without the end of the last line.
    BlankLines,
}

/// How files become documents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DocumentOptions {
    /// The field (JSON) or column (Parquet, Arrow) with the document: a string is text, a list of integers is tokens. `data.text` is the field
    /// `text` inside of `data`, unless a field has that very name. Unless
    /// told, each file's first line or schema decides, in SAELens' order: `tokens`, `input_ids`, `text`, `problem`; where none of these is
    /// there, conversations: `conversation`, `conversations`, `messages`.
    pub field: Option<String>,
    /// Chat template that turns conversations into text: the one that comes with the model's tokenizer ([`ChatTemplate::find`]) or another. The bytes of
    /// such a document, which addresses count, are those of that text.
    pub chat_template: Option<ChatTemplate>,
    /// SAELens' parameter of this name: every document is a conversation. The order of fields is then `conversation`, `conversations`,
    /// `messages`, `text`; a text is one message of a user.
    pub use_chat_formatting: bool,
    /// Longest [`Piece`] in bytes (4 for a token); 1 MiB unless told. At least 16.
    pub max_piece_bytes: usize,
    /// What is a document in a `.txt` file.
    pub text_split: TextSplit,
    /// The largest window of a zstd file that is read, in bytes: 2 GiB unless told, which is what `zstd --long=31` writes and the most that the
    /// zstd library reads. Memory is at most the window stated by the file, and only the
    /// filled part of it.
    pub max_zstd_window_bytes: u64,
}

impl Default for DocumentOptions {
    fn default() -> Self {
        let max_zstd_window_bytes = 1 << zstd_frames::MAX_WINDOW_LOG;
        Self {
            field: None,
            chat_template: None,
            use_chat_formatting: false,
            max_piece_bytes: 1 << 20,
            text_split: TextSplit::File,
            max_zstd_window_bytes,
        }
    }
}

impl DocumentOptions {
    /// Takes the document from this field or column.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Self {
        self.field = Some(name.into());
        self
    }

    /// Makes text of conversations by this template.
    #[must_use]
    pub fn chat_template(mut self, template: ChatTemplate) -> Self {
        self.chat_template = Some(template);
        self
    }

    /// Sets whether every document is a conversation.
    #[must_use]
    pub fn use_chat_formatting(mut self, yes: bool) -> Self {
        self.use_chat_formatting = yes;
        self
    }

    /// Sets the longest piece.
    #[must_use]
    pub fn max_piece_bytes(mut self, bytes: usize) -> Self {
        self.max_piece_bytes = bytes;
        self
    }

    /// Sets what is a document in a `.txt` file.
    #[must_use]
    pub fn text_split(mut self, split: TextSplit) -> Self {
        self.text_split = split;
        self
    }

    /// Sets the largest window of a zstd file.
    #[must_use]
    pub fn max_zstd_window_bytes(mut self, bytes: u64) -> Self {
        self.max_zstd_window_bytes = bytes;
        self
    }
}

/// Where the documents are.
enum Held {
    /// Each with its number in the list of files.
    Files(Vec<(u32, Input)>),
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

/// A stream of documents: an iterator over their pieces, in the order of the files and of the documents in them.
///
/// A thread reads ahead, a few pieces at most: memory is about ten times [`DocumentOptions::max_piece_bytes`], whatever the
/// size of a file, line or document (a single Parquet value has to fit into memory, see the format), and the window of a zstd file. After
/// an error there is nothing more.
///
/// Documents without a value and files without documents are left out and counted ([`DocumentSource::report`]).
///
/// ```
/// # use activation_store::{Content, Documents};
/// let mut pieces = Documents::from_texts(vec!["one".into(), "two".into()])?;
/// let second = pieces.nth(1).transpose()?.unwrap();
/// assert_eq!((second.doc.ordinal, second.content), (1, Content::Text("two".into())));
/// # Ok::<(), activation_store::Error>(())
/// ```
pub struct Documents {
    origin: Arc<Held>,
    files: Vec<PathBuf>,
    options: DocumentOptions,
    /// The file that the thread reads.
    current: Arc<AtomicUsize>,
    receiver: Option<Receiver<Message>>,
    ready: VecDeque<Piece>,
    left_out: DocumentReport,
    over: bool,
}

impl Documents {
    /// Documents from `.txt`, `.jsonl` (`.ndjson`, `.json`: one object a line, or a list of objects) and `.parquet` or `.arrow` files, the first two also
    /// compressed (`.gz`, `.zst`). A pattern is a path, or has wildcards (`*`, `?`, `[..]`, `**`), which match no hidden files unless they
    /// name the dot. A folder stands for the files of these kinds in it and in the folders below it, of all splits; hidden files and those that
    /// the `datasets` library keeps beside the data (`dataset_info.json`) are not read, nor are files of other kinds. The files are sorted by
    /// path; one that is named twice is read once.
    ///
    /// Looks into each file: its field or column must be there. A file without documents is left out and counted.
    ///
    /// # Errors
    /// A file that is missing or of unknown kind; no documents in any file; a pattern that matches nothing, or a folder without a file that is
    /// read; text in another encoding than UTF-8 (the error says which one and how to convert it); no field with documents (the error
    /// lists those that are there); conversations without a chat template; text in one file and tokens in another.
    pub fn open<P: AsRef<Path>>(patterns: &[P], options: DocumentOptions) -> Result<Self> {
        let patterns: Vec<&Path> = patterns.iter().map(AsRef::as_ref).collect();
        let files = patterns::expand(&patterns)?;
        let mut inputs = Vec::with_capacity(files.len());
        let mut empty = None;
        for (file, path) in (0..).zip(&files) {
            match inspect(path, &options) {
                Ok(input) => inputs.push((file, input)),
                Err(error @ Error::EmptyFile { .. }) => empty = empty.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        if inputs.is_empty()
            && let Some(error) = empty
        {
            return Err(error);
        }
        let of_kind = |kind| {
            inputs
                .iter()
                .find(|(_, input)| (input.kind == Kind::Tokens) == (kind == Kind::Tokens))
                .map(|(_, input)| input.path.clone())
        };
        if let (Some(text), Some(tokens)) = (of_kind(Kind::Text), of_kind(Kind::Tokens)) {
            return Err(Error::MixedContent { text, tokens });
        }
        Self::new(Held::Files(inputs), files, options)
    }

    /// Documents of text that are in memory.
    ///
    /// # Errors
    /// None at all were given.
    pub fn from_texts(texts: Vec<String>) -> Result<Self> {
        Self::from_texts_with(texts, DocumentOptions::default())
    }

    /// Documents of text that are in memory, cut into pieces as the options say.
    ///
    /// # Errors
    /// None at all were given.
    pub fn from_texts_with(texts: Vec<String>, options: DocumentOptions) -> Result<Self> {
        if texts.is_empty() {
            return Err(Error::NoDocuments);
        }
        Self::new(Held::Texts(texts), Vec::new(), options)
    }

    /// Documents of tokens that are in memory.
    ///
    /// # Errors
    /// None at all were given.
    pub fn from_tokens(documents: Vec<Vec<u32>>) -> Result<Self> {
        if documents.is_empty() {
            return Err(Error::NoDocuments);
        }
        Self::new(Held::Tokens(documents), Vec::new(), DocumentOptions::default())
    }

    fn new(origin: Held, files: Vec<PathBuf>, options: DocumentOptions) -> Result<Self> {
        if options.max_piece_bytes < 16 {
            let found = options.max_piece_bytes.to_string();
            return Err(Error::Option { option: "max_piece_bytes", found, expected: "at least 16".into() });
        }
        Ok(Self::start(Arc::new(origin), files, options))
    }

    fn start(origin: Arc<Held>, files: Vec<PathBuf>, options: DocumentOptions) -> Self {
        let current = Arc::new(AtomicUsize::new(0));
        let left_out = match origin.as_ref() {
            Held::Files(inputs) => {
                DocumentReport { empty_files: (files.len() - inputs.len()) as u64, ..Default::default() }
            }
            Held::Texts(_) | Held::Tokens(_) => DocumentReport::default(),
        };
        Self { origin, files, options, current, receiver: None, ready: VecDeque::new(), left_out, over: false }
    }

    /// The same documents from the first on.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::start(Arc::clone(&self.origin), self.files.clone(), self.options.clone())
    }

    /// The files, as [`DocId::file`] numbers them. Empty for documents in memory.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether the documents are tokens rather than text.
    #[must_use]
    pub fn are_tokens(&self) -> bool {
        match self.origin.as_ref() {
            Held::Files(inputs) => inputs.iter().any(|(_, input)| input.kind == Kind::Tokens),
            Held::Texts(_) => false,
            Held::Tokens(_) => true,
        }
    }

    /// The next message of the reading thread, which is started first if need be.
    fn receive(&mut self) -> Result<Message> {
        let receiver = match &self.receiver {
            Some(receiver) => receiver,
            None => {
                let (sender, receiver) = sync_channel(READ_AHEAD);
                let (origin, options, current) = (self.origin.clone(), self.options.clone(), self.current.clone());
                let run = move || {
                    let mut out = Emitter::new(sender, options.max_piece_bytes);
                    let outcome = read(&origin, &options, &current, &mut out);
                    out.finish(outcome);
                };
                let spawned = std::thread::Builder::new().name("documents".into()).spawn(run);
                spawned.map_err(|source| Error::Io { path: self.current_file(), source })?;
                self.receiver.insert(receiver)
            }
        };
        receiver.recv().map_err(|_| Error::ReaderStopped { path: self.current_file() })
    }

    fn current_file(&self) -> PathBuf {
        self.files.get(self.current.load(Ordering::Relaxed)).cloned().unwrap_or_default()
    }
}

impl Iterator for Documents {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.over {
            match self.receive() {
                Ok(Message::Pieces(pieces, left_out)) => {
                    self.ready.extend(pieces);
                    self.left_out.add(left_out);
                }
                Ok(Message::End) => self.over = true,
                Ok(Message::Failed(error)) | Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl DocumentSource for Documents {
    fn report(&self) -> DocumentReport {
        self.left_out
    }

    fn digests(&self) -> Result<Vec<FileDigest>> {
        let bytes = |ids: &Vec<u32>| ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        Ok(match self.origin.as_ref() {
            Held::Files(inputs) => {
                let digest = |input: &Input| {
                    let read_as = match input.format {
                        Format::Text => format!("text, {:?}", self.options.text_split),
                        format => format!("{format:?}, {}, {}", input.field_words(), input.kind.expected()),
                    };
                    // The chat template changes the tokens, so it is part of the digest.
                    let read_as = match (input.kind, &self.options.chat_template) {
                        (Kind::Chat, Some(template)) => {
                            format!("{read_as}, chat template {}", sha256_hex([format!("{template:?}")]))
                        }
                        _ => read_as,
                    };
                    // A text without white space is cut where its piece ends, which decides the tokens there.
                    let read_as = format!("{read_as}, pieces of {} bytes", self.options.max_piece_bytes);
                    let io = |source| Error::Io { path: input.path.clone(), source };
                    FileDigest::of_file(&input.path, read_as).map_err(io)
                };
                inputs.iter().map(|(_, input)| digest(input)).collect::<Result<_>>()?
            }
            Held::Texts(texts) => {
                let read_as = format!("texts, pieces of {} bytes", self.options.max_piece_bytes);
                vec![FileDigest::of_memory(read_as, texts.iter().map(|text| text.as_bytes().to_vec()))]
            }
            Held::Tokens(documents) => vec![FileDigest::of_memory("tokens", documents.iter().map(bytes))],
        })
    }
}

/// What the reading thread does.
fn read(
    origin: &Held,
    options: &DocumentOptions,
    current: &AtomicUsize,
    out: &mut Emitter,
) -> std::result::Result<(), Stop> {
    match origin {
        Held::Files(inputs) => {
            for (file, input) in inputs {
                current.store(*file as usize, Ordering::Relaxed);
                let before = out.documents;
                read_file(input, *file, options, out)?;
                out.left_out.empty_files += u64::from(out.documents == before);
            }
            if let Some((_, input)) = inputs.first().filter(|_| out.documents == 0) {
                let refusal = out.first_refusal.take();
                return Err(refusal.unwrap_or_else(|| Error::EmptyFile { path: input.path.clone() }).into());
            }
        }
        Held::Texts(texts) => {
            for (ordinal, text) in (0..).zip(texts) {
                out.text(DocId { file: 0, ordinal }, text.clone())?;
            }
        }
        Held::Tokens(documents) => {
            for (ordinal, ids) in (0..).zip(documents) {
                out.tokens(DocId { file: 0, ordinal }, ids)?;
            }
        }
    }
    Ok(())
}

fn read_file(input: &Input, file: u32, options: &DocumentOptions, out: &mut Emitter) -> std::result::Result<(), Stop> {
    match input.format {
        Format::Text => txt::read(input, file, options.text_split, out),
        Format::JsonLines => jsonl::read(input, file, out),
        Format::Parquet => table::read(input, file, out),
        Format::Arrow => ipc::read(input, file, out),
    }
}
