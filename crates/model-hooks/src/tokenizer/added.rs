//! Tokens that the files beside a tokenizer add to it.

use super::caught;
use super::side_files::{SideFile, SideFiles, unusable};
use crate::{LoadWarning, Result, SpecialTokens};
use serde_json::Value;
use std::collections::BTreeMap;
use tokenizers::AddedToken;

/// Adds what `added_tokens_decoder` of `tokenizer_config.json` has beyond the tokenizer, or where that is absent `added_tokens.json`; how a
/// token is found in a text is as `added_tokens_decoder` says, as in transformers. A token that would not get the id that the file gives it
/// is left out with a warning.
pub(super) fn add(files: &SideFiles, inner: &mut tokenizers::Tokenizer, warnings: &mut Vec<LoadWarning>) -> Result<()> {
    let config = &files.tokenizer_config;
    let says_how = config.get("added_tokens_decoder").is_some();
    let (file, tokens) = match config.get("added_tokens_decoder") {
        Some(Value::Object(by_id)) => (config, from_decoder(config, by_id)?),
        Some(other) => {
            return Err(unusable(&config.path, format!("added_tokens_decoder is {other}, expected an object")));
        }
        None => (&files.added_tokens, from_list(&files.added_tokens)?),
    };
    let (mut list, model_size) = (Vec::new(), inner.get_vocab_size(false) as u32);
    let last = inner.get_added_tokens_decoder().keys().copied().max();
    // The id that a further token would get.
    let mut next = last.map_or(model_size, |last| model_size.max(last.saturating_add(1)));
    for (id, token) in tokens {
        let held = inner.token_to_id(&token.content);
        if held == Some(id) || (held.is_none() && id == next) {
            next = next.saturating_add(u32::from(held.is_none()));
            if inner.get_added_tokens_decoder().get(&id).is_none_or(|known| says_how && *known != token) {
                list.push(token);
            }
        } else {
            let used = inner.id_to_token(id);
            warnings.push(LoadWarning::OtherToken { file: file.name(), id, used, found: token.content });
        }
    }
    insert(inner, list).map_err(|reason| unusable(&file.path, format!("its added tokens: {reason}")))
}

/// Makes tokens with a role special tokens, which are found in texts, where the tokenizer does not say so itself.
pub(super) fn add_roles(files: &SideFiles, inner: &mut tokenizers::Tokenizer, special: &SpecialTokens) -> Result<()> {
    let said = [&files.tokenizer_config, &files.special_tokens_map];
    let said: Vec<AddedToken> =
        said.iter().flat_map(|file| file.keys.values()).filter_map(|value| added(value, Some(true))).collect();
    let roles = [special.bos, special.eos, special.pad, special.unk, special.sep, special.cls, special.mask];
    let mut list: Vec<AddedToken> = Vec::new();
    for id in roles.into_iter().flatten() {
        let new = !inner.get_added_tokens_decoder().contains_key(&id);
        let Some(text) = inner.id_to_token(id).filter(|text| new && list.iter().all(|token| token.content != *text))
        else {
            continue;
        };
        let flags = said.iter().find(|token| token.content == text).cloned();
        list.push(flags.unwrap_or_else(|| AddedToken::from(text, true)).special(true).normalized(false));
    }
    insert(inner, list)
        .map_err(|reason| unusable(&files.tokenizer_config.path, format!("its special tokens: {reason}")))
}

fn insert(inner: &mut tokenizers::Tokenizer, list: Vec<AddedToken>) -> std::result::Result<(), String> {
    caught(|| inner.add_tokens(list)).map(drop)
}

/// `{"32000": {"content": "[PAD]", "special": true, ..}}`.
fn from_decoder(file: &SideFile, by_id: &serde_json::Map<String, Value>) -> Result<BTreeMap<u32, AddedToken>> {
    let token = |(id, value): (&String, &Value)| {
        let bad = |expected: &str| {
            unusable(&file.path, format!("added_tokens_decoder: token {id} is {value}, expected {expected}"))
        };
        let number = id.parse().map_err(|_| bad("a token id as its key"))?;
        Ok((number, added(value, None).ok_or_else(|| bad("an object with `content`"))?))
    };
    by_id.iter().map(token).collect()
}

/// `{"[PAD]": 32000}`.
fn from_list(file: &SideFile) -> Result<BTreeMap<u32, AddedToken>> {
    let token = |(text, id): (&String, &Value)| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let number =
            number.ok_or_else(|| unusable(&file.path, format!("token {text:?} is {id}, expected a token id")))?;
        Ok((number, AddedToken::from(text.as_str(), false)))
    };
    file.keys.iter().map(token).collect()
}

/// A token as text or as an object with `content` and flags; `special` where nothing else is said.
pub(super) fn added(value: &Value, special: Option<bool>) -> Option<AddedToken> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let text =
        value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).filter(|text| !text.is_empty())?;
    let special = flag("special").or(special).unwrap_or(false);
    let token = AddedToken::from(text, special);
    let (single_word, lstrip, rstrip) = (flag("single_word"), flag("lstrip"), flag("rstrip"));
    let normalized = flag("normalized").unwrap_or(!special);
    Some(
        token
            .single_word(single_word.unwrap_or(false))
            .lstrip(lstrip.unwrap_or(false))
            .rstrip(rstrip.unwrap_or(false))
            .normalized(normalized),
    )
}
