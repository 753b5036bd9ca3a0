//! What a document is on its way: an address, and pieces of text or tokens.

use crate::{DocumentReport, FileDigest, Result};

/// The address of a document: which file, and which line or row of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocId {
    /// Index of the file in the sorted list of files (0 for documents from memory).
    pub file: u32,
    /// Line (JSON Lines) or row (Parquet) within the file, counted from 0; 0 for a text file that is one document, else the
    /// number of the paragraph. Blank lines of a JSON Lines file are no documents, but they are counted as lines.
    pub ordinal: u64,
}

impl std::fmt::Display for DocId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "document {} of file {}", self.ordinal, self.file)
    }
}

/// What a piece of a document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text, to be tokenized.
    Text(String),
    /// Token ids, as the file holds them.
    Tokens(Vec<u32>),
}

impl Content {
    /// Length in the unit that [`Piece::start`] counts: bytes of text, or tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(ids) => ids.len(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A stretch of one document. Most documents are one piece; a long one arrives in several, in order, one after another.
///
/// Text is cut only where tokenization does not notice (for tokenizers that [`crate::Tokenize::splits_at_whitespace`]):
/// between a letter or digit and the whitespace after it, or at least between a non-whitespace character and a space. Only a run
/// of text without any such place that is longer than a piece may be is cut elsewhere, between two characters;
/// [`crate::PackingReport::forced_cuts`] counts these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The document.
    pub doc: DocId,
    /// Where in the document the piece starts: bytes of its text, or tokens.
    pub start: u64,
    /// The stretch itself; empty for an empty document.
    pub content: Content,
    /// Whether the document ends with this piece.
    pub last: bool,
}

/// A stream of documents: the pieces of a document come one after another, the last one marked, and after an error nothing.
pub trait DocumentSource: Iterator<Item = Result<Piece>> + Send {
    /// What was left out so far.
    fn report(&self) -> DocumentReport {
        DocumentReport::default()
    }

    /// Digests of all documents, independent of the read position. The default returns none: the text is not part of the identity.
    ///
    /// # Errors
    /// A file that cannot be read.
    fn digests(&self) -> Result<Vec<FileDigest>> {
        Ok(Vec::new())
    }
}

impl<S: DocumentSource + ?Sized> DocumentSource for Box<S> {
    fn report(&self) -> DocumentReport {
        (**self).report()
    }

    fn digests(&self) -> Result<Vec<FileDigest>> {
        (**self).digests()
    }
}
