//! Packing the tokens of documents into rows of one length: SAELens' algorithm (`concat_and_batch_sequences` of 6.54.12).

use crate::token_rows::Stretch;
use crate::{Error, LongDocuments, Origin, Result, TokenRow};
use serde::{Deserialize, Serialize};

/// How much of a document is held for a tokenizer that must see it whole, unless told.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// How tokens become rows, in SAELens' terms.
///
/// Without `disable_concat` a document's tokens are appended to the open row until it holds `context_size`; the rest of the document
/// opens the next row; the last, incomplete row is dropped (and counted in [`PackingReport::dropped_tokens`]). A row opens with
/// `[begin_batch?][begin_sequence? if a document starts here]`; where a document joins an open row, `[separator?][begin_sequence?]`
/// goes between. An inserted token is left out where the token after it is the same. A `begin_sequence` for which there is
/// no room goes to the next row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackingOptions {
    /// Tokens in a row, inserted ones included.
    pub context_size: usize,
    /// Goes at the start of every row (SAELens' `prepend_bos`: the BOS token).
    pub begin_batch: Option<u32>,
    /// Goes before every document.
    pub begin_sequence: Option<u32>,
    /// Goes between two documents in one row (SAELens' default: the BOS token).
    pub separator: Option<u32>,
    /// One row for one document: `begin_sequence` (or else `begin_batch`) and its first tokens. What does not fill a row and what does
    /// not fit is dropped and counted.
    pub disable_concat: bool,
    /// What happens to documents that arrive as tokens.
    pub tokens: PretokenizedRows,
    /// What happens to a document longer than `max_document_bytes`, where the tokenizer must see a document whole.
    pub long_documents: LongDocuments,
    /// The longest text that is given to such a tokenizer at once: 8 MiB unless told.
    pub max_document_bytes: usize,
}

impl PackingOptions {
    /// Rows of `context_size` tokens, nothing inserted.
    #[must_use]
    pub fn new(context_size: usize) -> Self {
        Self {
            context_size,
            begin_batch: None,
            begin_sequence: None,
            separator: None,
            disable_concat: false,
            tokens: PretokenizedRows::Rows,
            long_documents: LongDocuments::default(),
            max_document_bytes: MAX_DOCUMENT_BYTES,
        }
    }

    /// SAELens would loop for ever on a context that `begin_batch` alone fills.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_document_bytes < 16 {
            let found = self.max_document_bytes.to_string();
            return Err(Error::Option { option: "max_document_bytes", found, expected: "at least 16".into() });
        }
        let least = 1 + usize::from(self.begin_batch.is_some());
        if self.context_size >= least {
            return Ok(());
        }
        let why = if least == 1 { "at least 1" } else { "at least 2: one for `begin_batch`, one for a token" };
        Err(Error::Option { option: "context_size", found: self.context_size.to_string(), expected: why.into() })
    }
}

/// What happens to documents that arrive as tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PretokenizedRows {
    /// Each document is a row that is already packed (SAELens' pre-tokenized mode): cut to `context_size`, an error where it is
    /// shorter, nothing inserted.
    #[default]
    Rows,
    /// They are packed like tokenized text.
    Pack,
}

/// What became of every token. At any time `tokens == kept_tokens(context_size) + dropped_tokens +` the tokens in the open row;
/// at the end of the stream nothing is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackingReport {
    /// Documents that were read to their end.
    pub documents: u64,
    /// Those without a single token.
    pub empty_documents: u64,
    /// Those dropped whole because they do not fill a row (`disable_concat`).
    pub short_documents: u64,
    /// Those whose tail was dropped (`disable_concat`, and pre-tokenized rows longer than the context).
    pub truncated_documents: u64,
    /// Rows handed out.
    pub rows: u64,
    /// Tokens of documents, whether they ended up in a row or not.
    pub tokens: u64,
    /// Tokens in the rows that come from no document.
    pub inserted: u64,
    /// Tokens of documents that are in no row: the last incomplete row, truncated tails, short documents.
    pub dropped_tokens: u64,
    /// Cuts inside a document where tokenization may have noticed: a run without whitespace longer than a piece may be.
    pub forced_cuts: u64,
    /// Documents that were cut because the tokenizer must see a document whole and they are too long for that ([`LongDocuments::Cut`]).
    pub cut_documents: u64,
    /// Those left out for that reason ([`LongDocuments::Skip`]). They are not among `documents`.
    pub skipped_documents: u64,
}

impl PackingReport {
    /// Tokens of documents that are in a row.
    #[must_use]
    pub fn kept_tokens(&self, context_size: usize) -> u64 {
        self.rows * context_size as u64 - self.inserted
    }
}

/// A row being filled.
#[derive(Default)]
struct Open {
    tokens: Vec<u32>,
    origin: Vec<Option<Origin>>,
    inserted: u64,
}

impl Open {
    fn insert(&mut self, token: u32) {
        self.tokens.push(token);
        self.origin.push(None);
        self.inserted += 1;
    }

    /// Takes up to `limit` tokens of the stretch from `at`, and says how many.
    fn take(&mut self, stretch: &Stretch, at: usize, limit: usize) -> usize {
        let end = stretch.ids.len().min(at + limit);
        self.tokens.extend_from_slice(&stretch.ids[at..end]);
        self.origin.extend((at..end).map(|i| Some(stretch.origin(i))));
        end - at
    }
}

/// The algorithm, fed with stretches of documents and asked for rows.
pub(crate) struct Packer {
    pub(crate) options: PackingOptions,
    pub(crate) report: PackingReport,
    open: Option<Open>,
    /// The row of a document that gets one of its own.
    own: Open,
    /// The document at hand already stands in the open row: its next token just follows.
    in_row: bool,
    /// `begin_sequence` is still to come for the document at hand.
    start_pending: bool,
    /// Tokens of the document at hand so far.
    seen: u64,
    /// One document, one row: its row is out, the rest is dropped.
    own_done: bool,
    /// The document at hand is counted among the truncated.
    truncated: bool,
}

impl Packer {
    pub(crate) fn new(options: PackingOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            report: PackingReport::default(),
            open: None,
            own: Open::default(),
            in_row: false,
            start_pending: true,
            seen: 0,
            own_done: false,
            truncated: false,
        })
    }

    /// Goes on with `stretch` from `at`, up to the next full row or the stretch's end.
    pub(crate) fn next_row(&mut self, stretch: &Stretch, at: &mut usize) -> Option<TokenRow> {
        if self.alone(stretch) {
            return self.next_row_alone(stretch, at);
        }
        while *at < stretch.ids.len() {
            let taken = self.append(stretch, *at);
            *at += taken;
            self.count(taken);
            if self.open.as_ref().is_some_and(|open| open.tokens.len() == self.options.context_size) {
                self.in_row = false;
                return self.open.take().map(|open| self.close(open));
            }
        }
        None
    }

    /// The document of `stretch`, which was its last, is over.
    ///
    /// # Errors
    /// A pre-tokenized document that is shorter than the context.
    pub(crate) fn end_document(&mut self, stretch: &Stretch) -> Result<()> {
        if self.alone(stretch) && !self.own_done {
            self.drop_own(stretch)?;
        }
        self.report.documents += 1;
        self.report.empty_documents += u64::from(self.seen == 0);
        (self.in_row, self.start_pending, self.seen) = (false, true, 0);
        (self.own_done, self.truncated) = (false, false);
        Ok(())
    }

    /// Nothing more comes: the open row is dropped.
    pub(crate) fn finish(&mut self) {
        if let Some(open) = self.open.take() {
            self.report.dropped_tokens += open.tokens.len() as u64 - open.inserted;
        }
    }

    fn count(&mut self, tokens: usize) {
        self.report.tokens += tokens as u64;
        self.seen += tokens as u64;
    }

    fn close(&mut self, open: Open) -> TokenRow {
        let row = TokenRow { row: self.report.rows, tokens: open.tokens, origin: open.origin };
        self.report.rows += 1;
        self.report.inserted += open.inserted;
        row
    }

    /// Appends what goes before the token at `at`, and as many tokens as there is room for.
    fn append(&mut self, stretch: &Stretch, at: usize) -> usize {
        let context_size = self.options.context_size;
        let opening = self.open.is_none();
        let open = self.open.get_or_insert_with(Open::default);
        let room = context_size - open.tokens.len();
        let mut before = [None; 2];
        if opening || !self.in_row {
            let mut next = stretch.ids[at];
            let mut unless_same = |token: Option<u32>| {
                let token = token.filter(|t| *t != next);
                next = token.unwrap_or(next);
                token
            };
            before[1] = unless_same(self.options.begin_sequence.filter(|_| self.start_pending));
            before[0] = unless_same(if opening { self.options.begin_batch } else { self.options.separator });
        }
        let prefix = before.iter().flatten();
        self.start_pending = before[1].is_some() && prefix.clone().count() > room;
        prefix.take(room).for_each(|token| open.insert(*token));
        self.in_row = true;
        open.take(stretch, at, context_size - open.tokens.len())
    }

    /// Whether this document gets a row of its own.
    fn alone(&self, stretch: &Stretch) -> bool {
        self.options.disable_concat || self.ready_made(stretch)
    }

    /// Whether this document is a row that is already packed.
    fn ready_made(&self, stretch: &Stretch) -> bool {
        stretch.is_tokens() && self.options.tokens == PretokenizedRows::Rows
    }

    fn next_row_alone(&mut self, stretch: &Stretch, at: &mut usize) -> Option<TokenRow> {
        if !self.own_done && *at < stretch.ids.len() {
            let ready_made = self.ready_made(stretch);
            let begin = self.options.begin_sequence.or(self.options.begin_batch).filter(|_| !ready_made);
            if let Some(token) = begin.filter(|t| self.own.tokens.is_empty() && stretch.ids[*at] != *t) {
                self.own.insert(token);
            }
            let taken = self.own.take(stretch, *at, self.options.context_size - self.own.tokens.len());
            *at += taken;
            self.count(taken);
            if self.own.tokens.len() == self.options.context_size {
                self.own_done = true;
                let own = std::mem::take(&mut self.own);
                return Some(self.close(own));
            }
        }
        let rest = stretch.ids.len() - *at;
        *at = stretch.ids.len();
        self.count(rest);
        self.report.dropped_tokens += rest as u64;
        if rest > 0 && !self.truncated {
            self.truncated = true;
            self.report.truncated_documents += 1;
        }
        None
    }

    /// The document does not fill a row.
    fn drop_own(&mut self, stretch: &Stretch) -> Result<()> {
        if self.ready_made(stretch) {
            let found = usize::try_from(self.seen).unwrap_or(usize::MAX);
            return Err(Error::RowTooShort { doc: stretch.doc, found, expected: self.options.context_size });
        }
        let own = std::mem::take(&mut self.own);
        self.report.dropped_tokens += own.tokens.len() as u64 - own.inserted;
        self.report.short_documents += u64::from(self.seen > 0);
        Ok(())
    }
}
