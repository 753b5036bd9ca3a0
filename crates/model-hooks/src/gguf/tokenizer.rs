//! The tokenizer inside a GGUF file, rebuilt as the `tokenizer.json` it was made from.

use super::arch::ARCHITECTURE;
use super::pre_tokenizer::PreTokenizer;
use super::{GgufFile, sentencepiece};
use crate::tokenizer::{TokenKind, caught};
use crate::{LoadWarning, Result, SpecialTokens};
use std::collections::HashSet;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{AddedToken, Tokenizer};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";

/// The tokens of a file with their kinds, checked to be distinct.
pub(super) struct Vocabulary<'a> {
    pub tokens: &'a [String],
    pub kinds: Vec<TokenKind>,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a GgufFile) -> Result<Self> {
        let tokens = file.require(TOKENS, GgufFile::strings)?;
        let mut seen = HashSet::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() || !seen.insert(token.as_str()) {
                let found = format!("{token:?} at id {id}, empty or not for the first time");
                return Err(file.bad_key(TOKENS, "distinct, non-empty tokens", found));
            }
        }
        let kinds = match file.i32s(TYPES)? {
            None => vec![TokenKind::Normal; tokens.len()],
            Some(types) if types.len() == tokens.len() => {
                types.iter().enumerate().map(|(id, kind)| token_kind(file, id, *kind)).collect::<Result<_>>()?
            }
            Some(types) => return Err(file.bad_key(TYPES, format!("{} entries", tokens.len()), types.len())),
        };
        Ok(Self { tokens, kinds })
    }

    /// Tokens to ids.
    pub fn map(&self) -> Vocab {
        self.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect()
    }

    /// Tokens that are found in a text before anything else is done with it: control tokens are special, user-defined ones are not.
    ///
    /// `strips`: whether a token swallows the white space behind it, which files do not say.
    fn added(&self, strips: impl Fn(&str) -> bool) -> (Vec<AddedToken>, Vec<AddedToken>) {
        let of = |kinds: &[TokenKind], special| {
            let picked = self.tokens.iter().zip(&self.kinds).filter(|(_, kind)| kinds.contains(kind));
            let token = |token: &str| AddedToken::from(token, special).normalized(false).rstrip(strips(token));
            picked.map(|(text, _)| token(text)).collect()
        };
        (of(&[TokenKind::Control, TokenKind::Unknown], true), of(&[TokenKind::UserDefined], false))
    }
}

fn token_kind(file: &GgufFile, id: usize, kind: i32) -> Result<TokenKind> {
    let bad = || file.bad_key(TYPES, "types from 1 to 6", format!("{kind} at id {id}"));
    TokenKind::from_number(kind).ok_or_else(bad)
}

/// The tokenizer of a file, its special tokens and load warnings, or `None` if the file states that it has no tokenizer.
///
/// `tokenizer.ggml.model` is `gpt2` (byte-level BPE, cut by one of the rules of [`PreTokenizer`]) or `llama`
/// (SentencePiece BPE with byte fallback).
pub(crate) fn read_tokenizer(file: &GgufFile) -> Result<Option<(Tokenizer, SpecialTokens, Vec<LoadWarning>)>> {
    let Some(model) = file.string(MODEL)?.filter(|model| *model != "none" && *model != "no_vocab") else {
        return Ok(None);
    };
    let vocabulary = match model {
        "gpt2" | "llama" => Vocabulary::read(file)?,
        _ => return Err(file.unsupported("tokenizer model (tokenizer.ggml.model)", model, "gpt2, llama")),
    };
    let (mut tokenizer, adds_bos) = match model {
        "gpt2" => byte_level(file, &vocabulary)?,
        _ => (sentencepiece::build(file, &vocabulary)?, true),
    };
    let phi3 = model == "llama" && file.string(ARCHITECTURE)? == Some("phi3");
    let (special, user_defined) = vocabulary.added(|token| phi3 && !PHI3_KEEPS_SPACE.contains(&token));
    build(file, || {
        tokenizer.add_special_tokens(special)?;
        tokenizer.add_tokens(user_defined)
    })?;
    let mut warnings = Vec::new();
    let mut special = special_tokens(file, adds_bos, &vocabulary, &mut warnings)?;
    if file.bool("tokenizer.ggml.add_eos_token")? == Some(true) {
        close_with_eos(file, &mut tokenizer, &mut special)?;
    }
    Ok(Some((tokenizer, special, warnings)))
}

/// The special tokens of Phi-3's SentencePiece vocabulary that leave the white space behind them; all others swallow it, as its
/// `tokenizer.json` says and llama.cpp hard-codes.
const PHI3_KEEPS_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Puts an EOS behind texts as a template of the tokenizer, which [`AddBos::TokenizerDefault`](crate::AddBos::TokenizerDefault) then reports.
fn close_with_eos(file: &GgufFile, tokenizer: &mut Tokenizer, special: &mut SpecialTokens) -> Result<()> {
    let Some(eos) = special.eos else {
        return Err(file.bad_key("tokenizer.ggml.add_eos_token", "false: there is no EOS token", true));
    };
    let bos = special.bos.filter(|_| special.adds_bos == Some(true));
    let text = |id| tokenizer.id_to_token(id).unwrap_or_default();
    let pieces = if bos.is_some() { "BOS:0 $A:0 EOS:0" } else { "$A:0 EOS:0" };
    let named = [("BOS", bos), ("EOS", Some(eos))].into_iter().filter_map(|(name, id)| Some((name, id?)));
    let tokens = named.map(|(name, id)| SpecialToken::new(name.into(), vec![id], vec![text(id)]));
    let template = build(file, || {
        let tokens = tokens.collect::<tokenizers::Result<Vec<_>>>()?;
        Ok(TemplateProcessing::builder().try_single(pieces)?.special_tokens(tokens).build()?)
    })?;
    tokenizer.with_post_processor(Some(template));
    special.adds_bos = None;
    Ok(())
}

/// Runs a part of the `tokenizers` crate; its reason for failing is reported under the key that holds the vocabulary.
pub(super) fn build<T>(file: &GgufFile, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    caught(run).map_err(|reason| file.bad_key(TOKENS, "a vocabulary that the tokenizer accepts", reason))
}

fn byte_level(file: &GgufFile, vocabulary: &Vocabulary<'_>) -> Result<(Tokenizer, bool)> {
    let name = file.require(PRE, GgufFile::string)?;
    let known = || PreTokenizer::NAMES.map(|(name, _)| name).join(", ");
    let pre = PreTokenizer::from_name(name)
        .ok_or_else(|| file.unsupported("pre-tokenizer (tokenizer.ggml.pre)", name, known()))?;
    let vocab = vocabulary.map();
    let merges = read_merges(file, &vocab)?;
    let tokenizer = build(file, || {
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.ignores_merges()).build()?;
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_normalizer(pre.normalizer())?;
        tokenizer.with_pre_tokenizer(Some(pre.build(false)?));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    })?;
    Ok((tokenizer, pre.adds_bos()))
}

/// Pairs `left right`; both and their concatenation must be tokens.
fn read_merges(file: &GgufFile, vocab: &Vocab) -> Result<Vec<(String, String)>> {
    let merges = file.require(MERGES, GgufFile::strings)?;
    let pair = |(rank, merge): (usize, &String)| {
        let parts = merge.split_once(' ').filter(|(left, right)| {
            [*left, *right, format!("{left}{right}").as_str()].iter().all(|token| vocab.contains_key(*token))
        });
        match parts {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => {
                let found = format!("{:?} at rank {rank}", merge.chars().take(40).collect::<String>());
                Err(file.bad_key(MERGES, "pairs of tokens whose concatenation is a token", found))
            }
        }
    };
    merges.iter().enumerate().map(pair).collect()
}

/// Control tokens that end a turn or a text under these names, although no key may say so: llama.cpp's list.
const ENDS: [&str; 15] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
];

/// The roles that the file gives to ids, and every id that ends a text. Where the file does not say whether a BOS is added, the model or
/// rule decides.
fn special_tokens(
    file: &GgufFile,
    adds_bos: bool,
    vocabulary: &Vocabulary<'_>,
    warnings: &mut Vec<LoadWarning>,
) -> Result<SpecialTokens> {
    let vocab_size = vocabulary.tokens.len();
    let mut outside = Vec::new();
    let mut role = |name: &str| -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let id = file.u32(&key)?;
        if let Some(id) = id.filter(|&id| id as usize >= vocab_size) {
            let file = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            warnings.push(LoadWarning::NotInVocabulary { file, key, found: id.to_string(), vocab_size });
            outside.push((name.to_owned(), id));
            return Ok(None);
        }
        Ok(id)
    };
    let mut special = SpecialTokens {
        bos: role("bos")?,
        eos: role("eos")?,
        pad: role("padding")?,
        unk: role("unknown")?,
        // Spelled so in the format.
        sep: role("seperator")?,
        cls: role("cls")?,
        mask: role("mask")?,
        ..SpecialTokens::default()
    };
    let turns = [role("eot")?, role("eom")?];
    special.others.extend(turns.into_iter().flatten());
    special.eos_ids.extend([special.eos].into_iter().chain(turns).flatten());
    special
        .eos_ids
        .extend(outside.iter().filter(|(name, _)| ["eos", "eot", "eom"].contains(&&**name)).map(|(_, id)| *id));
    let named = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0..);
    let ends = named.filter(|((text, kind), _)| {
        ENDS.contains(&text.as_str()) && matches!(kind, TokenKind::Control | TokenKind::UserDefined)
    });
    special.eos_ids.extend(ends.map(|(_, id)| id));
    special.adds_bos = Some(file.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos && special.bos.is_some()));
    Ok(special)
}
