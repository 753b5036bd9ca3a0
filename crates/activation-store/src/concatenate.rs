//! TransformerLens' `tokenize_and_concatenate`, as 3.9 and as 2.16 do it.
//!
//! Documents are taken in groups of 1000 (`datasets.map`'s batches), the tokens of a group are joined by end-of-sequence tokens and cut into rows;
//! what does not fill a row at the end of the group is dropped. A group that fills no row at all gives one, padded.
//!
//! Memory: a group's documents are held, whole, with their tokens.

use crate::{
    Content, DocId, DocumentSource, Error, Origin, PackingReport, Piece, Result, TokenRow, Tokenize, TokenizedText,
};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// `datasets.map` hands over so many documents at a time.
const GROUP: usize = 1000;
/// 2.16 cuts a group's text into so many chunks.
const CHUNKS: usize = 20;

/// Which TransformerLens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcatenateVersion {
    /// 3.9: each document is tokenized by itself, and an EOS token put between.
    #[default]
    PerDocument,
    /// 2.16, which most published SAEs were trained with: the texts are joined by the EOS token's text and cut into 20 chunks of
    /// equally many characters, through words and all; every token that equals the padding token is dropped, which takes
    /// the EOS tokens along where the tokenizer pads with EOS.
    Chunks,
}

/// How documents become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcatenateOptions {
    /// Tokens in a row, BOS included.
    pub max_length: usize,
    /// Goes before each row (`add_bos_token`).
    pub bos: Option<u32>,
    /// Goes between documents, and fills up where there is no `pad`.
    pub eos: u32,
    /// How `eos` is spelled; only [`ConcatenateVersion::Chunks`] needs it.
    pub eos_text: String,
    /// The tokenizer's padding token, if it has one. (Without one 2.16 fills up with an id that the model does not have; here `eos` does.)
    pub pad: Option<u32>,
    /// Which TransformerLens.
    pub version: ConcatenateVersion,
}

impl ConcatenateOptions {
    /// Rows of `max_length` tokens, BOS included, with a tokenizer's special tokens.
    ///
    /// # Errors
    /// A tokenizer without BOS or EOS.
    pub fn new(max_length: usize, tokenizer: &model_hooks::Tokenizer) -> Result<Self> {
        let missing =
            |option| Error::Option { option, found: "missing".into(), expected: "a token of the tokenizer".into() };
        let eos = tokenizer.eos().ok_or_else(|| missing("eos"))?;
        let bos = tokenizer.bos().ok_or_else(|| missing("bos"))?;
        let eos_text = tokenizer.piece(eos).ok_or_else(|| missing("eos"))?.to_owned();
        let pad = tokenizer.special().pad;
        Ok(Self { max_length, bos: Some(bos), eos, eos_text, pad, version: ConcatenateVersion::PerDocument })
    }

    /// Tokens of documents in a row.
    fn seq_len(&self) -> usize {
        self.max_length.saturating_sub(usize::from(self.bos.is_some()))
    }
}

/// TransformerLens' `tokenize_and_concatenate` over a stream of documents.
///
/// A document never knows of special tokens that a tokenizer's template would add: as in 3.9, and unlike 2.16, whose chunks then each begin
/// with a BOS of their own.
///
/// # Errors
/// A `max_length` with room for no token.
pub fn tokenize_and_concatenate<S: DocumentSource>(
    source: S,
    tokenizer: Arc<dyn Tokenize>,
    options: ConcatenateOptions,
) -> Result<ConcatenatedRows<S>> {
    if options.seq_len() == 0 {
        let (found, expected) = (options.max_length.to_string(), "room for BOS and a token".into());
        return Err(Error::Option { option: "max_length", found, expected });
    }
    let report = PackingReport::default();
    Ok(ConcatenatedRows { source, tokenizer, options, report, ready: VecDeque::new(), failed: None, over: false })
}

/// The rows: an iterator. After an error there is nothing more.
pub struct ConcatenatedRows<S> {
    source: S,
    tokenizer: Arc<dyn Tokenize>,
    options: ConcatenateOptions,
    report: PackingReport,
    ready: VecDeque<TokenRow>,
    failed: Option<Error>,
    over: bool,
}

/// A document, whole.
type Document = (DocId, String);

/// Tokens in a row without end. Those that come from no document have no origin.
#[derive(Default)]
struct Flat {
    ids: Vec<u32>,
    origin: Vec<Option<Origin>>,
}

impl Flat {
    fn push(&mut self, id: u32, origin: Option<Origin>) {
        self.ids.push(id);
        self.origin.push(origin);
    }
}

impl<S: DocumentSource> ConcatenatedRows<S> {
    /// What became of the tokens so far. Separators, padding and BOS are counted as inserted; tokens of documents that are
    /// dropped because they equal the padding token, as dropped.
    #[must_use]
    pub fn report(&self) -> &PackingReport {
        &self.report
    }

    /// The next documents, up to a group. An error of the source ends the group; it comes after the group's rows.
    fn group(&mut self) -> Vec<Document> {
        let mut group: Vec<Document> = Vec::new();
        let mut open = false;
        while open || group.len() < GROUP {
            match self.source.next() {
                Some(Ok(Piece { doc, content: Content::Text(text), last, .. })) => {
                    match group.last_mut().filter(|_| open) {
                        Some((_, whole)) => whole.push_str(&text),
                        None => group.push((doc, text)),
                    }
                    open = !last;
                }
                Some(Ok(Piece { doc, .. })) => {
                    self.failed = Some(Error::NotText { doc });
                    break;
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => {
                    self.over = true;
                    break;
                }
            }
        }
        // Half a document, or half a group: the rows of the whole would be others.
        if self.failed.is_some() { Vec::new() } else { group }
    }

    fn rows_of(&mut self, group: &[Document]) -> Result<()> {
        self.report.documents += group.len() as u64;
        self.report.empty_documents += group.iter().filter(|(_, text)| text.is_empty()).count() as u64;
        match self.options.version {
            ConcatenateVersion::PerDocument => {
                let flat = per_document(group, self.tokenizer.as_ref(), self.options.eos)?;
                self.cut(flat);
            }
            ConcatenateVersion::Chunks => {
                if let Some(flat) = in_chunks(group, self.tokenizer.as_ref(), &self.options.eos_text)? {
                    let flat = self.without_padding(flat);
                    self.cut(flat);
                }
            }
        }
        Ok(())
    }

    fn without_padding(&mut self, flat: Flat) -> Flat {
        let Some(pad) = self.options.pad else { return flat };
        let mut kept = Flat::default();
        for (id, origin) in flat.ids.into_iter().zip(flat.origin) {
            if id != pad {
                kept.push(id, origin);
            } else if origin.is_some() {
                self.report.tokens += 1;
                self.report.dropped_tokens += 1;
            }
        }
        kept
    }

    fn cut(&mut self, mut flat: Flat) {
        let seq_len = self.options.seq_len();
        let fill = self.options.pad.unwrap_or(self.options.eos);
        while flat.ids.len() < seq_len {
            flat.push(fill, None);
        }
        let of_documents = |origin: &[Option<Origin>]| origin.iter().flatten().count() as u64;
        self.report.tokens += of_documents(&flat.origin);
        let kept = flat.ids.len() / seq_len * seq_len;
        self.report.dropped_tokens += of_documents(&flat.origin[kept..]);
        for (ids, origin) in flat.ids.chunks_exact(seq_len).zip(flat.origin.chunks_exact(seq_len)) {
            let tokens: Vec<u32> = self.options.bos.into_iter().chain(ids.iter().copied()).collect();
            let origin: Vec<_> = self.options.bos.map(|_| None).into_iter().chain(origin.iter().cloned()).collect();
            self.report.inserted += origin.iter().filter(|o| o.is_none()).count() as u64;
            self.ready.push_back(TokenRow { row: self.report.rows, tokens, origin });
            self.report.rows += 1;
        }
    }
}

impl<S: DocumentSource> Iterator for ConcatenatedRows<S> {
    type Item = Result<TokenRow>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && self.failed.is_none() && !self.over {
            let group = self.group();
            if !group.is_empty()
                && let Err(error) = self.rows_of(&group)
            {
                self.failed = Some(error);
            }
        }
        if let Some(row) = self.ready.pop_front() {
            return Some(Ok(row));
        }
        self.over = true;
        self.failed.take().map(Err)
    }
}

fn tokenized(tokenizer: &dyn Tokenize, doc: DocId, text: &str) -> Result<TokenizedText> {
    let out = tokenizer.tokenize(text)?;
    if out.ids.len() == out.spans.len() {
        return Ok(out);
    }
    Err(Error::Spans { doc, ids: out.ids.len(), spans: out.spans.len() })
}

fn per_document(group: &[Document], tokenizer: &dyn Tokenize, eos: u32) -> Result<Flat> {
    let all: Vec<TokenizedText> =
        group.par_iter().map(|(doc, text)| tokenized(tokenizer, *doc, text)).collect::<Result<_>>()?;
    let mut flat = Flat::default();
    for (i, ((doc, _), TokenizedText { ids, spans })) in group.iter().zip(all).enumerate() {
        if i > 0 {
            flat.push(eos, None);
        }
        for (id, span) in ids.into_iter().zip(spans) {
            flat.push(id, Some(Origin { doc: *doc, span: span.start as u64..span.end as u64 }));
        }
    }
    Ok(flat)
}

fn in_chunks(group: &[Document], tokenizer: &dyn Tokenize, eos_text: &str) -> Result<Option<Flat>> {
    let mut full = String::new();
    let mut places: Vec<(Range<usize>, DocId)> = Vec::with_capacity(group.len());
    for (i, (doc, text)) in group.iter().enumerate() {
        if i > 0 {
            full.push_str(eos_text);
        }
        places.push((full.len()..full.len() + text.len(), *doc));
        full.push_str(text);
    }
    if full.chars().all(is_space) {
        return Ok(None);
    }
    let chunks = chunks(&full);
    let first = group[0].0;
    let all: Vec<TokenizedText> =
        chunks.par_iter().map(|chunk| tokenized(tokenizer, first, &full[chunk.clone()])).collect::<Result<_>>()?;
    let mut flat = Flat::default();
    for (chunk, TokenizedText { ids, spans }) in chunks.iter().zip(all) {
        for (id, span) in ids.into_iter().zip(spans) {
            flat.push(id, origin(&places, chunk.start + span.start..chunk.start + span.end));
        }
    }
    Ok(Some(flat))
}

/// Cuts at every `ceil(characters / 20)`-th character.
fn chunks(full: &str) -> Vec<Range<usize>> {
    let length = full.chars().count().div_ceil(CHUNKS).max(1);
    let starts = full.char_indices().step_by(length).map(|(at, _)| at);
    let ends = starts.clone().skip(1).chain([full.len()]);
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

/// The document in which a stretch of the joined text begins; none where it begins in what joins them.
fn origin(places: &[(Range<usize>, DocId)], span: Range<usize>) -> Option<Origin> {
    let i = places.partition_point(|(place, _)| place.start <= span.start).checked_sub(1)?;
    let (place, doc) = &places[i];
    let end = span.end.min(place.end);
    (span.start < place.end)
        .then(|| Origin { doc: *doc, span: (span.start - place.start) as u64..(end - place.start) as u64 })
}

/// Python's `str.isspace`.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_of_equally_many_characters() {
        let of = |text: &str| chunks(text).into_iter().map(|r| text[r].chars().count()).collect::<Vec<_>>();
        assert_eq!(of(&"é".repeat(20)), [1; 20]);
        assert_eq!(of(&"日".repeat(21)), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
        assert_eq!(of("ab"), [1, 1]);
    }

    #[test]
    fn origins_of_joined_text() {
        let doc = |ordinal| DocId { file: 0, ordinal };
        let places = [(0..3, doc(0)), (8..8, doc(1)), (13..15, doc(2))];
        let at = |span: Range<usize>| origin(&places, span).map(|o| (o.doc.ordinal, o.span));
        assert_eq!(at(0..2), Some((0, 0..2)));
        assert_eq!(at(2..5), Some((0, 2..3)), "clipped at the document's end");
        assert_eq!(at(3..8), None);
        assert_eq!(at(8..13), None, "an empty document");
        assert_eq!(at(14..15), Some((2, 1..2)));
    }
}
