//! Roles of tokens, from the small files beside a tokenizer.

use super::SpecialTokens;
use super::side_files::{SideFile, SideFiles, unusable};
use crate::{LoadWarning, Result};
use serde_json::Value;
use std::collections::BTreeSet;

const ROLES: [&str; 7] = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];
const BOS: usize = 0;
const EOS: usize = 1;

/// The roles that a kind of tokenizer gives to tokens when no file says anything else.
#[derive(Clone, Debug, Default)]
pub(super) struct RoleDefaults {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
    pub adds_bos: Option<bool>,
}

/// An id and the file that named it.
type Named = Option<(u32, String)>;

struct Roles<'a> {
    inner: &'a tokenizers::Tokenizer,
    vocab_size: usize,
    warnings: &'a mut Vec<LoadWarning>,
}

/// The special tokens of a folder: by `tokenizer_config.json`, else `special_tokens_map.json`, else what the kind of tokenizer has; a BOS
/// or EOS that none of these names by `config.json`, else `generation_config.json`. All ids that end a text are collected.
pub(super) fn special_tokens(
    files: &SideFiles,
    inner: &tokenizers::Tokenizer,
    defaults: &RoleDefaults,
    warnings: &mut Vec<LoadWarning>,
) -> Result<SpecialTokens> {
    let vocab_size = inner.get_vocab_size(true);
    Roles { inner, vocab_size, warnings }.find(files, defaults)
}

impl Roles<'_> {
    fn find(mut self, files: &SideFiles, defaults: &RoleDefaults) -> Result<SpecialTokens> {
        let mut special = SpecialTokens { adds_bos: defaults.adds_bos, ..SpecialTokens::default() };
        let mut named: [Named; ROLES.len()] = Default::default();
        for file in [&files.tokenizer_config, &files.special_tokens_map] {
            for (role, slot) in ROLES.into_iter().zip(&mut named) {
                let Some(id) = self.token(file, role, file.get(role))? else { continue };
                special.others.insert(id);
                self.agree(file, role, slot, &[id]);
            }
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                for token in listed(file.get(key)) {
                    special.others.extend(self.token(file, key, Some(token))?);
                }
            }
            special.adds_bos = file.flag("add_bos_token")?.or(special.adds_bos);
            if file.flag("add_eos_token")? == Some(true) {
                let reason = "no EOS is put behind texts here".into();
                self.warnings.push(LoadWarning::Ignored {
                    file: file.name(),
                    key: Some("add_eos_token".into()),
                    reason,
                });
            }
        }
        let config = &files.tokenizer_config;
        if special.adds_bos == Some(true) && named[BOS].is_none() && config.get("bos_token").is_some() {
            let reason = "add_bos_token is true, but bos_token is not in the vocabulary: there is no BOS to add";
            return Err(unusable(&config.path, reason.into()));
        }
        let defaults = [&defaults.bos, &defaults.eos, &defaults.pad, &defaults.unk];
        for ((role, slot), default) in ROLES.into_iter().zip(&mut named).zip(defaults) {
            let silent = !files.tokenizer_config.keys.contains_key(role);
            if let (Some(token), None, true) = (default, &slot, silent) {
                *slot = self.inner.token_to_id(token).map(|id| (id, "the kind of tokenizer".into()));
            }
        }
        special.eos_ids.extend(named[EOS].as_ref().map(|(id, _)| *id));
        for file in [&files.config, &files.generation_config] {
            self.ids(file, "bos_token", &mut named[BOS], &mut special.others);
            special.eos_ids.extend(self.ids(file, "eos_token", &mut named[EOS], &mut special.others));
        }
        let [bos, eos, pad, unk, sep, cls, mask] = named.map(|n| n.map(|(id, _)| id));
        for id in [bos, eos, pad, unk, sep, cls, mask].iter().flatten() {
            special.others.remove(id);
        }
        Ok(SpecialTokens { bos, eos, pad, unk, sep, cls, mask, ..special })
    }

    /// The id of a token given as text or as `{"content": text, ..}`.
    fn token(&mut self, file: &SideFile, key: &str, value: Option<&Value>) -> Result<Option<u32>> {
        let Some(value) = value else { return Ok(None) };
        let Some(text) = value.as_str().or_else(|| value.get("content").and_then(Value::as_str)) else {
            let expected = "expected a text or an object with `content`";
            return Err(unusable(&file.path, format!("{key} is {value}, {expected}")));
        };
        let id = self.inner.token_to_id(text);
        if id.is_none() {
            self.absent(file, key, format!("`{text}`"));
        }
        Ok(id)
    }

    /// The ids under `{role}_id`, of which the vocabulary's are special tokens and the first may have the role.
    fn ids(&mut self, file: &SideFile, role: &str, slot: &mut Named, others: &mut BTreeSet<u32>) -> Vec<u32> {
        let key = format!("{role}_id");
        let (ids, bad) = ids_of(file, &key);
        for found in bad {
            let reason = format!("it is {found}, expected a token id or a list of them");
            self.warnings.push(LoadWarning::Ignored { file: file.name(), key: Some(key.clone()), reason });
        }
        let (here, outside): (Vec<u32>, Vec<u32>) = ids.iter().partition(|&&id| self.inner.id_to_token(id).is_some());
        outside.iter().for_each(|id| self.absent(file, &key, id.to_string()));
        // Only added tokens become special; an ordinary end-of-text token (`.`) does not.
        let added = self.inner.get_added_tokens_decoder();
        others.extend(here.iter().filter(|id| added.contains_key(*id)));
        self.agree(file, role, slot, &here);
        ids
    }

    fn absent(&mut self, file: &SideFile, key: &str, found: String) {
        let vocab_size = self.vocab_size;
        self.warnings.push(LoadWarning::NotInVocabulary { file: file.name(), key: key.into(), found, vocab_size });
    }

    /// The first file that names a role wins.
    fn agree(&mut self, file: &SideFile, role: &str, slot: &mut Named, ids: &[u32]) {
        let Some(first) = ids.first() else { return };
        match slot {
            None => *slot = Some((*first, file.name())),
            Some((used, used_from)) if !ids.contains(used) => self.warnings.push(LoadWarning::TokensDiffer {
                role: role.into(),
                used: *used,
                used_from: used_from.clone(),
                others: ids.to_vec(),
                others_from: file.name(),
            }),
            Some(_) => {}
        }
    }
}

/// The ids that end a text by `config.json` and `generation_config.json`, for a model without a tokenizer.
pub(crate) fn eos_ids(files: &SideFiles) -> BTreeSet<u32> {
    [&files.config, &files.generation_config].into_iter().flat_map(|file| ids_of(file, "eos_token_id").0).collect()
}

/// The ids under a key, here or in the part of a configuration that is about text, and what is no id.
fn ids_of(file: &SideFile, key: &str) -> (Vec<u32>, Vec<String>) {
    let inside = file.get("text_config").and_then(|text| text.get(key)).filter(|value| !value.is_null());
    let values: &[Value] = match file.get(key).or(inside) {
        None => &[],
        Some(Value::Array(list)) => list,
        Some(one) => std::slice::from_ref(one),
    };
    let (mut ids, mut bad) = (Vec::new(), Vec::new());
    for value in values {
        match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => ids.push(id),
            None => bad.push(value.to_string().chars().take(80).collect()),
        }
    }
    (ids, bad)
}

/// Tokens in a list, or as the values of an object.
fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(Value::Object(named)) => named.values().collect(),
        _ => Vec::new(),
    }
}
