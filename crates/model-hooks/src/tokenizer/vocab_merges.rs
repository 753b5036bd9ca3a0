//! Byte-level BPE from `vocab.json` and `merges.txt`, as folders held it before there was a `tokenizer.json`.

use super::caught;
use super::pieces::byte_level_characters;
use super::roles::RoleDefaults;
use super::side_files::{SideFiles, bounded, unusable};
use crate::Result;
use crate::gguf::PreTokenizer;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tokenizers::Tokenizer;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;

/// Larger files are refused. Qwen 2's have 3 MB each.
const MAX_BYTES: u64 = 1 << 26;

/// A kind of tokenizer that is stored so.
struct Kind {
    /// `tokenizer_class` of `tokenizer_config.json`.
    classes: &'static [&'static str],
    /// The models that have it, by `model_type` of `config.json`, for folders whose `tokenizer_class` says nothing.
    model_types: &'static [&'static str],
    rule: PreTokenizer,
    bos: Option<&'static str>,
    pad: Option<&'static str>,
}

const END: &str = "<|endoftext|>";

/// Kinds that differ from these (RoBERTa's frames texts and numbers its tokens otherwise) are refused.
const KINDS: [Kind; 2] = [
    Kind {
        classes: &["GPT2Tokenizer", "GPT2TokenizerFast"],
        model_types: &["gpt2", "gpt_neo", "gptj"],
        rule: PreTokenizer::Gpt2,
        bos: Some(END),
        pad: None,
    },
    Kind {
        classes: &["Qwen2Tokenizer", "Qwen2TokenizerFast"],
        model_types: &["qwen2", "qwen3"],
        rule: PreTokenizer::Qwen2,
        bos: None,
        pad: Some(END),
    },
];

/// The tokenizer of a folder that has both files, and the roles of its kind.
pub(super) fn read(dir: &Path, files: &SideFiles) -> Result<Option<(Tokenizer, RoleDefaults)>> {
    let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| dir.join(name));
    if !vocab.is_file() || !merges.is_file() {
        return Ok(None);
    }
    let kind = Kind::of(files)?;
    let prefix_space = files.tokenizer_config.flag("add_prefix_space")?.unwrap_or(false);
    let ids = read_vocab(&vocab)?;
    let pairs = read_merges(&merges, &ids)?;
    let build = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(ids, pairs).build()?);
        tokenizer.with_normalizer(kind.rule.normalizer())?;
        tokenizer.with_pre_tokenizer(Some(kind.rule.build(prefix_space)?));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    };
    let tokenizer = caught(build).map_err(|reason| unusable(&vocab, reason))?;
    let text = |token: Option<&str>| token.map(str::to_owned);
    let defaults = RoleDefaults {
        bos: text(kind.bos),
        eos: text(Some(END)),
        pad: text(kind.pad),
        unk: text(Some(END)),
        adds_bos: Some(false),
    };
    Ok(Some((tokenizer, defaults)))
}

impl Kind {
    fn of(files: &SideFiles) -> Result<&'static Self> {
        let known = |names: fn(&Kind) -> &'static [&'static str]| {
            KINDS.iter().flat_map(|kind| names(kind).iter().copied()).collect::<Vec<_>>().join(", ")
        };
        if let Some(class) = files.tokenizer_class()? {
            let found = KINDS.iter().find(|kind| kind.classes.contains(&class));
            let expected = known(|kind| kind.classes);
            return found.ok_or_else(|| {
                let reason = format!(
                    "tokenizer_class is {class}, expected {expected}: others are not rebuilt from vocab.json and merges.txt; \
                     save the tokenizer with a tokenizer.json"
                );
                unusable(&files.tokenizer_config.path, reason)
            });
        }
        let model_type = files.config.text("model_type")?.unwrap_or("absent");
        let found = KINDS.iter().find(|kind| kind.model_types.contains(&model_type));
        let expected = known(|kind| kind.model_types);
        found.ok_or_else(|| {
            let reason = format!(
                "nothing says what kind of tokenizer vocab.json and merges.txt are: tokenizer_config.json has no tokenizer_class, \
                 and model_type is {model_type}, expected {expected}"
            );
            unusable(&files.config.path, reason)
        })
    }
}

fn read_vocab(path: &Path) -> Result<tokenizers::models::bpe::Vocab> {
    let bytes = bounded(path, MAX_BYTES)?;
    let ids: HashMap<String, u32> = serde_json::from_slice(&bytes).map_err(|e| unusable(path, e.to_string()))?;
    let mut seen = HashSet::with_capacity(ids.len());
    if let Some((token, id)) = ids.iter().find(|(_, id)| !seen.insert(**id)) {
        return Err(unusable(path, format!("id {id} of {token:?} has another token, too")));
    }
    if let Some(lost) = byte_level_characters().into_iter().find(|byte| !ids.contains_key(&byte.to_string())) {
        let reason = format!("there is no token {lost:?}: a byte-level vocabulary has one for each of the 256 bytes");
        return Err(unusable(path, reason));
    }
    Ok(ids.into_iter().collect())
}

/// Pairs `left right`, one a line, best first; the first line may be `#version: 0.2`.
fn read_merges(path: &Path, ids: &tokenizers::models::bpe::Vocab) -> Result<Vec<(String, String)>> {
    let bytes = bounded(path, MAX_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|e| unusable(path, e.to_string()))?;
    let lines =
        text.lines().enumerate().filter(|(i, line)| !(*i == 0 && line.starts_with("#version") || line.is_empty()));
    let pair = |(i, line): (usize, &str)| -> Result<(String, String)> {
        let parts = line.split_once(' ').filter(|(left, right)| {
            [*left, *right, format!("{left}{right}").as_str()].iter().all(|token| ids.contains_key(*token))
        });
        let (left, right) = parts.ok_or_else(|| {
            let found = line.chars().take(40).collect::<String>();
            let expected = "expected two tokens of vocab.json whose concatenation is a token";
            unusable(path, format!("line {} is {found:?}, {expected}", i + 1))
        })?;
        Ok((left.into(), right.into()))
    };
    lines.map(pair).collect()
}
