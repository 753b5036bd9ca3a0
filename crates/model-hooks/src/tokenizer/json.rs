//! Checks of a `tokenizer.json` before it is passed to the `tokenizers` crate, which does not validate it.

use super::{patterns, precompiled};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The parts of the file that are checked. What else it holds, most of it by far, is passed over.
#[derive(Deserialize)]
struct Parts {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Option<Prefix>,
}

#[derive(Deserialize)]
struct Prefix {
    continuing_subword_prefix: Option<String>,
}

/// Read for the few files whose prefix is not empty.
#[derive(Deserialize)]
struct WithMerges {
    model: Merges,
}

#[derive(Deserialize)]
struct Merges {
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(IgnoredAny, String),
    Line(String),
}

impl Merge {
    fn second(&self) -> Option<&str> {
        match self {
            Self::Pair(_, second) => Some(second),
            Self::Line(line) if line.starts_with("#version") => None,
            Self::Line(line) => line.split_once(' ').map(|(_, second)| second),
        }
    }
}

/// Refuses malformed compiled rules, expensive patterns, and merges that lack the model's prefix. Of a file that is damaged further on, too: its parts are used as they come.
pub(super) fn check(tokenizer: &[u8]) -> Result<(), String> {
    let parts: Parts = serde_json::from_slice(tokenizer).map_err(|error| error.to_string())?;
    parts.normalizer.iter().try_for_each(precompiled::check)?;
    let steps = [parts.normalizer, parts.pre_tokenizer, parts.post_processor, parts.decoder];
    patterns::check(&steps.into_iter().flatten().collect::<Vec<_>>())?;
    match parts.model.and_then(|model| model.continuing_subword_prefix) {
        Some(prefix) if !prefix.is_empty() => check_merges(tokenizer, &prefix),
        _ => Ok(()),
    }
}

/// The `tokenizers` crate cuts the length of the prefix off the second token of each merge without comparing the bytes, and takes the rest for UTF-8 without a
/// check.
fn check_merges(tokenizer: &[u8], prefix: &str) -> Result<(), String> {
    let WithMerges { model } = serde_json::from_slice(tokenizer).map_err(|error| error.to_string())?;
    match model.merges.iter().filter_map(Merge::second).find(|second| !second.starts_with(prefix)) {
        Some(second) => {
            let shown: String = second.chars().take(40).collect();
            Err(format!(
                "it merges {shown:?}, expected tokens that begin with its continuing_subword_prefix {prefix:?}"
            ))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_have_the_prefix() {
        let check = |prefix: &str, merges: &str| {
            check(format!(r#"{{"model":{{"continuing_subword_prefix":{prefix},"merges":{merges}}}}}"#).as_bytes())
        };
        for (prefix, merges) in [
            ("null", r#"["a b"]"#),
            (r#""""#, r#"["a b"]"#),
            (r#""x""#, r##"["#version: 0.2", "a xb", "c x"]"##),
            (r#""x""#, r#"[["a", "xb"]]"#),
        ] {
            assert_eq!(check(prefix, merges), Ok(()), "{prefix} {merges}");
        }
        // One byte of a character of two; a token that is shorter than the prefix.
        for merges in [r#"["a éb"]"#, r#"[["a", "é"]]"#, r#"[["a", ""]]"#] {
            assert!(check(r#""x""#, merges).unwrap_err().contains("continuing_subword_prefix \"x\""));
        }
        assert_eq!(super::check(br#"{"model":{"continuing_subword_prefix":"x"}}"#), Ok(()));
        assert_eq!(super::check(b"{}"), Ok(()));
    }
}
