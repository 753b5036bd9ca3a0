//! The index of a model in several files.

use crate::read_bounded;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Larger ones are refused; the largest published have a few MB.
const MOST_BYTES: u64 = 100 << 20;

/// Reads the `weight_map` of a `model.safetensors.index.json`: tensors and the files that hold them. `None` where it has none.
///
/// Names of files are as they stand there: it is the caller who makes paths of them, and must see that they stay in the folder.
///
/// # Errors
/// As [`read_bounded`]; [`ErrorKind::InvalidData`] for what is not JSON, a map of something else than texts, a tensor that is named twice.
pub fn read_weight_map(path: impl AsRef<Path>) -> Result<Option<BTreeMap<String, String>>> {
    let text = read_bounded(path, MOST_BYTES)?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    Ok(index.weight_map.map(|map| map.0))
}

/// The keys of an index that are read. Others take no memory.
#[derive(Deserialize)]
struct Index {
    weight_map: Option<Once>,
}

struct Once(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(value: D) -> std::result::Result<Self, D::Error> {
        value.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Once;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensor names and file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Once, A::Error> {
        let mut names = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains_key(&name) {
                map.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!("tensor `{name}` appears twice")));
            }
            let file = map.next_value()?;
            names.insert(name, file);
        }
        Ok(Once(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<BTreeMap<String, String>>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("x"), text)?;
        read_weight_map(dir.path().join("x"))
    }

    #[test]
    fn each_tensor_once_and_files_as_text() {
        let map = read(r#"{"metadata": {"total": [1, {}]}, "weight_map": {"a": "x", "b": "x"}}"#).unwrap().unwrap();
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("a".into(), "x".into()), ("b".into(), "x".into())]);
        assert_eq!(read("{}").unwrap(), None);
        for (text, said) in [
            (r#"{"weight_map": {"a": "x", "b": "y", "a": "z"}}"#, "`a` appears twice"),
            (r#"{"weight_map": {"a": "x", "\u0061": "x"}}"#, "`a` appears twice"),
            (r#"{"weight_map": {"a": 7}}"#, "expected a string"),
            (r#"{"weight_map": ["a"]}"#, "an object of tensor names"),
            (r#"{"weight_map": {"a": "x""#, "EOF"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }
}
