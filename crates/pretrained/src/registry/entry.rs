use sae_core::formats::{HubPath, OpenOptions, SaeFormat};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A set of SAEs that were published together.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Release {
    /// Its name, such as `gpt2-small-res-jb`.
    pub name: String,
    /// The repository on the hub, `owner/name`.
    pub repo: String,
    /// The format of its files.
    pub format: SaeFormat,
    /// The model whose activations were used, as the publisher names it.
    pub model: String,
    /// How many SAEs it has.
    pub saes: usize,
    /// What is put over the files' own configuration, under SAELens' names.
    pub config_overrides: Map<String, Value>,
}

/// One published SAE. What is `None` is not known before its files are read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The release that it belongs to.
    pub release: Arc<Release>,
    /// Its name in the release.
    pub sae_id: String,
    /// Its folder or file in the repository.
    pub path: String,
    /// The hook point that it reads, in TransformerLens' words.
    pub hook: Option<String>,
    /// The hook point whose value a transcoder writes.
    pub hook_out: Option<String>,
    /// Width of what it reads.
    pub d_in: Option<usize>,
    /// Number of features.
    pub d_sae: Option<usize>,
    /// Mean number of active features per token that the publisher expects.
    pub l0: Option<f64>,
    /// Share of the variance explained that the publisher expects.
    pub variance_explained: Option<f64>,
    /// What training multiplied activations by; folded into the weights when the SAE is opened.
    pub norm_scaling_factor: Option<f32>,
    /// Its name at Neuronpedia, `model/source`.
    pub neuronpedia: Option<String>,
}

/// The name that a line of the table begins with.
pub(super) fn id(line: &str) -> &str {
    line.split('\t').next().unwrap_or(line)
}

/// The folder or file in the repository; `=` means the same as the name.
pub(super) fn path(line: &str) -> &str {
    line.split('\t').nth(1).filter(|path| !path.is_empty() && *path != "=").unwrap_or_else(|| id(line))
}

impl Release {
    /// From its line, which `parse::read` has checked.
    pub(super) fn read(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |i: usize| fields.get(i).copied().unwrap_or_default();
        Self {
            name: field(1).into(),
            repo: field(2).into(),
            format: field(3).parse().unwrap_or(SaeFormat::SaeLens),
            model: field(4).into(),
            saes: field(5).parse().unwrap_or_default(),
            config_overrides: serde_json::from_str(field(6)).unwrap_or_default(),
        }
    }
}

impl Entry {
    /// From its line, which `parse::read` has checked.
    pub(super) fn read(release: &Arc<Release>, line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |i: usize| fields.get(i).copied().filter(|field| !field.is_empty());
        let text = |i: usize| field(i).map(str::to_owned);
        Self {
            release: release.clone(),
            sae_id: id(line).into(),
            path: path(line).into(),
            hook: text(2),
            hook_out: text(3),
            d_in: field(4).and_then(|x| x.parse().ok()),
            d_sae: field(5).and_then(|x| x.parse().ok()),
            l0: field(6).and_then(|x| x.parse().ok()),
            variance_explained: field(7).and_then(|x| x.parse().ok()),
            norm_scaling_factor: field(8).and_then(|x| x.parse().ok()),
            neuronpedia: text(9),
        }
    }

    /// The repository on the hub.
    #[must_use]
    pub fn repo(&self) -> &str {
        &self.release.repo
    }

    /// The format of its files.
    #[must_use]
    pub fn format(&self) -> SaeFormat {
        self.release.format
    }

    /// The model whose activations were used, as the publisher names it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.release.model
    }

    /// The layer, as its hook point or its name says.
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        self.hook.as_deref().and_then(super::layer::of).or_else(|| super::layer::of(&self.sae_id))
    }

    /// How [`sae_core::formats::open`] is to read its files.
    #[must_use]
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: Some(self.format()),
            origin: Some(HubPath { repo: self.repo().into(), path: self.path.clone() }),
            layer: None,
            overrides: self.release.config_overrides.clone(),
            norm_scaling_factor: self.norm_scaling_factor,
            ..OpenOptions::default()
        }
    }
}
