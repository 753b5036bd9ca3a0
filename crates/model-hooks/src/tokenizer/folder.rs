//! A tokenizer from a Hugging Face folder, with its special tokens from the small files beside it.

use super::roles::RoleDefaults;
use super::side_files::{SideFiles, bounded, unusable};
use super::{Tokenizer, added, caught, json, roles, sentencepiece, vocab_merges};
use crate::{Error, LoadWarning, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Larger files are refused. The largest published ones have 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 1 << 28;

/// Models whose SentencePiece tokenizer puts a BOS before texts, by the class of the tokenizer and by `model_type`.
const SENTENCEPIECE_CLASSES: [&str; 6] = [
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
    "GemmaTokenizer",
    "GemmaTokenizerFast",
];
const SENTENCEPIECE_MODELS: [&str; 7] = ["llama", "mistral", "phi3", "gemma", "gemma2", "gemma3", "gemma3_text"];

impl Tokenizer {
    /// Reads the tokenizer of a folder: `tokenizer.json`; where there is none, `tokenizer.model` (SentencePiece, of the Llama, Mistral and
    /// Gemma families) or `vocab.json` with `merges.txt` (byte-level BPE, of the GPT-2 and Qwen families), from which the same is built.
    ///
    /// Tokens that `tokenizer_config.json` adds are added. Special tokens come from `tokenizer_config.json`, else from
    /// `special_tokens_map.json`; a BOS or EOS that neither names comes from `config.json`, else from `generation_config.json` (GPT-2's
    /// folder on the hub is such a case). [`eos_ids`](Self::eos_ids) has every id that any of these names as an end of text. Where two
    /// files differ, or name what the vocabulary does not have, [`warnings`](Self::warnings) says so.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] when there is none of these files; [`Error::Tokenizer`] naming the file for malformed files, kinds of
    /// tokenizers that are not rebuilt from parts, or a BOS that is to be added but not there.
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut warnings = Vec::new();
        let files = SideFiles::read(dir, &mut warnings)?;
        let json = dir.join("tokenizer.json");
        let (path, mut inner, defaults) = if json.is_file() {
            let inner = read_json(&json)?;
            (json, inner, None)
        } else if let Some((path, inner, defaults)) = read_sentencepiece(dir, &files, &mut warnings)? {
            (path, inner, Some(defaults))
        } else if let Some((inner, defaults)) = vocab_merges::read(dir, &files)? {
            (dir.join("vocab.json"), inner, Some(defaults))
        } else {
            return Err(Error::NoTokenizer { path: json });
        };
        // The crate computes the id that a further token would get, also when none is added.
        if inner.get_added_tokens_decoder().contains_key(&u32::MAX) {
            return Err(unusable(&path, format!("an added token has id {}, the last that there is", u32::MAX)));
        }
        added::add(&files, &mut inner, &mut warnings)?;
        let rebuilt = defaults.is_some();
        let special = roles::special_tokens(&files, &inner, &defaults.unwrap_or_default(), &mut warnings)?;
        if rebuilt {
            added::add_roles(&files, &mut inner, &special)?;
        }
        let tokenizer = Self::from_parts(inner, special).map_err(|e| match e {
            Error::Tokenizer { path: None, reason } => unusable(&path, reason),
            other => other,
        })?;
        Ok(tokenizer.with_warnings(warnings))
    }
}

fn read_json(path: &Path) -> Result<tokenizers::Tokenizer> {
    let bytes = bounded(path, MAX_TOKENIZER_BYTES)?;
    json::check(&bytes).map_err(|reason| unusable(path, reason))?;
    caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|reason| unusable(path, reason))
}

type Rebuilt = (PathBuf, tokenizers::Tokenizer, RoleDefaults);

/// `tokenizer.model`, if there is one. Classes that number its pieces otherwise (XLM-RoBERTa's) are refused.
fn read_sentencepiece(dir: &Path, files: &SideFiles, warnings: &mut Vec<LoadWarning>) -> Result<Option<Rebuilt>> {
    let path = dir.join("tokenizer.model");
    if !path.is_file() {
        return Ok(None);
    }
    let (class, model_type) = (files.tokenizer_class()?, files.config.text("model_type")?);
    let known = match (class, model_type) {
        (Some(class), _) => SENTENCEPIECE_CLASSES.contains(&class),
        (None, Some(model_type)) => SENTENCEPIECE_MODELS.contains(&model_type),
        // No class and no model_type: use the SentencePiece model as it is.
        (None, None) => true,
    };
    if !known {
        let (key, found, expected) = match class {
            Some(class) => ("tokenizer_class", class, SENTENCEPIECE_CLASSES.join(", ")),
            None => ("model_type", model_type.unwrap_or_default(), SENTENCEPIECE_MODELS.join(", ")),
        };
        let reason = format!(
            "{key} is {found}, expected {expected}: the tokenizers of others are not rebuilt from this file; save the tokenizer with a \
             tokenizer.json"
        );
        return Err(unusable(&path, reason));
    }
    let config = &files.tokenizer_config;
    if config.flag("legacy")? == Some(false) {
        let reason = "a text behind a special token begins with a space here too, as with `legacy: true`".into();
        warnings.push(LoadWarning::Ignored { file: config.name(), key: Some("legacy".into()), reason });
    }
    let bytes = bounded(&path, MAX_TOKENIZER_BYTES)?;
    let prefix = config.flag("add_prefix_space")?;
    let model = sentencepiece::read(&bytes, prefix).map_err(|reason| unusable(&path, reason))?;
    let text = |id: Option<u32>| id.and_then(|id| model.tokenizer.id_to_token(id));
    let defaults = RoleDefaults {
        bos: text(model.bos),
        eos: text(model.eos),
        pad: text(model.pad),
        unk: text(Some(model.unk)),
        adds_bos: (class.is_some() || model_type.is_some()).then_some(model.bos.is_some()),
    };
    Ok(Some((path, model.tokenizer, defaults)))
}

/// The ids that end a text by a folder's configurations, for a model without a tokenizer.
pub(crate) fn eos_ids_of_folder(dir: &Path) -> Result<BTreeSet<u32>> {
    Ok(roles::eos_ids(&SideFiles::read(dir, &mut Vec::new())?))
}
