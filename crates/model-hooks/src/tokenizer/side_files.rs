//! The small JSON files beside a tokenizer.

use crate::{Error, LoadWarning, Result};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tensor_files::read_bounded;

/// Larger files are refused, or not used.
const MAX_SIDE_BYTES: u64 = 16 << 20;

/// The object in a file; empty where there is no such file.
pub(super) struct SideFile {
    pub path: PathBuf,
    pub keys: Map<String, Value>,
}

impl SideFile {
    /// Its name, for warnings.
    pub fn name(&self) -> String {
        file_name(&self.path)
    }

    /// A value that is present and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// A text that may be absent or null.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(unusable(&self.path, format!("{key} is {other}, expected a text"))),
        }
    }

    /// A truth value that may be absent or null.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(unusable(&self.path, format!("{key} is {other}, expected true or false"))),
        }
    }
}

/// The files of a folder that describe its tokenizer, beside the tokenizer itself.
pub(super) struct SideFiles {
    /// `tokenizer_config.json`.
    pub tokenizer_config: SideFile,
    /// `special_tokens_map.json`.
    pub special_tokens_map: SideFile,
    /// `added_tokens.json`, of older folders.
    pub added_tokens: SideFile,
    /// `config.json`.
    pub config: SideFile,
    /// `generation_config.json`.
    pub generation_config: SideFile,
}

/// Classes that can be any kind of tokenizer.
const ANY_CLASS: [&str; 4] =
    ["PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend"];

impl SideFiles {
    /// The kind of tokenizer that `tokenizer_config.json` names, if it does.
    pub fn tokenizer_class(&self) -> Result<Option<&str>> {
        Ok(self.tokenizer_config.text("tokenizer_class")?.filter(|class| !ANY_CLASS.contains(class)))
    }

    /// Reads them. Tokenizer files must parse; a damaged config.json or generation_config.json is a warning.
    pub fn read(dir: &Path, warnings: &mut Vec<LoadWarning>) -> Result<Self> {
        Ok(Self {
            tokenizer_config: strict(dir, "tokenizer_config.json")?,
            special_tokens_map: strict(dir, "special_tokens_map.json")?,
            added_tokens: strict(dir, "added_tokens.json")?,
            config: lenient(dir, "config.json", warnings),
            generation_config: lenient(dir, "generation_config.json", warnings),
        })
    }
}

fn strict(dir: &Path, file: &str) -> Result<SideFile> {
    let path = dir.join(file);
    let keys = match bounded(&path, MAX_SIDE_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| unusable(&path, e.to_string()))?,
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(error),
    };
    Ok(SideFile { path, keys })
}

fn lenient(dir: &Path, file: &str, warnings: &mut Vec<LoadWarning>) -> SideFile {
    let path = dir.join(file);
    let read = read_bounded(&path, MAX_SIDE_BYTES).map_err(|e| (e.kind() == ErrorKind::NotFound, e.to_string()));
    let keys = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| (false, e.to_string())));
    let keys = keys.unwrap_or_else(|(absent, reason)| {
        if !absent {
            warnings.push(LoadWarning::Ignored { file: file.into(), key: None, reason });
        }
        Map::new()
    });
    SideFile { path, keys }
}

/// The bytes of a regular file of bounded size, also if it grows meanwhile; a link to a device has no end.
pub(super) fn bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_bounded(path, most).map_err(|source| match source.kind() {
        ErrorKind::FileTooLarge | ErrorKind::InvalidInput => {
            unusable(path, format!("{source}, expected a file of at most {most} bytes"))
        }
        _ => Error::Io { path: path.into(), source },
    })
}

pub(super) fn unusable(path: &Path, reason: String) -> Error {
    Error::Tokenizer { path: Some(path.into()), reason }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
