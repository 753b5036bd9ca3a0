use super::SaeFormat;
use crate::formats::json_keys::{Keys, as_count};
use crate::{Dictionary, Error, LoadOptions, OpenNote, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::Path;

/// The repository and path where files were published. Some formats give the layer, the width or k in these names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubPath {
    /// `owner/name` on the hub.
    pub repo: String,
    /// The SAE's folder or file in it, as the table of releases writes it.
    pub path: String,
}

/// Options for opening published files.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format. `None`: what the files look like.
    pub format: Option<SaeFormat>,
    /// Where the files were published; `None`: the local path is used in its place.
    pub origin: Option<HubPath>,
    /// The layer, where a folder holds one SAE for each.
    pub layer: Option<usize>,
    /// Put over what the files say, under SAELens' names of a configuration's keys (`hook_name`, `d_sae`, `k`, ..).
    pub overrides: Map<String, Value>,
    /// The factor that training multiplied activations by: folded into the weights, in place of one that the files hold. 1: activations go in
    /// as they are.
    pub norm_scaling_factor: Option<f32>,
    /// The engine, and keys of SAELens' configuration that may be ignored.
    pub load: LoadOptions,
}

impl OpenOptions {
    /// With the factor that training multiplied activations by; 1: activations go in as they are.
    #[must_use]
    pub fn norm_scaling_factor(mut self, factor: f32) -> Self {
        self.norm_scaling_factor = Some(factor);
        self
    }

    /// With a key of the configuration that is unknown here and that the caller knows to be without effect.
    #[must_use]
    pub fn ignore_key(mut self, key: impl Into<String>) -> Self {
        self.load.ignore_keys.push(key.into());
        self
    }
}

/// Files of one SAE within a repository; paths divided by `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredFiles {
    /// Without these it cannot be opened.
    pub required: Vec<String>,
    /// Read when they are there.
    pub optional: Vec<String>,
}

/// A file in a folder of a repository; the repository itself is `.` or nothing.
pub(super) fn at(folder: &str, name: &str) -> String {
    if folder.is_empty() || folder == "." { name.into() } else { format!("{folder}/{name}") }
}

/// Input of a format's reader: the folder or file, and the caller's options.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) options: &'a OpenOptions,
    notes: RefCell<Vec<OpenNote>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, options: &'a OpenOptions) -> Self {
        Self { path, options, notes: RefCell::default() }
    }

    /// Adds to the notes of what is opened.
    pub(super) fn note(&self, note: OpenNote) {
        self.notes.borrow_mut().push(note);
    }

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

    /// Whether the caller says that a key may be ignored; if so it is noted.
    pub(super) fn ignores(&self, path: &Path, key: &str) -> bool {
        let ignored = self.options.load.ignore_keys.iter().any(|name| name == key);
        if ignored {
            self.note(OpenNote::KeysIgnored { path: path.into(), keys: vec![key.into()] });
        }
        ignored
    }

    /// Keys of a configuration that nothing took: they could change what is computed.
    pub(super) fn refuse_keys(&self, keys: &Keys<'_>) -> Result<()> {
        let unknown: Vec<String> = keys.map.keys().filter(|key| !self.ignores(keys.path, key)).cloned().collect();
        if unknown.is_empty() { Ok(()) } else { Err(Error::UnknownKeys { path: keys.path.into(), keys: unknown }) }
    }

    /// Steps shared by all formats: overrides of the metadata, and the norm factor.
    pub(super) fn finish(&self, format: SaeFormat, opened: Dictionary) -> Result<Dictionary> {
        let mut metadata = opened.metadata().overridden(self.path, &self.options.overrides)?;
        metadata.notes.append(&mut self.notes.borrow_mut());
        let factor = match format {
            // Their readers have folded the factor, or compared it with that of the files.
            SaeFormat::Temporal | SaeFormat::SaeLens => None,
            _ => self.options.norm_scaling_factor,
        };
        metadata.notes.extend(factor.map(|factor| OpenNote::NormFactorFolded { factor, path: None }));
        let opened = opened.with_metadata(metadata);
        factor.map_or_else(|| Ok(opened.clone()), |factor| opened.fold_norm_factor(factor))
    }
}
