//! SentencePiece BPE with byte fallback (Llama 1 and 2, TinyLlama, early Mistral), in the form of their `tokenizer.json`.

use super::GgufFile;
use super::tokenizer::{self, Vocabulary};
use crate::Result;
use crate::tokenizer::sentencepiece::{bpe, decoders, merges, spaces};
use tokenizers::Tokenizer;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::normalizers::Sequence as Normalizers;

const SCORES: &str = "tokenizer.ggml.scores";

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
    let scores = file.require(SCORES, GgufFile::f32s)?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(file.bad_key(SCORES, format!("{} entries", vocabulary.tokens.len()), scores.len()));
    }
    if let Some(nan) = scores.iter().position(|score| score.is_nan()) {
        return Err(file.bad_key(SCORES, "numbers", format!("NaN at id {nan}")));
    }
    let merges = merges(vocabulary.tokens, &vocabulary.kinds, scores)
        .map_err(|found| file.bad_key(super::tokenizer::TOKENS, "pieces that can be merged", found))?;
    tokenizer::build(file, || {
        let mut tokenizer = Tokenizer::new(bpe(vocabulary.map(), merges, unk, true)?);
        tokenizer.with_normalizer(Some(Normalizers::new(spaces(prefix)?)))?;
        tokenizer.with_decoder(Some(Decoders::new(decoders(prefix)?)));
        Ok(tokenizer)
    })
}
