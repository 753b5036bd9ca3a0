use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;
use tensor_files::read_bounded;

/// Configurations are a few kilobytes; more than this is not one.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// A JSON object whose keys are taken out one after another, so that what is left over is known.
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    /// Put before key names in errors, such as `metadata.`.
    pub(crate) prefix: &'static str,
    pub(crate) map: Map<String, Value>,
}

/// Reads a file that must hold one JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let not_json = |reason: String| Error::NotJson { path: path.to_path_buf(), reason };
    match serde_json::from_slice(&read_bounded(path, MAX_JSON_BYTES).map_err(io)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(not_json(format!("the file holds {}", kind(&other)))),
        Err(error) => Err(not_json(error.to_string())),
    }
}

impl Keys<'_> {
    /// Takes a key's value; null counts as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A whole number that is not negative; `8.0` counts as 8, as Python writes it.
    pub(crate) fn count(&mut self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number, not negative", as_count)
    }

    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>> {
        self.read(key, "an object", |value| value.as_object().cloned())
    }

    pub(crate) fn require<T>(&self, key: &str, expected: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::MissingKey { path: self.path.to_path_buf(), key: self.name(key), expected })
    }

    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| self.bad(key, expected, &value))
    }

    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>, found: &Value) -> Error {
        let mut found = found.to_string();
        if found.chars().count() > 80 {
            found = found.chars().take(80).chain("...".chars()).collect();
        }
        Error::BadKey { path: self.path.to_path_buf(), key: self.name(key), expected: expected.into(), found }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

pub(crate) fn as_count(value: &Value) -> Option<usize> {
    let whole = |f: &f64| *f >= 0.0 && *f < 9e15 && f.fract() == 0.0;
    let number = value.as_u64().or_else(|| value.as_f64().filter(whole).map(|f| f as u64))?;
    usize::try_from(number).ok()
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
