use crate::DocId;
use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Where in a file: people count lines and rows from 1, [`DocId`] from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// An element of a list that is a whole file, from 1.
    Element(u64),
    /// A row of a table, from 1.
    Row(u64),
    /// An offset in bytes, from 0.
    Byte(u64),
    /// The list of a table's columns.
    Schema,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Element(n) => write!(f, "element {n}"),
            Self::Row(n) => write!(f, "row {n}"),
            Self::Byte(n) => write!(f, "byte {n}"),
            Self::Schema => f.write_str("schema"),
        }
    }
}

/// What can go wrong between a file of documents and a batch of activations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A pattern with wildcards is malformed.
    #[error("`{pattern}` is not a valid pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern with wildcards matches no file, or no pattern was given at all.
    #[error("`{pattern}` matches no file")]
    NothingMatches {
        /// The pattern, or what was given instead of one.
        pattern: String,
    },
    /// A folder without a file that is read as text.
    #[error("{path}: a folder without a file that is read, which are {expected}; it holds {found}")]
    NoTextInFolder {
        /// The folder.
        path: PathBuf,
        /// The endings that are known.
        expected: &'static str,
        /// The first files of other kinds, or that there is none.
        found: String,
    },
    /// A pipe or a device in place of a file.
    #[error(
        "{path}: is not a regular file (a pipe or a device); text is read more than once, so write it to a file first"
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file whose name does not say how to read it.
    #[error("{path}: unknown kind of file, expected {expected}")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The endings that are known.
        expected: &'static str,
    },
    /// A file without a single document.
    #[error("{path}: holds no document")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A list of documents in memory that is empty.
    #[error("no documents were given")]
    NoDocuments,
    /// Compressed data that ends too early or is damaged.
    #[error("{path}: truncated or damaged {compression} data after {read} bytes of text: {source}")]
    Compressed {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        compression: &'static str,
        /// How many decompressed bytes came before.
        read: u64,
        /// The decoder's reason.
        #[source]
        source: std::io::Error,
    },
    /// A zstd file whose window is larger than allowed.
    #[error(
        "{path}: its zstd window is {window} bytes (what a decoder must hold), allowed are {max}: raise \
         DocumentOptions::max_zstd_window_bytes (2 GiB is the most that the zstd library reads), or compress it again without --long"
    )]
    ZstdWindow {
        /// The file.
        path: PathBuf,
        /// The window that a frame states, in bytes.
        window: u64,
        /// The largest that is allowed, in bytes.
        max: u64,
    },
    /// Bytes that are not UTF-8.
    #[error("{path}, {place}: not valid UTF-8{detail}: {advice}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The offending byte, where it is known.
        detail: String,
        /// What the bytes probably are, and what to do.
        advice: String,
    },
    /// Text that begins as another encoding than UTF-8 does.
    #[error("{path}: the text is {found}, expected UTF-8; convert it with `{command}`")]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoding.
        found: &'static str,
        /// A command that converts the file.
        command: String,
    },
    /// A line that is not JSON.
    #[error("{path}, {place}, column {column}: not valid JSON: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The line.
        place: Place,
        /// The column, from 1.
        column: u64,
        /// The parser's reason.
        reason: String,
    },
    /// No field that holds documents.
    #[error("{path}, {place}: has no field {wanted}; it holds {found}")]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The line, or the schema.
        place: Place,
        /// The field or fields that were looked for.
        wanted: String,
        /// The fields that are there.
        found: String,
    },
    /// A field that occurs twice in one line.
    #[error("{path}, {place}: the field `{field}` occurs twice")]
    RepeatedField {
        /// The file.
        path: PathBuf,
        /// The line.
        place: Place,
        /// The field.
        field: String,
    },
    /// A field that holds something else than a document.
    #[error("{path}, {place}: field `{field}` holds {found}, expected {expected}")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The line or row.
        place: Place,
        /// The field.
        field: String,
        /// What a document is here.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// An element of a list of tokens that is not a token id.
    #[error("{path}, {place}: element {index} of `{field}` is {found}, expected a token id between 0 and 4294967295")]
    NotAToken {
        /// The file.
        path: PathBuf,
        /// The line or row.
        place: Place,
        /// The field.
        field: String,
        /// Which element, from 0.
        index: u64,
        /// What was found.
        found: String,
    },
    /// Files of text and files of tokens in one list.
    #[error("{text} holds text and {tokens} holds tokens: one stream of documents is either or")]
    MixedContent {
        /// A file of text.
        text: PathBuf,
        /// A file of tokens.
        tokens: PathBuf,
    },
    /// A field of conversations, and no template to make text of them.
    #[error(
        "{path}: field `{field}` holds conversations, and there is no chat template to make text of them: none was given, and none lies beside \
         the model's tokenizer (chat_template.jinja, or chat_template in tokenizer_config.json). Give one: DocumentOptions::chat_template"
    )]
    NoChatTemplate {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
    },
    /// A conversation that the template cannot make text of.
    #[error("{path}, {place}: the conversation in `{field}` cannot be written as text: {reason}")]
    Conversation {
        /// The file.
        path: PathBuf,
        /// The line, element or row.
        place: Place,
        /// The field.
        field: String,
        /// The template's reason.
        reason: String,
    },
    /// A Parquet file that cannot be read.
    #[error("{path}: cannot be read as Parquet: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// A file in Arrow's IPC format that cannot be read.
    #[error(
        "{path}: cannot be read as Arrow IPC: {reason}; the datasets library writes the same rows as Parquet: ds.to_parquet(\"rows.parquet\")"
    )]
    Arrow {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// The thread that reads files ended without a word: a defect in a decoder, brought out by a damaged file.
    #[error("{path}: reading stopped unexpectedly; the file is probably damaged")]
    ReaderStopped {
        /// The file that was being read.
        path: PathBuf,
    },
    /// An option with a value that cannot work.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Special tokens are to be excluded, and nothing says which they are.
    #[error(
        "special tokens are to be excluded and there is no tokenizer to find them with: name their ids (TokenFilter::with_ids), or count \
         every token (TokenFilter::everything())"
    )]
    NoSpecialTokens,
    /// Inserted tokens are to be excluded, and the row of tokens that says which they are is not at hand.
    #[error(
        "inserted tokens are to be excluded and the row of tokens of {at} is not at hand: use a source that remembers its rows (KeepRows), or \
         count inserted tokens (TokenFilter::exclude_inserted = false)"
    )]
    NoTokenRow {
        /// The token.
        at: crate::TokenPos,
    },
    /// Text, and nothing to tokenize it with.
    #[error("{doc} is text, and no tokenizer was given")]
    NoTokenizer {
        /// The document.
        doc: DocId,
    },
    /// Tokens where text is needed.
    #[error("{doc} is a list of tokens, expected text")]
    NotText {
        /// The document.
        doc: DocId,
    },
    /// A long document and a tokenizer that must see a document whole.
    #[error(
        "{doc} is longer than {limit} bytes, and this tokenizer must see a document whole (its tokens depend on the text before a space): \
         LongDocuments::Cut cuts it at whitespace, LongDocuments::Skip leaves it out"
    )]
    DocumentTooLong {
        /// The document.
        doc: DocId,
        /// The limit in bytes.
        limit: usize,
    },
    /// A pre-tokenized document that is shorter than the context.
    #[error("{doc} holds {found} tokens, expected at least the context size {expected}")]
    RowTooShort {
        /// The document.
        doc: DocId,
        /// Its length in tokens.
        found: usize,
        /// The context size.
        expected: usize,
    },
    /// A tokenizer whose ids and spans do not belong together.
    #[error("the tokenizer returned {ids} ids and {spans} spans for {doc}")]
    Spans {
        /// The document.
        doc: DocId,
        /// Number of ids.
        ids: usize,
        /// Number of spans.
        spans: usize,
    },
    /// The model side refused: a tokenizer, a hook point, a forward.
    #[error(transparent)]
    Model(Box<model_hooks::Error>),
    /// The SAE side refused.
    #[error(transparent)]
    Sae(Box<sae_core::Error>),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Neither the SAE's metadata nor the options say something that must be known.
    #[error("`{key}` is neither in the SAE's metadata nor in the options: set StoreOptions::{key}")]
    Metadata {
        /// What is missing.
        key: &'static str,
    },
    /// An SAE that reads rows of another width than the model has there.
    #[error("the SAE's d_in is {expected}, but {hook} of model `{model}` is {found} wide")]
    Width {
        /// The hook point.
        hook: String,
        /// The model.
        model: String,
        /// The SAE's `d_in`.
        expected: usize,
        /// The hook point's width.
        found: usize,
    },
    /// Two streams that should be the same.
    #[error("another stream: its {field} is {found}, expected {expected}")]
    OtherStream {
        /// The first field that differs.
        field: String,
        /// Its value.
        found: String,
        /// The value expected.
        expected: String,
    },
    /// A hook point that the model lacks.
    #[error("model `{model}` has no hook point {hook} (it has {n_layers} layers)")]
    MissingHook {
        /// The hook point.
        hook: model_hooks::HookPoint,
        /// The model.
        model: String,
        /// How many layers it has.
        n_layers: usize,
    },
    /// An activation batch whose tensors do not fit its addresses or its spec.
    #[error("an activation batch has tensors of shapes {found}, expected {expected}")]
    BatchShape {
        /// Shapes by spec and number of addresses.
        expected: String,
        /// Shapes found.
        found: String,
    },
}

// Boxed, because an error travels through every `Result` of the crate, and these two are large.
impl From<model_hooks::Error> for Error {
    fn from(error: model_hooks::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<sae_core::Error> for Error {
    fn from(error: sae_core::Error) -> Self {
        Self::Sae(Box::new(error))
    }
}
