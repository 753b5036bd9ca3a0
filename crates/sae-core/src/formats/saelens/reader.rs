//! SAELens' own folders.

use super::auxiliary::{SCALER_FILE, WHITENING_FILE};
use super::load;
use crate::formats::source::{RequiredFiles, Source};
use crate::formats::{Reader, SaeFormat};
use crate::{Dictionary, Result};
use std::path::Path;

pub(crate) const READER: Reader = Reader { format: SaeFormat::SaeLens, recognizes, files, open };

fn recognizes(path: &Path) -> bool {
    path.join("cfg.json").is_file() && path.join("sae_weights.safetensors").is_file()
}

fn files(path: &str) -> RequiredFiles {
    let at = |name: &str| format!("{path}/{name}");
    let optional = ["sparsity.safetensors", SCALER_FILE, WHITENING_FILE].map(at);
    RequiredFiles { required: vec![at("cfg.json"), at("sae_weights.safetensors")], optional: optional.into() }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    load(source.path, &source.options.load, source.options.norm_scaling_factor)
}
