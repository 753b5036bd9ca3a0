//! A configuration in Hugging Face's words: every key that is read is checked, and an error names the file, the key, what was
//! expected and what was found. It comes from a `config.json`, or from the header of a GGUF file, whose own keys are then named.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::ops::Activation;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensor_files::read_bounded;

/// Configurations above this are refused; real ones have a few kilobytes (a few megabytes with label tables).
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The largest size that a configuration may state. Far above any model, and products of two stay inside 64 bits.
const MAX_SIZE: u64 = 1 << 28;

/// A JSON object with the path that its errors name.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    path: PathBuf,
    prefix: String,
    keys: Map<String, Value>,
    origins: Arc<Origins>,
}

/// Origins of words (`rope_parameters.factor`) that do not come from a `config.json`.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// Origin of a word.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The key of the file.
    pub key: String,
    /// The value under that key, if there is one.
    pub found: Option<String>,
}

impl Config {
    /// As if read from a file `config.json`.
    #[cfg(test)]
    pub(crate) fn of(keys: &Value) -> Self {
        Self::from_words(Path::new("config.json"), keys.as_object().cloned().unwrap_or_default(), Origins::new())
    }

    /// Words that were put together from another kind of file.
    pub(crate) fn from_words(path: &Path, keys: Map<String, Value>, origins: Origins) -> Self {
        Self { path: path.into(), prefix: String::new(), keys, origins: Arc::new(origins) }
    }

    /// Reads a file that must hold one JSON object.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.into(), source };
        let text = read_bounded(path, MAX_CONFIG_BYTES).map_err(io)?;
        match serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.into(), source })? {
            Value::Object(keys) => Ok(Self::from_words(path, keys, Origins::new())),
            _ => Err(Error::NotAModel { path: path.into(), reason: "the configuration is not a JSON object" }),
        }
    }

    /// A value that is present and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A required size from 1 to 2^28.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a positive whole number"))
    }

    /// A size that may be absent or null.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n @ 1..=MAX_SIZE) => Ok(Some(n as usize)),
            _ => Err(self.bad(key, "a whole number from 1 to 2^28")),
        }
    }

    /// A required number of blocks: hook points count them in 16 bits.
    pub(crate) fn layers(&self, key: &str) -> Result<usize> {
        let layers = self.size(key)?;
        if layers > usize::from(u16::MAX) { Err(self.bad(key, "at most 65535 layers")) } else { Ok(layers) }
    }

    /// A required number of heads that share the width under `of` evenly, and the width of each.
    pub(crate) fn heads(&self, key: &str, of: &str) -> Result<(usize, usize)> {
        let (heads, width) = (self.size(key)?, self.size(of)?);
        if width % heads != 0 {
            return Err(self.bad(key, &format!("a divisor of {of} = {width}")));
        }
        Ok((heads, width / heads))
    }

    /// A finite number above zero; `default` where the family defines one.
    pub(crate) fn positive(&self, key: &str, default: Option<f64>) -> Result<f64> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, "a positive number")),
            (Some(value), _) => match value.as_f64() {
                // Computed with in f32, where it must be neither 0 nor infinite.
                Some(x) if x > 0.0 && (x as f32).is_normal() => Ok(x),
                _ => Err(self.bad(key, "a finite positive number")),
            },
        }
    }

    /// Refuses two spellings of one thing that say different things.
    pub(crate) fn refuse_both(&self, new: &str, old: &str) -> Result<()> {
        match self.get(new) {
            Some(value) => self.refuse_unless(old, value, &format!("absent beside {new}, or the same")),
            None => Ok(()),
        }
    }

    /// As [`positive`](Self::positive), where absence and null mean that there is none.
    pub(crate) fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        if self.has(key) { self.positive(key, None).map(Some) } else { Ok(None) }
    }

    /// A whole number from 0 to 2^28 with the family's default.
    pub(crate) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key).map(Value::as_u64) {
            None => Ok(default),
            Some(Some(n @ 0..=MAX_SIZE)) => Ok(n as usize),
            Some(_) => Err(self.bad(key, "a whole number from 0 to 2^28")),
        }
    }

    /// A truth value with the family's default.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(key, "true or false")),
        }
    }

    /// A text that may be absent.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.bad(key, "a text")),
        }
    }

    /// A list that may be absent.
    pub(crate) fn list(&self, key: &str) -> Result<Option<&[Value]>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_array().map(|list| Some(&list[..])).ok_or_else(|| self.bad(key, "a list")),
        }
    }

    /// A list of texts that may be absent.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let texts: Option<_> = list.iter().map(Value::as_str).collect();
        texts.map(Some).ok_or_else(|| self.bad(key, "a list of texts"))
    }

    /// The same with a family's values for keys that are absent. A key that is null says that there is no such thing, and stays.
    pub(crate) fn with_defaults<const N: usize>(&self, defaults: [(&str, Value); N]) -> Self {
        let mut filled = self.clone();
        for (key, value) in defaults {
            filled.keys.entry(key).or_insert(value);
        }
        filled
    }

    /// The non-linearity under `key`; `default` is the family's own.
    pub(crate) fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        Activation::parse(name).ok_or_else(|| self.bad(key, Activation::KNOWN))
    }

    /// An object inside, whose errors name `key.inner`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(keys)) => {
                let (path, prefix) = (self.path.clone(), format!("{}{key}.", self.prefix));
                Ok(Some(Self { path, prefix, keys: keys.clone(), origins: self.origins.clone() }))
            }
            Some(_) => Err(self.bad(key, "an object")),
        }
    }

    /// Refuses a key that is present with another value than `harmless` (absent and null are harmless too).
    pub(crate) fn refuse_unless(&self, key: &str, harmless: &Value, expected: &str) -> Result<()> {
        match self.get(key) {
            Some(value) if value != harmless => Err(self.bad(key, expected)),
            _ => Ok(()),
        }
    }

    /// The numbers under a key that must be there.
    pub(crate) fn numbers(&self, key: &str, expected: &str) -> Result<Vec<f64>> {
        let list = self.list(key)?.ok_or_else(|| self.missing(key, expected))?;
        list.iter().map(Value::as_f64).collect::<Option<_>>().ok_or_else(|| self.bad(key, expected))
    }

    /// A key under the name that it has in the file, and where it came from.
    fn origin(&self, key: &str) -> (String, Option<&Origin>) {
        let word = format!("{}{key}", self.prefix);
        let origin = self.origins.get(&word);
        (origin.map_or(word, |origin| origin.key.clone()), origin)
    }

    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::MissingKey { path: self.path.clone(), key: self.origin(key).0, expected: expected.into() }
    }

    pub(crate) fn bad(&self, key: &str, expected: &str) -> Error {
        let (name, origin) = self.origin(key);
        let mut found = match origin {
            Some(origin) => origin.found.clone().unwrap_or_else(|| "absent".into()),
            None => self.keys.get(key).map_or("absent".into(), ToString::to_string),
        };
        if found.len() > 80 {
            found = format!("{} ...", found.chars().take(76).collect::<String>());
        }
        Error::BadKey { path: self.path.clone(), key: name, expected: expected.into(), found }
    }
}
