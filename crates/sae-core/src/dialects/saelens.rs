//! SAELens' own folders.

use super::source::{Files, Source};
use super::{Reader, SaeFormat};
use crate::saelens::auxiliary::{SCALER_FILE, WHITENING_FILE};
use crate::saelens::load;
use crate::{Dictionary, Result};
use std::path::Path;

pub(super) const READER: Reader = Reader { dialect: SaeFormat::SaeLens, recognizes, files, open };

fn recognizes(path: &Path) -> bool {
    path.join("cfg.json").is_file() && path.join("sae_weights.safetensors").is_file()
}

fn files(path: &str) -> Files {
    let at = |name: &str| format!("{path}/{name}");
    let optional = ["sparsity.safetensors", SCALER_FILE, WHITENING_FILE].map(at);
    Files { required: vec![at("cfg.json"), at("sae_weights.safetensors")], optional: optional.into() }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    load(source.path, &source.options.load, source.options.norm_scaling_factor)
}
