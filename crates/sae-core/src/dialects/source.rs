use super::Dialect;
use crate::saelens::json::{Keys, as_count};
use crate::{Dictionary, Error, LoadOptions, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Where files were published. Some formats say the layer, the width or k in these names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `owner/name` on the hub.
    pub repo: String,
    /// The SAE's folder or file in it, as the table of releases writes it.
    pub path: String,
}

/// How to open published files.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format. `None`: what the files look like.
    pub dialect: Option<Dialect>,
    /// Where the files were published; without it the local path stands in.
    pub origin: Option<Origin>,
    /// Which layer, where a folder holds one SAE for each.
    pub layer: Option<usize>,
    /// Put over what the files say, under SAELens' names of a configuration's keys (`hook_name`, `d_sae`, `k`, ..).
    pub overrides: Map<String, Value>,
    /// The factor that training multiplied activations by: folded into the weights.
    pub norm_scaling_factor: Option<f32>,
    /// The engine, and keys of SAELens' configuration that may be ignored.
    pub load: LoadOptions,
}

/// Files of one SAE within a repository; paths divided by `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Without these it cannot be opened.
    pub required: Vec<String>,
    /// Read when they are there.
    pub optional: Vec<String>,
}

/// A file in a folder of a repository; the repository itself is `.` or nothing.
pub(super) fn at(folder: &str, name: &str) -> String {
    if folder.is_empty() || folder == "." { name.into() } else { format!("{folder}/{name}") }
}

/// What a format's reader is given: the folder or file, and what is known besides.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) options: &'a OpenOptions,
}

impl Source<'_> {
    /// The path in the repository, or else the local one: what names of layers and widths are looked for in.
    pub(super) fn published_path(&self) -> String {
        match &self.options.origin {
            Some(origin) => origin.path.clone(),
            None => self.path.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"),
        }
    }

    /// The repository's `owner/name`, if it is known.
    pub(super) fn repo(&self) -> Option<&str> {
        self.options.origin.as_ref().map(|origin| origin.repo.as_str())
    }

    /// A size or count that the overrides name.
    pub(super) fn stated(&self, key: &str) -> Option<usize> {
        self.options.overrides.get(key).and_then(as_count)
    }

    /// Keys of a configuration that nothing took: they could change what is computed.
    pub(super) fn refuse_keys(&self, keys: &Keys<'_>) -> Result<()> {
        let ignored = |key: &String| self.options.load.ignore_keys.contains(key);
        let unknown: Vec<String> = keys.map.keys().filter(|key| !ignored(key)).cloned().collect();
        if unknown.is_empty() { Ok(()) } else { Err(Error::UnknownKeys { path: keys.path.into(), keys: unknown }) }
    }

    /// What is the same for every format: overrides of the metadata, and the factor of the norms.
    pub(super) fn finish(&self, dialect: Dialect, opened: Dictionary) -> Result<Dictionary> {
        let metadata = opened.metadata().overridden(self.path, &self.options.overrides)?;
        let opened = opened.with_metadata(metadata);
        match self.options.norm_scaling_factor {
            // Its files bring the factor, and its reader has compared the two.
            Some(_) if dialect == Dialect::Temporal => Ok(opened),
            Some(factor) => opened.fold_norm_factor(factor),
            None => Ok(opened),
        }
    }
}
