//! SentencePiece models in the form of a `tokenizer.json`: from `tokenizer.model`, and for [`gguf`](crate::gguf) from a file's lists.

pub(super) mod charsmap;
mod model_proto;

use super::caught;
use model_proto::{Algorithm, Model};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Precompiled, Prepend, Replace, Sequence as Normalizers};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, Tokenizer};

/// Longer pieces are refused: finding the splits of a piece takes time in the square of its length. Llama 2's longest has 48 bytes.
const MAX_PIECE_BYTES: usize = 512;
/// Pairs that a vocabulary may have for each of its pieces (Gemma has 2.3), and beside them.
const MAX_PAIRS_EACH: usize = 8;
const MAX_PAIRS_FREE: usize = 4096;

/// Type of a piece, by its number in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    /// By its number.
    pub fn from_number(number: i32) -> Option<Self> {
        let kinds = [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];
        kinds.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }
}

/// A vocabulary with scores.
#[derive(Debug, Default)]
struct Pieces {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<TokenKind>,
}

/// A tokenizer read from a `tokenizer.model`, and the roles of its ids.
pub(super) struct SentencePiece {
    /// The tokenizer, control and user-defined pieces among its added tokens.
    pub tokenizer: Tokenizer,
    /// The ids that the file gives to roles.
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    pub unk: u32,
}

/// Reads a model; `prefix`: whether a space is put before texts, where the folder says so.
pub(super) fn read(bytes: &[u8], prefix: Option<bool>) -> Result<SentencePiece, String> {
    let mut model = Model::read(bytes)?;
    let added_as = user_defined(&mut model.pieces);
    let Pieces { tokens, scores, kinds } = &model.pieces;
    if let Some(long) = tokens.iter().map(String::len).find(|len| *len > MAX_PIECE_BYTES) {
        return Err(format!("a piece of {long} bytes, at most {MAX_PIECE_BYTES} are read"));
    }
    let mut unknown = (0u32..).zip(tokens).zip(kinds).filter(|(_, kind)| **kind == TokenKind::Unknown);
    let (Some(((unk, unk_piece), _)), None) = (unknown.next(), unknown.next()) else {
        return Err("it has no unknown piece, or several; expected one".into());
    };
    charsmap_of(&model)?;
    let ids = || tokens.iter().cloned().zip(0..);
    let wrong = |e: String| format!("the tokenizer does not accept its pieces: {e}");
    let wrapped: ModelWrapper = match model.algorithm {
        Algorithm::Bpe => {
            let merges = merges(tokens, kinds, scores)?;
            caught(|| bpe(ids().collect(), merges, unk_piece, model.byte_fallback)).map_err(wrong)?.into()
        }
        Algorithm::Unigram => {
            let scored = tokens.iter().cloned().zip(scores.iter().map(|score| f64::from(*score))).collect();
            caught(|| Unigram::from(scored, Some(unk as usize), model.byte_fallback)).map_err(wrong)?.into()
        }
    };
    let prefix = prefix.unwrap_or(model.add_dummy_prefix);
    let assemble = || -> tokenizers::Result<Tokenizer> {
        let mut steps = Vec::new();
        if !model.charsmap.is_empty() {
            steps.push(Precompiled::from(&model.charsmap)?.into());
        }
        if model.remove_extra_whitespaces {
            steps.push(Replace::new(ReplacePattern::Regex(r"\A +| +\z".into()), "")?.into());
            steps.push(Replace::new(ReplacePattern::Regex(" {2,}".into()), " ")?.into());
        }
        steps.extend(spaces(prefix)?);
        let mut tokenizer = Tokenizer::new(wrapped);
        tokenizer.with_normalizer(Some(Normalizers::new(steps)))?;
        tokenizer.with_decoder(Some(Decoders::new(decoders(prefix)?)));
        let added = |kind: TokenKind, special: bool| {
            let picked = tokens.iter().zip(kinds).filter(move |(_, of)| **of == kind);
            picked.map(move |(text, _)| AddedToken::from(text.as_str(), special).normalized(false)).collect::<Vec<_>>()
        };
        tokenizer.add_special_tokens([added(TokenKind::Control, true), added(TokenKind::Unknown, true)].concat())?;
        tokenizer.add_tokens(added_as.iter().map(|text| AddedToken::from(text.as_str(), false).normalized(false)))?;
        Ok(tokenizer)
    };
    let tokenizer = caught(assemble).map_err(wrong)?;
    Ok(SentencePiece { tokenizer, bos: model.bos, eos: model.eos, pad: model.pad, unk })
}

/// Rewrites user-defined pieces to the text they match before normalization (`▁` becomes a space) and returns them. Pieces with a literal
/// space never match and are left.
fn user_defined(pieces: &mut Pieces) -> Vec<String> {
    let all: HashSet<String> = pieces.tokens.iter().cloned().collect();
    let mut found = Vec::new();
    for (token, kind) in pieces.tokens.iter_mut().zip(&pieces.kinds) {
        if *kind != TokenKind::UserDefined || token.contains(' ') {
            continue;
        }
        let text = token.replace('▁', " ");
        if text == *token || !all.contains(&text) {
            *token = text.clone();
            found.push(text);
        }
    }
    found
}

fn charsmap_of(model: &Model) -> Result<(), String> {
    if model.charsmap.is_empty() { Ok(()) } else { charsmap::check(&model.charsmap) }
}

/// Byte-pair encoding as SentencePiece does it.
pub(crate) fn bpe(
    vocab: tokenizers::models::bpe::Vocab,
    merges: Vec<(String, String)>,
    unk: &str,
    byte_fallback: bool,
) -> tokenizers::Result<BPE> {
    let builder = BPE::builder().vocab_and_merges(vocab, merges).unk_token(unk.into());
    builder.fuse_unk(true).byte_fallback(byte_fallback).build()
}

/// Puts a space before a text where that is wanted, and writes spaces as `▁`.
pub(crate) fn spaces(prefix: bool) -> tokenizers::Result<Vec<NormalizerWrapper>> {
    let spaces: NormalizerWrapper = Replace::new(" ", "▁")?.into();
    let front = prefix.then(|| Prepend::new("▁".into()).into());
    Ok(front.into_iter().chain([spaces]).collect())
}

/// The way back.
pub(crate) fn decoders(prefix: bool) -> tokenizers::Result<Vec<DecoderWrapper>> {
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(steps)
}

/// SentencePiece merges whichever neighbors make the piece of the highest score. BPE ranks pairs, so every way to cut a piece into
/// two pieces becomes a pair, in descending order of score; the cuts of one piece in ascending order of (left id, right id), as
/// the conversion that made Llama 2's `tokenizer.json` ordered them. Bytes, control and unused tokens take no part.
///
/// No score may be NaN, and there is one for each token.
pub(crate) fn merges(tokens: &[String], kinds: &[TokenKind], scores: &[f32]) -> Result<Vec<(String, String)>, String> {
    let pieces: HashMap<&str, usize> = tokens
        .iter()
        .zip(kinds)
        .enumerate()
        .filter(|(_, (_, kind))| **kind == TokenKind::Normal)
        .map(|(id, (token, _))| (token.as_str(), id))
        .collect();
    if let Some(long) = pieces.keys().map(|piece| piece.len()).find(|len| *len > MAX_PIECE_BYTES) {
        return Err(format!("one of {long} bytes, expected pieces of at most {MAX_PIECE_BYTES} bytes"));
    }
    let most = MAX_PAIRS_FREE + MAX_PAIRS_EACH * tokens.len();
    let mut cuts: Vec<(usize, usize, usize)> = Vec::new();
    for (&piece, &id) in &pieces {
        for (at, _) in piece.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (pieces.get(&piece[..at]), pieces.get(&piece[at..])) {
                cuts.push((id, left, right));
            }
        }
        if cuts.len() > most {
            return Err(format!("pieces of more than {most} pairs of pieces, at most that many are read"));
        }
    }
    // No score is NaN, so every two of them compare.
    let score = |cut: &(usize, usize, usize)| scores.get(cut.0).copied().unwrap_or_default();
    cuts.sort_unstable_by(|a, b| score(b).partial_cmp(&score(a)).unwrap_or(Ordering::Equal).then(a.cmp(b)));
    let pair = |(_, left, right): (usize, usize, usize)| Some((tokens.get(left)?.clone(), tokens.get(right)?.clone()));
    Ok(cuts.into_iter().filter_map(pair).collect())
}
