//! Shared by the readers of circuit-tracer's folders: one file for each layer, and `config.yaml` for all of them.

use super::source::Source;
use super::weights::{agree, vector};
use super::yaml;
use crate::formats::json_keys::{Keys, as_count};
use crate::{Activation, Error, Result, SaeMetadata};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;

pub(super) const CONFIG: &str = "config.yaml";

/// One layer of a folder.
pub(super) struct Layer {
    pub(super) folder: PathBuf,
    pub(super) number: usize,
}

/// `layer_7.safetensors` is 7 for `layer_`.
pub(super) fn number_of_file(name: &str, stem: &str) -> Option<usize> {
    name.strip_prefix(stem)?.strip_suffix(".safetensors")?.parse().ok()
}

/// A path in a repository: the folder (with its `/`, or nothing) and the layer that the last part tells, as a number or as a file's name.
pub(super) fn split<'a>(path: &'a str, stem: &str) -> (&'a str, Option<usize>) {
    let at = path.rfind('/').map_or(0, |at| at + 1);
    let (folder, name) = path.split_at(at);
    (folder, name.parse().ok().or_else(|| number_of_file(name, stem)))
}

impl Layer {
    /// The layer that [`OpenOptions::layer`](super::OpenOptions::layer) or the path names; they may not differ.
    pub(super) fn of(source: &Source<'_>, stem: &str) -> Result<Self> {
        let published = source.options.origin.as_ref().and_then(|origin| split(&origin.path, stem).1);
        let (folder, named) = if source.path.is_dir() {
            (source.path.to_path_buf(), published)
        } else {
            let name = source.path.file_name().unwrap_or_default().to_string_lossy();
            (source.path.parent().unwrap_or(Path::new("")).to_path_buf(), split(&name, stem).1.or(published))
        };
        let refuse = |expected: String, found: String| Err(Error::Parameter { name: "layer", expected, found });
        match (source.options.layer, named) {
            (Some(asked), Some(named)) if asked != named => {
                refuse(format!("{named}, as `{}` says", source.published_path()), asked.to_string())
            }
            (None, None) => refuse(
                "a number in `OpenOptions::layer` or at the end of the path: the folder holds one transcoder for each layer".into(),
                format!("none for {}", source.path.display()),
            ),
            (asked, named) => Ok(Self { folder, number: asked.or(named).unwrap_or_default() }),
        }
    }
}

/// Whether a file of this name, or any file of a folder, is a layer's, and the other file lies beside it.
pub(super) fn has_layers(path: &Path, stem: &str, beside: &str) -> bool {
    let of_layer = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| number_of_file(name, stem).is_some());
    if path.is_dir() {
        let entries = || std::fs::read_dir(path).into_iter().flatten().flatten();
        path.join(beside).is_file() && entries().any(|entry| of_layer(&entry.file_name()))
    } else {
        path.is_file() && path.file_name().is_some_and(of_layer) && path.with_file_name(beside).is_file()
    }
}

/// `config.yaml` of a set. A key that is not known is refused unless it is named in [`LoadOptions::ignore_keys`](crate::LoadOptions).
pub(super) struct Config {
    pub(super) path: PathBuf,
    model: String,
    hooks: [String; 2],
    activation: Option<String>,
    k: Option<usize>,
    /// Files by layer, where they are listed.
    pub(super) transcoders: Option<Vec<Value>>,
}

impl Config {
    pub(super) fn read(source: &Source<'_>, folder: &Path, model_kind: &'static str) -> Result<Self> {
        let path = folder.join(CONFIG);
        let mut keys = Keys { path: &path, prefix: "", map: yaml::read_object(&path)? };
        let kind = |value: &Value| value.as_str().filter(|kind| *kind == model_kind).map(drop);
        keys.read("model_kind", model_kind, kind)?;
        let mut text = |key: &'static str| {
            let said = keys.string(key)?;
            keys.require(key, "a string", said)
        };
        let (model, hooks) = (text("model_name")?, [text("feature_input_hook")?, text("feature_output_hook")?]);
        let config = Self {
            model,
            hooks,
            activation: keys.string("activation")?,
            k: keys.count("k")?,
            transcoders: keys.read("transcoders", "a list", |value| value.as_array().cloned())?,
            path: path.clone(),
        };
        // Where it lies and how it is shown.
        for key in ["scan", "scan_name", "repo_id", "revision", "subfolder"] {
            keys.take(key);
        }
        let unknown = keys.map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key);
        let strangers: Vec<String> = unknown.filter(|key| !source.ignores(&path, key)).collect();
        if strangers.is_empty() { Ok(config) } else { Err(Error::UnknownKeys { path, keys: strangers }) }
    }

    /// JumpReLU where the file holds thresholds, else what is named, else ReLU.
    pub(super) fn activation(
        &self,
        source: &Source<'_>,
        file: &SafetensorsFile,
        threshold: &str,
        d_sae: usize,
    ) -> Result<Activation> {
        let k = source.options.overrides.get("k").and_then(as_count).or(self.k);
        match (self.activation.as_deref(), file.contains(threshold), k) {
            (None | Some("jumprelu" | "jump_relu"), true, None) => {
                Ok(Activation::JumpRelu { threshold: vector(file, threshold, d_sae)?.into() })
            }
            (None | Some("relu"), false, None) => Ok(Activation::Relu),
            (Some("topk"), false, Some(k)) => Ok(Activation::SignedTopK { k }),
            (Some("topk"), false, None) => {
                Err(Error::MissingKey { path: self.path.clone(), key: "k".into(), expected: "a whole number" })
            }
            (named, thresholds, k) => {
                let held = if thresholds { "thresholds" } else { "no thresholds" };
                let expected = "jumprelu with thresholds, relu without, or topk with `k`";
                let found = format!("{named:?} with k {k:?} and {held} in the weights");
                Err(bad(&self.path, "activation", expected, found))
            }
        }
    }

    /// Hooks as SAELens makes them of the same keys.
    pub(super) fn metadata(&self, layer: usize) -> SaeMetadata {
        let [hook_in, hook_out] = self.hooks.each_ref().map(|hook| Some(format!("blocks.{layer}.{hook}")));
        SaeMetadata { model_name: Some(self.model.clone()), hook_name: hook_in, hook_name_out: hook_out, ..needs() }
    }
}

pub(super) fn bad(path: &Path, key: &str, expected: impl Into<String>, found: String) -> Error {
    Error::BadKey { path: path.into(), key: key.into(), expected: expected.into(), found }
}

/// Metadata of all of these transcoders: the model's norms stay as in its files.
pub(super) fn needs() -> SaeMetadata {
    let unfolded = json!({ "fold_ln": false }).as_object().cloned().unwrap_or_default();
    SaeMetadata { prepend_bos: Some(true), model_from_pretrained_kwargs: unfolded, ..SaeMetadata::default() }
}

/// Sizes that were put over the files' must be the weights'.
pub(super) fn sizes_agree(source: &Source<'_>, path: &Path, sizes: [(&str, usize); 3]) -> Result<()> {
    let over = |key: &str| source.options.overrides.get(key).and_then(as_count);
    sizes.into_iter().try_for_each(|(key, held)| agree(path, key, over(key), held))
}
