//! SentencePiece BPE with byte fallback (Llama 1 and 2, TinyLlama, early Mistral), in the form of their `tokenizer.json`.

use super::GgufFile;
use super::tokenizer::{TokenKind, Vocabulary, refused};
use crate::Result;
use std::cmp::Ordering;
use std::collections::HashMap;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::{DecoderWrapper, NormalizerWrapper, Tokenizer};

const SCORES: &str = "tokenizer.ggml.scores";
/// Longer pieces are refused: finding the splits of a piece takes time in the square of its length. Llama 2's longest has 48 bytes.
const MAX_PIECE_BYTES: usize = 512;

/// The tokenizer without its added tokens.
pub(super) fn build(file: &GgufFile, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer> {
    let pre = file.string("tokenizer.ggml.pre")?;
    if let Some(pre) = pre.filter(|pre| *pre != "default") {
        return Err(file.unsupported("pre-tokenizer (tokenizer.ggml.pre) of a SentencePiece model", pre, "default"));
    }
    for (key, harmless) in [("remove_extra_whitespaces", false), ("escape_whitespaces", true)] {
        let key = format!("tokenizer.ggml.{key}");
        if let Some(found) = file.bool(&key)?.filter(|found| *found != harmless) {
            return Err(file.bad_key(&key, harmless.to_string(), found));
        }
    }
    let unk = file.u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let Some(unk) = vocabulary.tokens.get(unk as usize) else {
        return Err(file.bad_key("tokenizer.ggml.unknown_token_id", "an id of the vocabulary", unk));
    };
    let prefix = file.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.map(), merges(file, vocabulary)?)
        .unk_token(unk.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build();
    let assemble = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(bpe?);
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers(prefix)?)))?;
        tokenizer.with_decoder(Some(Decoders::new(decoders(prefix)?)));
        Ok(tokenizer)
    };
    assemble().map_err(|e| refused(file, &e))
}

fn normalizers(prefix: bool) -> tokenizers::Result<Vec<NormalizerWrapper>> {
    let spaces: NormalizerWrapper = Replace::new(" ", "▁")?.into();
    let front = prefix.then(|| Prepend::new("▁".into()).into());
    Ok(front.into_iter().chain([spaces]).collect())
}

fn decoders(prefix: bool) -> tokenizers::Result<Vec<DecoderWrapper>> {
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(steps)
}

/// SentencePiece merges whichever neighbours make the piece of the highest score. BPE ranks pairs, so every way to cut a piece into
/// two pieces becomes a pair, in descending order of score; the cuts of one piece in ascending order of (left id, right id), as
/// the conversion that made Llama 2's `tokenizer.json` ordered them. Bytes, control and unused tokens take no part.
fn merges(file: &GgufFile, vocabulary: &Vocabulary<'_>) -> Result<Vec<(String, String)>> {
    let scores = file.require(SCORES, GgufFile::f32s)?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(file.bad_key(SCORES, format!("{} entries", vocabulary.tokens.len()), scores.len()));
    }
    if let Some(nan) = scores.iter().position(|score| score.is_nan()) {
        return Err(file.bad_key(SCORES, "numbers", format!("NaN at id {nan}")));
    }
    let pieces: HashMap<&str, usize> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| vocabulary.kinds[*id] == TokenKind::Normal)
        .map(|(id, token)| (token.as_str(), id))
        .collect();
    if let Some(long) = pieces.keys().find(|piece| piece.len() > MAX_PIECE_BYTES) {
        let found = format!("one of {} bytes", long.len());
        return Err(file.bad_key(
            super::tokenizer::TOKENS,
            format!("pieces of at most {MAX_PIECE_BYTES} bytes"),
            found,
        ));
    }
    let mut cuts: Vec<(usize, usize, usize)> = Vec::new();
    for (&piece, &id) in &pieces {
        for (at, _) in piece.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (pieces.get(&piece[..at]), pieces.get(&piece[at..])) {
                cuts.push((id, left, right));
            }
        }
    }
    // No score is NaN, so every two of them compare.
    cuts.sort_by(|a, b| scores[b.0].partial_cmp(&scores[a.0]).unwrap_or(Ordering::Equal).then(a.cmp(b)));
    let text = |id: usize| vocabulary.tokens[id].clone();
    Ok(cuts.into_iter().map(|(_, left, right)| (text(left), text(right))).collect())
}
