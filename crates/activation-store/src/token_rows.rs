//! The stream from pieces of documents to rows of tokens: tokenized in parallel, packed in order.

use crate::joining::Joiner;
use crate::packing::{Packer, PackingOptions, PackingReport};
use crate::{Content, DocId, DocumentSource, Error, Piece, Result, Tokenize, TokenizedText, cut};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Text handed to the tokenizer at a time, about: enough to keep a thread busy, small enough for its scratch memory.
const STRETCH_BYTES: usize = 64 << 10;
/// Text tokenized ahead of the rows, at first and at most: the first row comes soon, later all threads have work.
const LOOKAHEAD_BYTES: Range<usize> = 64 << 10..8 << 20;
/// Where a token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The document.
    pub doc: DocId,
    /// The bytes of the document's text that the token stands for; for a document that arrived as tokens, the token's index.
    /// Tokens that share one character (its bytes are split between them) each have the span of the character.
    pub span: Range<u64>,
}

/// One row of `context_size` tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The row's number in the stream, from 0.
    pub row: u64,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// For each token where it comes from; `None` for an inserted one (BOS, separator).
    pub origin: Vec<Option<Origin>>,
}

/// The tokens of a stretch of one document.
pub(crate) struct Stretch {
    pub(crate) doc: DocId,
    /// Where it starts in the document.
    start: u64,
    pub(crate) ids: Vec<u32>,
    /// Byte spans from `start`; none where the document arrived as tokens.
    spans: Option<Vec<Range<usize>>>,
    /// Whether the document ends here.
    last: bool,
}

impl Stretch {
    pub(crate) fn is_tokens(&self) -> bool {
        self.spans.is_none()
    }

    pub(crate) fn origin(&self, i: usize) -> Origin {
        let span = match &self.spans {
            Some(spans) => spans[i].clone(),
            None => i..i + 1,
        };
        Origin { doc: self.doc, span: self.start + span.start as u64..self.start + span.end as u64 }
    }
}

/// What there is to tokenize: a stretch of a piece.
struct Job<'a> {
    piece: &'a Piece,
    part: Range<usize>,
    last: bool,
}

impl Job<'_> {
    fn run(&self, tokenizer: Option<&dyn Tokenize>) -> Result<Stretch> {
        let Piece { doc, start, .. } = *self.piece;
        let start = start + self.part.start as u64;
        match &self.piece.content {
            Content::Tokens(ids) => Ok(Stretch { doc, start, ids: ids.clone(), spans: None, last: self.last }),
            Content::Text(text) => {
                let tokenizer = tokenizer.ok_or(Error::NoTokenizer { doc })?;
                let TokenizedText { ids, spans } = tokenizer.tokenize(&text[self.part.clone()])?;
                if ids.len() != spans.len() {
                    return Err(Error::Spans { doc, ids: ids.len(), spans: spans.len() });
                }
                Ok(Stretch { doc, start, ids, spans: Some(spans), last: self.last })
            }
        }
    }
}

/// Rows of tokens from a stream of documents: an iterator.
///
/// Tokenizing runs in parallel (rayon's current pool) on a bounded look-ahead of at most about 8 MiB of text, held with its tokens;
/// rows come in the documents' order and do not depend on the number of threads or the size of the pieces.
///
/// With a tokenizer that does not [cut at whitespace](Tokenize::splits_at_whitespace) the pieces of a document are joined
/// first, up to [`PackingOptions::max_document_bytes`]; [`PackingOptions::long_documents`] decides how a longer document is handled.
///
/// After an error there is nothing more. Tokens that are in no row are counted in the [`report`](Self::report).
pub struct TokenRows<S> {
    source: S,
    tokenizer: Option<Arc<dyn Tokenize>>,
    packer: Packer,
    ready: VecDeque<Stretch>,
    /// How many tokens of the first ready stretch are packed.
    at: usize,
    lookahead: usize,
    joiner: Joiner,
    /// The last character of the piece before, where its document goes on.
    tail: Option<char>,
    failed: Option<Error>,
    exhausted: bool,
    over: bool,
}

impl<S: DocumentSource> TokenRows<S> {
    /// Rows of the documents' text. The tokenizer may be missing where documents arrive as tokens.
    ///
    /// # Errors
    /// A context too small for what is inserted.
    pub fn new(source: S, tokenizer: Option<Arc<dyn Tokenize>>, options: PackingOptions) -> Result<Self> {
        let joiner = Joiner::new(options.max_document_bytes, options.long_documents);
        Ok(Self {
            source,
            tokenizer,
            packer: Packer::new(options)?,
            ready: VecDeque::new(),
            at: 0,
            lookahead: LOOKAHEAD_BYTES.start,
            joiner,
            tail: None,
            failed: None,
            exhausted: false,
            over: false,
        })
    }

    /// What became of the tokens so far.
    #[must_use]
    pub fn report(&self) -> &PackingReport {
        &self.packer.report
    }

    /// How tokens become rows.
    #[must_use]
    pub fn options(&self) -> &PackingOptions {
        &self.packer.options
    }

    /// The source of the documents.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Reads pieces up to the look-ahead and tokenizes them.
    fn refill(&mut self) {
        let most = LOOKAHEAD_BYTES.end.min(4 * STRETCH_BYTES * rayon::current_num_threads().max(1));
        let mut pieces = Vec::new();
        let mut bytes = 0;
        while bytes < self.lookahead && self.failed.is_none() && !self.exhausted {
            match self.source.next() {
                Some(Ok(piece)) => {
                    bytes += piece.content.len() + 1;
                    self.admit(piece, &mut pieces);
                }
                Some(Err(error)) => self.failed = Some(error),
                None => {
                    self.exhausted = true;
                    pieces.extend(self.joiner.finish());
                }
            }
        }
        self.lookahead = (2 * self.lookahead).min(most);
        let tokenizer = self.tokenizer.as_deref();
        let jobs: Vec<Job> = pieces.iter().flat_map(|piece| jobs(piece, tokenizer)).collect();
        let done: Vec<Result<Stretch>> = jobs.par_iter().map(|job| job.run(tokenizer)).collect();
        for stretch in done {
            match stretch {
                Ok(stretch) => self.ready.push_back(stretch),
                Err(error) => {
                    // It came before whatever the source said afterwards.
                    self.failed = Some(error);
                    return;
                }
            }
        }
    }

    /// Adds a piece to those to be tokenized, or to the document that is being joined.
    fn admit(&mut self, piece: Piece, pieces: &mut Vec<Piece>) {
        let Content::Text(text) = &piece.content else {
            pieces.push(piece);
            return;
        };
        if let Some(tokenizer) = self.tokenizer.as_deref().filter(|t| !t.splits_at_whitespace()) {
            self.failed = self.joiner.push(piece, tokenizer, &mut self.packer.report, pieces).err();
            return;
        }
        if let (Some(before), Some(after)) = (self.tail, text.chars().next())
            && !cut::is_safe(before, after)
        {
            self.packer.report.forced_cuts += 1;
        }
        self.tail = if piece.last { None } else { text.chars().next_back().or(self.tail) };
        pieces.push(piece);
    }

    /// The next row of the tokens at hand, or `None` when they are used up.
    fn pack(&mut self) -> Result<Option<TokenRow>> {
        while let Some(stretch) = self.ready.front() {
            if let Some(row) = self.packer.next_row(stretch, &mut self.at) {
                return Ok(Some(row));
            }
            if stretch.last {
                self.packer.end_document(stretch)?;
            }
            self.ready.pop_front();
            self.at = 0;
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<TokenRow>> {
        loop {
            if let Some(row) = self.pack()? {
                return Ok(Some(row));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.exhausted {
                self.packer.finish();
                return Ok(None);
            }
            self.refill();
        }
    }
}

impl<S: DocumentSource> Iterator for TokenRows<S> {
    type Item = Result<TokenRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let row = self.step().transpose();
        self.over = !matches!(row, Some(Ok(_)));
        row
    }
}

/// The stretches of a piece. A tokenizer that must see a document whole gets it whole; without one the job says so.
fn jobs<'a>(piece: &'a Piece, tokenizer: Option<&dyn Tokenize>) -> Vec<Job<'a>> {
    let len = piece.content.len();
    let mut parts = match &piece.content {
        Content::Text(text) if tokenizer.is_some_and(Tokenize::splits_at_whitespace) => {
            cut::stretches(text, STRETCH_BYTES)
        }
        _ => std::iter::once(0..len).collect(),
    };
    if parts.is_empty() {
        parts.push(0..0);
    }
    let count = parts.len();
    parts.into_iter().enumerate().map(|(i, part)| Job { piece, part, last: piece.last && i + 1 == count }).collect()
}
