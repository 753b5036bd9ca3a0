//! Text to token ids and back: [`Tokenizer`]. Nothing is added, dropped or truncated without being reported.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod added;
mod folder;
mod json;
mod patterns;
mod pieces;
mod precompiled;
mod roles;
pub(crate) mod sentencepiece;
mod side_files;
mod special;
mod split_rules;
mod vocab_merges;

pub(crate) use folder::eos_ids_of_folder;
pub(crate) use sentencepiece::TokenKind;
pub use special::SpecialTokens;

use crate::{Error, LoadWarning, Result};
use pieces::Pieces;
use special::Template;
use split_rules::SplitRule;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::OnceLock;

/// Ids without a token that a vocabulary may have, beside three for each that has one.
const MOST_UNUSED_IDS: usize = 1 << 16;

/// Runs a part of the `tokenizers` crate, which meets some malformed files with a panic, as a function that fails instead.
pub(crate) fn caught<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match tensor_files::contained(run) {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(panicked) => Err(format!("the `tokenizers` crate {panicked}")),
    }
}

/// The ids of a text and where each came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoding {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For each id its byte span in the text, always on character boundaries: tokens that share one character (its bytes are
    /// split between them) each carry the span of the whole character, so that their spans overlap. Where a normalizer joins
    /// characters (NFC), the joined one has the span of the first.
    pub spans: Vec<Range<usize>>,
}

/// Whether a beginning-of-sequence token goes before the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddBos {
    /// Put it there (TransformerLens' default). A text that already begins with it keeps one, see [`Tokens::had_bos`].
    Always,
    /// Add nothing.
    Never,
    /// Do what the tokenizer's own files say (`add_bos_token`, else the template in `tokenizer.json`).
    TokenizerDefault,
}

/// Result of [`Tokenizer::to_tokens`], with a report of everything it did beside tokenizing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// The token ids; empty for an empty text without BOS.
    pub ids: Vec<u32>,
    /// Whether a BOS was put before the text.
    pub added_bos: bool,
    /// Whether a BOS was asked for but the text already began with one, so that none was added.
    pub had_bos: bool,
    /// Number of ids cut off at the end to fit `n_ctx`.
    pub truncated: usize,
    /// For each id its byte span in the text (as [`Encoding::spans`]); `None` for the added BOS.
    pub spans: Vec<Option<Range<usize>>>,
}

/// A model's tokenizer: the `tokenizers` crate's, with the special tokens known and every addition explicit.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    special_ids: BTreeSet<u32>,
    template: Template,
    /// Ids that have an entry.
    known: Vec<bool>,
    /// Ids below this are the model's, with an entry or without.
    d_vocab: usize,
    warnings: Vec<LoadWarning>,
    cut: SplitRule,
    pieces: OnceLock<Pieces>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// A tokenizer from a loaded `tokenizers::Tokenizer` and its special tokens. Truncation, padding and the post-processor of
    /// `inner` are taken off: [`to_tokens`](Self::to_tokens) does these explicitly.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when a special id is outside the vocabulary, `adds_bos` is set without a BOS, or the model drops
    /// merges at random (BPE dropout).
    pub fn from_parts(mut inner: tokenizers::Tokenizer, mut special: SpecialTokens) -> Result<Self> {
        let fail = |reason: String| Error::Tokenizer { path: None, reason };
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        inner.with_padding(None);
        let template = Template::of(&inner, &special)?;
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        if let tokenizers::ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some_and(|p| p > 0.0)
        {
            return Err(fail("model.dropout is set: the same text would get different tokens each time".into()));
        }
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        // Tables here have an entry for each id, so a file must not make them large with a few of them.
        let most = MOST_UNUSED_IDS + 4 * vocab.len();
        if vocab_size > most {
            let reason =
                format!("its {} tokens have ids up to {}, at most {most} is read", vocab.len(), vocab_size - 1);
            return Err(fail(reason));
        }
        let mut known = vec![false; vocab_size];
        for id in vocab.into_values() {
            if let Some(known) = known.get_mut(id as usize) {
                *known = true;
            }
        }
        let mut special_ids = special.ids();
        special_ids.extend(inner.get_added_tokens_decoder().iter().filter(|(_, t)| t.special).map(|(id, _)| *id));
        if let Some(id) = special_ids.iter().find(|&&id| !known.get(id as usize).is_some_and(|k| *k)) {
            return Err(fail(format!("special token id {id} is not in the vocabulary of {vocab_size} tokens")));
        }
        let cut = SplitRule::of(&inner);
        special.eos_ids.extend(special.eos);
        let (d_vocab, warnings) = (0, Vec::new());
        Ok(Self { inner, special, special_ids, template, known, d_vocab, warnings, cut, pieces: OnceLock::new() })
    }

    /// The tokenizer of a model that embeds `d_vocab` ids. Ids from [`vocab_size`](Self::vocab_size) on, which pad the model's
    /// vocabulary, then decode to `[6150]` instead of being errors. [`LanguageModel::new`](crate::LanguageModel::new) does this.
    #[must_use]
    pub fn padded_to(mut self, d_vocab: usize) -> Self {
        self.d_vocab = d_vocab;
        let vocab_size = self.vocab_size();
        if vocab_size > d_vocab {
            self.warnings.push(LoadWarning::TokenizerLongerThanEmbeddings { vocab_size, d_vocab });
        }
        self
    }

    /// Adds load warnings.
    #[must_use]
    pub(crate) fn with_warnings(mut self, warnings: Vec<LoadWarning>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Load warnings.
    #[must_use]
    pub fn warnings(&self) -> &[LoadWarning] {
        &self.warnings
    }

    /// The beginning-of-sequence token.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The end-of-sequence token.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Every id that ends a generated text: [`eos`](Self::eos), and what else the files name (ends of turns).
    #[must_use]
    pub fn eos_ids(&self) -> &BTreeSet<u32> {
        &self.special.eos_ids
    }

    /// The special tokens by role.
    #[must_use]
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Every special id: those with a role, and all that the tokenizer's files mark as special.
    #[must_use]
    pub fn special_ids(&self) -> &BTreeSet<u32> {
        &self.special_ids
    }

    /// The tokenizer as JSON in the format of `tokenizer.json`, equal for equal tokenizers, without what is taken off ([`from_parts`](Self::from_parts)) and without
    /// the roles of special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a part that cannot be written.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(|e| Error::Tokenizer { path: None, reason: e.to_string() })
    }

    /// One more than the largest id. A model's `d_vocab` may be larger (padded) but not smaller.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.known.len()
    }

    /// The id of a token by its exact entry in the vocabulary (byte-level entries are in their printable alphabet).
    #[must_use]
    pub fn token_to_id(&self, entry: &str) -> Option<u32> {
        self.inner.token_to_id(entry)
    }

    /// Tokenizes a text and adds nothing. A special token written in the text (`<|endoftext|>`) becomes that token, as in
    /// Hugging Face's tokenizers. An empty text has no tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let encoded = caught(|| self.inner.encode(text, false));
        let encoded = encoded.map_err(|reason| Error::Tokenizer { path: None, reason })?;
        let spans = encoded.get_offsets().iter().map(|&(start, end)| on_characters(text, start, end)).collect();
        Ok(Encoding { ids: encoded.get_ids().to_vec(), spans })
    }

    /// Tokenizes a text for a model: BOS by the given policy, at most `n_ctx` ids, and an account of both.
    ///
    /// # Errors
    /// [`Error::NoBos`] for [`AddBos::Always`] without a BOS token; [`Error::Tokenizer`] for [`AddBos::TokenizerDefault`] when the
    /// tokenizer's template adds something other than one BOS.
    pub fn to_tokens(&self, text: &str, bos: AddBos, n_ctx: Option<usize>) -> Result<Tokens> {
        let wanted = match bos {
            AddBos::Never => None,
            AddBos::Always => Some(self.bos().ok_or(Error::NoBos)?),
            AddBos::TokenizerDefault => self.template.bos()?,
        };
        let Encoding { ids, spans } = self.encode(text)?;
        let had_bos = wanted.is_some() && ids.first().copied() == wanted;
        let added = wanted.filter(|_| !had_bos);
        let mut all: Vec<u32> = added.into_iter().chain(ids).collect();
        let mut spans: Vec<_> = added.map(|_| None).into_iter().chain(spans.into_iter().map(Some)).collect();
        let keep = n_ctx.map_or(all.len(), |n| n.min(all.len()));
        let truncated = all.len() - keep;
        all.truncate(keep);
        spans.truncate(keep);
        Ok(Tokens { ids: all, added_bos: added.is_some(), had_bos, truncated, spans })
    }

    /// The one token that a text is.
    ///
    /// # Errors
    /// [`Error::NotSingleToken`] with the pieces when it is none or several.
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        let ids = self.encode(text)?.ids;
        match ids[..] {
            [id] => Ok(id),
            _ => Err(Error::NotSingleToken { text: text.into(), pieces: self.readable(&ids)? }),
        }
    }

    /// The text of a sequence of ids, special tokens included. Bytes that form no character become U+FFFD.
    ///
    /// An id without a token, in a hole of the vocabulary or in the padding of the model's, is printed as `[6150]`: a model may well
    /// predict it.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the tokenizer's and the model's vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.check(ids)?;
        let decoded = caught(|| {
            if ids.iter().all(|&id| self.has_token(id)) {
                return self.inner.decode(ids, false);
            }
            let entry = |&id: &u32| self.inner.id_to_token(id).unwrap_or_else(|| no_token(id));
            let entries: Vec<String> = ids.iter().map(entry).collect();
            match self.inner.get_decoder() {
                Some(decoder) => tokenizers::Decoder::decode(decoder, entries),
                None => Ok(entries.join(" ")),
            }
        });
        decoded.map_err(|reason| Error::Tokenizer { path: None, reason })
    }

    /// Each id decoded alone, as TransformerLens' `to_str_tokens` does: a token that holds only a part of a character is U+FFFD
    /// (see [`readable`](Self::readable) for a better print). Ids without a token as in [`decode`](Self::decode).
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn to_str_tokens(&self, ids: &[u32]) -> Result<Vec<String>> {
        self.check(ids)?;
        let pieces = self.pieces();
        Ok(ids.iter().map(|&id| if self.has_token(id) { pieces.alone(id).to_owned() } else { no_token(id) }).collect())
    }

    /// One id decoded alone, without a copy; `None` where there is no token.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.has_token(id).then(|| self.pieces().alone(id))
    }

    /// Each id printed so that a reader can tell what it is, in its place among its neighbors: a token that completes a
    /// character prints the whole character; the tokens before it, with the character's first bytes, print those as `<0xE6>`;
    /// a leading space is kept also where [`to_str_tokens`](Self::to_str_tokens) loses it. Ids without a token as in
    /// [`decode`](Self::decode).
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn readable(&self, ids: &[u32]) -> Result<Vec<String>> {
        self.check(ids)?;
        Ok(self.pieces().readable(ids))
    }

    /// A span of ids printed as one readable text: whole characters once, bytes that stay incomplete in this span as `<0xE6>`.
    /// For contexts around a token, where joining [`readable`](Self::readable) would print a split character's bytes twice.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn readable_text(&self, ids: &[u32]) -> Result<String> {
        self.check(ids)?;
        Ok(self.pieces().readable_text(ids))
    }

    /// Whether a text may be tokenized in pieces that are cut before white space: `encode(a + b) == encode(a) ++ encode(b)`
    /// wherever [`is_cut`](Self::is_cut) holds. True for the byte-level families with a known splitting pattern.
    #[must_use]
    pub fn splits_at_whitespace(&self) -> bool {
        self.cut.at_whitespace()
    }

    /// Whether the place between two characters is a cut that leaves tokenization as it is: before white space, after
    /// something else; a line end after punctuation is none (Llama 3's pattern keeps the two together).
    #[must_use]
    pub fn is_cut(&self, before: char, after: char) -> bool {
        self.cut.at_whitespace() && split_rules::is_split_point(before, after)
    }

    fn has_token(&self, id: u32) -> bool {
        self.known.get(id as usize).is_some_and(|known| *known)
    }

    /// Ids of the tokenizer and of the model have a print.
    fn check(&self, ids: &[u32]) -> Result<()> {
        let size = self.vocab_size().max(self.d_vocab);
        match ids.iter().find(|&&id| id as usize >= size) {
            Some(&id) => Err(Error::UnknownToken { id, vocab_size: size }),
            None => Ok(()),
        }
    }

    fn pieces(&self) -> &Pieces {
        self.pieces.get_or_init(|| Pieces::of(&self.inner, &self.known))
    }
}

/// An id without a token, printed.
fn no_token(id: u32) -> String {
    format!("[{id}]")
}

/// The span widened to character boundaries and kept inside the text.
fn on_characters(text: &str, start: usize, end: usize) -> Range<usize> {
    let start = text.floor_char_boundary(start.min(text.len()));
    let end = text.ceil_char_boundary(end.min(text.len()));
    start..end.max(start)
}
