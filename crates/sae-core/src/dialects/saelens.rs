//! SAELens' own folders.

use super::source::{Files, Source};
use super::{Dialect, Reader};
use crate::{Dictionary, Result};
use std::path::Path;

pub(super) const READER: Reader = Reader { dialect: Dialect::SaeLens, recognises, files, open };

fn recognises(path: &Path) -> bool {
    path.join("cfg.json").is_file() && path.join("sae_weights.safetensors").is_file()
}

fn files(path: &str) -> Files {
    let at = |name: &str| format!("{path}/{name}");
    Files { required: vec![at("cfg.json"), at("sae_weights.safetensors")], optional: vec![at("sparsity.safetensors")] }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    Dictionary::load_with(source.path, &source.options.load)
}
