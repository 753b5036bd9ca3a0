//! Documents for a tokenizer that must see a document whole: their pieces joined, up to a limit, and what happens beyond it.

use crate::{Content, DocId, Error, PackingReport, Piece, Result, Tokenize, cut};
use serde::{Deserialize, Serialize};

/// What happens to a document that is longer than a tokenizer may be given at once, where that tokenizer must see a document whole
/// (see [`Tokenize::splits_at_whitespace`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LongDocuments {
    /// It is cut at whitespace, where the tokens of the two parts are those of the whole (checked on the text around the cut). Where there is no
    /// such place nearby, it is cut at whitespace all the same, or between two characters, which counts as a forced cut.
    /// All of its tokens are kept.
    #[default]
    Cut,
    /// It is left out.
    Skip,
    /// It is an error.
    Refuse,
}

/// Text on each side of a cut that is tokenized to check it.
const CHECKED_BYTES: usize = 256;
/// Places that are tried, and how far back from the limit they may be.
const TRIES: usize = 16;
const LOOK_BACK_BYTES: usize = 64 << 10;

/// Joins the pieces of a document.
pub(crate) struct Joiner {
    pub(crate) limit: usize,
    policy: LongDocuments,
    held: Option<Piece>,
    /// The document at hand was cut.
    cut: bool,
    /// The document at hand is being left out.
    skipping: Option<DocId>,
}

impl Joiner {
    pub(crate) fn new(limit: usize, policy: LongDocuments) -> Self {
        Self { limit, policy, held: None, cut: false, skipping: None }
    }

    /// Adds a piece of text; what can be tokenized by then goes to `out`.
    pub(crate) fn push(
        &mut self,
        piece: Piece,
        tokenizer: &dyn Tokenize,
        report: &mut PackingReport,
        out: &mut Vec<Piece>,
    ) -> Result<()> {
        if self.skipping == Some(piece.doc) {
            self.skipping = self.skipping.filter(|_| !piece.last);
            return Ok(());
        }
        let last = piece.last;
        let mut whole = match self.held.take() {
            None => piece,
            Some(mut held) => {
                if let (Content::Text(text), Content::Text(more)) = (&mut held.content, &piece.content) {
                    text.push_str(more);
                }
                held.last = last;
                held
            }
        };
        while whole.content.len() > self.limit {
            match self.policy {
                LongDocuments::Cut => whole = self.cut(whole, tokenizer, report, out)?,
                LongDocuments::Refuse => return Err(Error::DocumentTooLong { doc: whole.doc, limit: self.limit }),
                LongDocuments::Skip => {
                    report.skipped_documents += 1;
                    self.skipping = Some(whole.doc).filter(|_| !last);
                    return Ok(());
                }
            }
        }
        if last {
            self.cut = false;
            out.push(whole);
        } else {
            self.held = Some(whole);
        }
        Ok(())
    }

    /// Flushes a document whose last piece never came.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        self.held.take().map(|held| Piece { last: true, ..held })
    }

    /// Sends the first part of a text on; the rest comes back.
    fn cut(
        &mut self,
        piece: Piece,
        tokenizer: &dyn Tokenize,
        report: &mut PackingReport,
        out: &mut Vec<Piece>,
    ) -> Result<Piece> {
        let Content::Text(mut text) = piece.content else { return Err(Error::NotText { doc: piece.doc }) };
        let Place { end, next, exact } = place(&text, self.limit, tokenizer)?;
        report.cut_documents += u64::from(!std::mem::replace(&mut self.cut, true));
        report.forced_cuts += u64::from(!exact);
        let rest = text.split_off(next);
        text.truncate(end);
        let start = piece.start + next as u64;
        out.push(Piece { content: Content::Text(text), last: false, ..piece });
        Ok(Piece { doc: piece.doc, start, content: Content::Text(rest), last: piece.last })
    }
}

/// Where the first part ends and the second begins: a space between them is left out where the tokenizer puts one before every text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    end: usize,
    next: usize,
    exact: bool,
}

/// The last place at or before `limit`, with at least one character before it.
fn place(text: &str, limit: usize, tokenizer: &dyn Tokenize) -> Result<Place> {
    let limit = text.floor_char_boundary(limit);
    let from = text.floor_char_boundary(limit.saturating_sub(LOOK_BACK_BYTES));
    let mut last = None;
    let mut after = text[limit..].chars().next();
    let mut tries = 0;
    for (at, before) in text[from..limit].char_indices().rev() {
        let end = from + at + before.len_utf8();
        if let Some(space) = after.filter(|c| c.is_whitespace() && !before.is_whitespace()) {
            last = last.or(Some(Place { end, next: end, exact: false }));
            if let Some(next) = exact(text, end, space, tokenizer)? {
                return Ok(Place { end, next, exact: true });
            }
            tries += 1;
            if tries == TRIES {
                break;
            }
        }
        after = Some(before);
    }
    let forced = || cut::forced_cut(text, limit);
    Ok(last.unwrap_or_else(|| Place { end: forced(), next: forced(), exact: false }))
}

/// Where the second part begins if the text is cut at `end` and its tokens stay: with the whitespace, or after one space.
fn exact(text: &str, end: usize, space: char, tokenizer: &dyn Tokenize) -> Result<Option<usize>> {
    let from = text.floor_char_boundary(end.saturating_sub(CHECKED_BYTES));
    let to = text.floor_char_boundary((end + CHECKED_BYTES).min(text.len()));
    let ids = |range: std::ops::Range<usize>| Ok::<_, Error>(tokenizer.tokenize(&text[range])?.ids);
    let whole = ids(from..to)?;
    let Some(rest) = whole.strip_prefix(ids(from..end)?.as_slice()) else { return Ok(None) };
    let after = end + space.len_utf8();
    for next in std::iter::once(end).chain((space == ' ').then_some(after)) {
        if ids(next..to)? == rest {
            return Ok(Some(next));
        }
    }
    Ok(None)
}
