//! A tokenizer from a Hugging Face folder: `tokenizer.json`, and the special tokens from the small files beside it.

use super::{SpecialTokens, Tokenizer, caught, patterns};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Larger files are refused. The largest published ones have 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 1 << 28;
/// Larger files beside it are refused.
const MAX_BESIDE_BYTES: u64 = 16 << 20;

const ROLES: [&str; 7] = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder. Special tokens come from `tokenizer_config.json` and `special_tokens_map.json`; a BOS
    /// or EOS that neither names comes from `config.json` or `generation_config.json` (GPT-2's folder on the hub is such a case).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] when there is no `tokenizer.json`; [`Error::Tokenizer`] naming the file for malformed files, a
    /// special token that the vocabulary lacks, or two files that name different BOS tokens.
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::NoTokenizer { path });
        }
        let bytes = read_bounded(&path, MAX_TOKENIZER_BYTES)?;
        patterns::check(&bytes).map_err(|reason| unusable(&path, reason))?;
        let inner = caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|reason| unusable(&path, reason))?;
        let special = Folder { dir, inner: &inner }.special_tokens()?;
        Self::from_parts(inner, special).map_err(|e| match e {
            Error::Tokenizer { path: None, reason } => unusable(&path, reason),
            other => other,
        })
    }
}

/// The bytes of a regular file of bounded size: a link to a device has no end.
fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.into(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > most {
        return Err(unusable(path, format!("{} bytes, expected a file of at most {most}", metadata.len())));
    }
    std::fs::read(path).map_err(io)
}

fn unusable(path: &Path, reason: String) -> Error {
    Error::Tokenizer { path: Some(path.into()), reason }
}

struct Folder<'a> {
    dir: &'a Path,
    inner: &'a tokenizers::Tokenizer,
}

/// An id and the place that named it.
type Named = Option<(u32, String)>;

impl Folder<'_> {
    fn special_tokens(&self) -> Result<SpecialTokens> {
        let mut special = SpecialTokens::default();
        let mut named: [Named; ROLES.len()] = Default::default();
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            let (path, object) = self.read(file)?;
            for (role, slot) in ROLES.into_iter().zip(&mut named) {
                let Some(id) = self.token(&path, role, object.get(role))? else { continue };
                special.others.insert(id);
                agree(&path, role, slot, id, role == "bos_token")?;
            }
            for token in object.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten() {
                special.others.extend(self.token(&path, "additional_special_tokens", Some(token))?);
            }
            match object.get("add_bos_token") {
                None | Some(Value::Null) => {}
                Some(Value::Bool(add)) => special.adds_bos = Some(*add),
                Some(other) => {
                    return Err(unusable(&path, format!("add_bos_token is {other}, expected true or false")));
                }
            }
        }
        for file in ["config.json", "generation_config.json"] {
            let (path, object) = self.read(file)?;
            for (role, key, slot) in [(0, "bos_token_id"), (1, "eos_token_id")].map(|(i, key)| (i, key, i)) {
                for id in token_ids(&path, key, object.get(key))? {
                    if self.inner.id_to_token(id).is_none() {
                        return Err(unusable(&path, format!("{key} {id} is not in the vocabulary of tokenizer.json")));
                    }
                    special.others.insert(id);
                    agree(&path, key, &mut named[slot], id, role == 0)?;
                }
            }
        }
        let [bos, eos, pad, unk, sep, cls, mask] = named.map(|n| n.map(|(id, _)| id));
        for id in [bos, eos, pad, unk, sep, cls, mask].iter().flatten() {
            special.others.remove(id);
        }
        Ok(SpecialTokens { bos, eos, pad, unk, sep, cls, mask, ..special })
    }

    /// The object in a file; empty when there is no such file.
    fn read(&self, file: &str) -> Result<(PathBuf, Map<String, Value>)> {
        let path = self.dir.join(file);
        let bytes = match read_bounded(&path, MAX_BESIDE_BYTES) {
            Ok(bytes) => bytes,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok((path, Map::new()));
            }
            Err(error) => return Err(error),
        };
        let object = serde_json::from_slice(&bytes).map_err(|e| unusable(&path, e.to_string()))?;
        Ok((path, object))
    }

    /// The id of a token given as text or as `{"content": text, ..}`.
    fn token(&self, path: &Path, key: &str, value: Option<&Value>) -> Result<Option<u32>> {
        let text = match value {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(other) => match other.get("content").and_then(Value::as_str) {
                Some(text) => text,
                None => {
                    return Err(unusable(
                        path,
                        format!("{key} is {other}, expected a text or an object with `content`"),
                    ));
                }
            },
        };
        match self.inner.token_to_id(text) {
            Some(id) => Ok(Some(id)),
            None => Err(unusable(path, format!("{key} `{text}` is not in the vocabulary of tokenizer.json"))),
        }
    }
}

/// The first place that names a role wins; `strict` roles must be named alike everywhere.
fn agree(path: &Path, key: &str, slot: &mut Named, id: u32, strict: bool) -> Result<()> {
    let here = || format!("{key} of {}", path.file_name().unwrap_or_default().to_string_lossy());
    match slot {
        None => *slot = Some((id, here())),
        Some((first, place)) if strict && *first != id => {
            return Err(unusable(path, format!("{key} is token {id}, but {place} is token {first}")));
        }
        Some(_) => {}
    }
    Ok(())
}

/// One id, a list of ids, or none.
fn token_ids(path: &Path, key: &str, value: Option<&Value>) -> Result<Vec<u32>> {
    let id = |v: &Value| {
        let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| unusable(path, format!("{key} is {v}, expected a token id")))
    };
    match value {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => Ok(vec![id(one)?]),
    }
}
