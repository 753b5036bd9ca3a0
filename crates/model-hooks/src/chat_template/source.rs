//! Locations of a chat template: beside a tokenizer, or in a GGUF file.

use super::{ChatTemplate, MAX_TEMPLATE_BYTES, fail};
use crate::gguf::GgufFile;
use crate::{Error, Result, Tokenizer};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Larger files are refused.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
const GGUF_KEY: &str = "tokenizer.chat_template";

/// The name of the template that is taken where none is named.
const DEFAULT: &str = "default";
/// Templates beside `chat_template.jinja`, and how many of them are read.
const ADDITIONAL: &str = "additional_chat_templates";
const MAX_ADDITIONAL: usize = 64;

impl ChatTemplate {
    /// The template that comes with a model, as transformers finds it: `chat_template.jinja` of its folder, else `chat_template` of
    /// `chat_template.json` or `tokenizer_config.json` (a text, or a list of named ones of which `default` is taken); of a GGUF file
    /// `tokenizer.chat_template`. `None` where there is none.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] naming the file for one that cannot be read or is no template.
    pub fn find(model: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        Self::find_named(model, DEFAULT, tokenizer)
    }

    /// The template of this name that comes with a model: `default`, `tool_use`, `rag`, or what its publisher calls it. Names are those of a list
    /// in `chat_template`, of the files `additional_chat_templates/NAME.jinja`, and of `tokenizer.chat_template.NAME` in a GGUF file. `None` where
    /// the model has no template at all.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for a name that is not there (it lists those that are), and naming the file for one that cannot be read or is no
    /// template.
    pub fn find_named(model: &Path, name: &str, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let (path, templates) = if model.is_dir() {
            of_folder(model)?
        } else if model.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
            (model.to_path_buf(), of_gguf(&GgufFile::open(model)?)?)
        } else {
            return Ok(None);
        };
        if templates.is_empty() {
            return Ok(None);
        }
        let template = named(&templates, name).map_err(at(&path))?;
        Self::with_tokenizer(template, tokenizer).map(Some).map_err(at(&path))
    }

    /// A template in a file of its own, which may be a pipe: the text of a template, or JSON with a `chat_template` (of several the one that is
    /// named `default`).
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] naming the file for one that cannot be read or is no template.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        Self::open_named(path, DEFAULT, tokenizer)
    }

    /// The template of this name in a file of JSON that has several, such as a `tokenizer_config.json`. The text of a template has no name but
    /// `default`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] naming the file for one that cannot be read or is no template, and for a name that is not there.
    pub fn open_named(path: &Path, name: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let text = read_any(path)?;
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let templates = match serde_json::from_str::<Value>(&text) {
            Ok(config) if is_json || config.is_object() => in_config(&config).map_err(at(path))?,
            Err(error) if is_json => return Err(at(path)(fail(error.to_string()))),
            _ => vec![(DEFAULT.into(), text)],
        };
        if templates.is_empty() {
            return Err(at(path)(fail("has no `chat_template`")));
        }
        let template = named(&templates, name).map_err(at(path))?;
        Self::with_tokenizer(template, tokenizer).map_err(at(path))
    }
}

/// Templates by name.
type Named = Vec<(String, String)>;

fn named<'t>(templates: &'t Named, name: &str) -> Result<&'t str> {
    let found = templates.iter().find(|(known, _)| known == name);
    let names = || templates.iter().map(|(name, _)| format!("`{name}`")).take(12).collect::<Vec<_>>().join(", ");
    let template = found.ok_or_else(|| fail(format!("no template is named `{name}`; there is {}", names())))?;
    if template.1.trim().is_empty() { Err(fail("the template is empty")) } else { Ok(&template.1) }
}

/// The templates of a model's folder, and where they are.
fn of_folder(model: &Path) -> Result<(PathBuf, Named)> {
    let (path, additional) = (model.join("chat_template.jinja"), model.join(ADDITIONAL));
    let mut templates = Vec::new();
    if path.exists() {
        templates.push((DEFAULT.to_string(), read(&path, MAX_TEMPLATE_BYTES as u64)?));
    }
    if additional.is_dir() {
        let io = |source| Error::Io { path: additional.clone(), source };
        let entries = std::fs::read_dir(&additional).map_err(io)?.take(MAX_ADDITIONAL);
        let mut files = entries.map(|entry| Ok(entry.map_err(io)?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "jinja")) {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            templates.push((name, read(file, MAX_TEMPLATE_BYTES as u64)?));
        }
    }
    if !templates.is_empty() {
        return Ok((if path.exists() { path } else { additional }, templates));
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = model.join(name);
        if !path.exists() {
            continue;
        }
        let text = read(&path, MAX_CONFIG_BYTES)?;
        let config: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string())).map_err(at(&path))?;
        let templates = in_config(&config).map_err(at(&path))?;
        if !templates.is_empty() {
            return Ok((path, templates));
        }
    }
    Ok((path, Vec::new()))
}

fn of_gguf(file: &GgufFile) -> Result<Named> {
    let mut templates = Vec::new();
    if let Some(template) = file.string(GGUF_KEY)? {
        templates.push((DEFAULT.to_string(), template.to_string()));
    }
    for name in file.strings("tokenizer.chat_templates")?.unwrap_or_default() {
        if let Some(template) = file.string(&format!("{GGUF_KEY}.{name}"))? {
            templates.push((name.to_string(), template.to_string()));
        }
    }
    Ok(templates)
}

fn at(path: &Path) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::ChatTemplate { path: None, reason } => Error::ChatTemplate { path: Some(path.into()), reason },
        other => other,
    }
}

/// The text of a regular file of bounded size: what comes with a model is nothing else.
fn read(path: &Path, most: u64) -> Result<String> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::Io { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(at(path)(fail("a folder, pipe or device, expected a regular file")));
    }
    bounded_text(path, most)
}

/// The text of a file that a user named, pipes among them.
fn read_any(path: &Path) -> Result<String> {
    if path.is_dir() {
        return Err(at(path)(fail(
            "a folder, expected a file with a template (a model's own template needs no naming)",
        )));
    }
    bounded_text(path, MAX_CONFIG_BYTES)
}

fn bounded_text(path: &Path, most: u64) -> Result<String> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(at(path)(fail(format!("more than {most} bytes"))));
    }
    String::from_utf8(bytes).map_err(|_| at(path)(fail("not UTF-8")))
}

/// The templates that a configuration has: a text, or a list of named ones.
fn in_config(config: &Value) -> Result<Named> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(template)) => Ok(vec![(DEFAULT.into(), template.clone())]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| {
                let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
                text("name").zip(text("template")).ok_or_else(|| {
                    fail("an entry of chat_template has no `name` or no `template`, expected a text for each")
                })
            })
            .collect(),
        // As transformers keeps several in memory.
        Some(Value::Object(templates)) => templates
            .iter()
            .map(|(name, template)| match template {
                Value::String(template) => Ok((name.clone(), template.clone())),
                _ => Err(fail(format!("`{name}` of chat_template is not a string"))),
            })
            .collect(),
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
