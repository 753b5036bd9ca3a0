//! Where a chat template is: beside a tokenizer, or in a GGUF file.

use super::{ChatTemplate, MAX_TEMPLATE_BYTES, fail};
use crate::gguf::GgufFile;
use crate::{Error, Result, Tokenizer};
use serde_json::Value;
use std::path::Path;

/// Larger files are refused.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
const GGUF_KEY: &str = "tokenizer.chat_template";

impl ChatTemplate {
    /// The template that comes with a model, as transformers finds it: `chat_template.jinja` of its folder, else `chat_template` of
    /// `chat_template.json` or `tokenizer_config.json` (a text, or a list of named ones of which `default` is taken); of a GGUF file
    /// `tokenizer.chat_template`. `None` where there is none.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] naming the file for one that cannot be read or is no template.
    pub fn find(model: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        if !model.is_dir() {
            if !model.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
                return Ok(None);
            }
            let file = GgufFile::open(model)?;
            let template = file.string(GGUF_KEY)?;
            return template.map(|template| Self::with_tokenizer(template, tokenizer)).transpose().map_err(at(model));
        }
        let path = model.join("chat_template.jinja");
        if path.exists() {
            return Self::open(&path, tokenizer).map(Some);
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let path = model.join(name);
            if !path.exists() {
                continue;
            }
            let text = read(&path, MAX_CONFIG_BYTES)?;
            let config: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string())).map_err(at(&path))?;
            if let Some(template) = chosen(config.get("chat_template")).map_err(at(&path))? {
                return Self::with_tokenizer(template, tokenizer).map(Some).map_err(at(&path));
            }
        }
        Ok(None)
    }

    /// A template in a file of its own: the text of a template, or JSON with a `chat_template`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] naming the file for one that cannot be read or is no template.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if !is_json {
            let text = read(path, MAX_TEMPLATE_BYTES as u64)?;
            return Self::with_tokenizer(&text, tokenizer).map_err(at(path));
        }
        let text = read(path, MAX_CONFIG_BYTES)?;
        let config: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string())).map_err(at(path))?;
        let template = chosen(config.get("chat_template")).map_err(at(path))?;
        let template = template.ok_or_else(|| fail("has no `chat_template`")).map_err(at(path))?;
        Self::with_tokenizer(template, tokenizer).map_err(at(path))
    }
}

fn at(path: &Path) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::ChatTemplate { path: None, reason } => Error::ChatTemplate { path: Some(path.into()), reason },
        other => other,
    }
}

/// The text of a regular file of bounded size.
fn read(path: &Path, most: u64) -> Result<String> {
    let io = |source| Error::Io { path: path.into(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > most {
        let reason = format!("{} bytes, expected a file of at most {most}", metadata.len());
        return Err(Error::ChatTemplate { path: Some(path.into()), reason });
    }
    let bytes = std::fs::read(path).map_err(io)?;
    String::from_utf8(bytes).map_err(|_| fail("not UTF-8")).map_err(at(path))
}

/// One template of those that a configuration has.
fn chosen(value: Option<&Value>) -> Result<Option<&str>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template)),
        Some(Value::Array(list)) => {
            let text = |entry: &'_ Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
            let default = list.iter().find(|entry| text(entry, "name").as_deref() == Some("default"));
            match default.and_then(|entry| entry.get("template")).and_then(Value::as_str) {
                Some(template) => Ok(Some(template)),
                None => {
                    let names: Vec<String> = list.iter().filter_map(|entry| text(entry, "name")).take(12).collect();
                    Err(fail(format!("chat_template has no template named `default`, it has {names:?}")))
                }
            }
        }
        Some(other) => Err(fail(format!("chat_template is {other}, expected a text or a list of named texts"))),
    }
}

/// Some templates mark what the assistant wrote (`{% generation %}`), which changes nothing of the text. The engine has no such
/// tag: a condition that always holds is in its place.
pub(super) fn without_generation_tags(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match inner {
            "generation" => out.push_str(&tag.replace(inner, "if true")),
            "endgeneration" => out.push_str(&tag.replace(inner, "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_are_replaced() {
        let template = "{%- generation -%}{{ generation }} {% if generation %}{%+ endgeneration %} generation {% x";
        let expected = "{%- if true -%}{{ generation }} {% if generation %}{%+ endif %} generation {% x";
        assert_eq!(without_generation_tags(template), expected);
    }
}
