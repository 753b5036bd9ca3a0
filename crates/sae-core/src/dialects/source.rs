use super::Dialect;
use crate::{Dictionary, LoadOptions, Result};
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

    /// What is the same for every format: overrides of the metadata, and the factor of the norms.
    pub(super) fn finish(&self, opened: Dictionary) -> Result<Dictionary> {
        let metadata = opened.metadata().overridden(self.path, &self.options.overrides)?;
        let opened = opened.with_metadata(metadata);
        match self.options.norm_scaling_factor {
            Some(factor) => opened.fold_norm_factor(factor),
            None => Ok(opened),
        }
    }
}
