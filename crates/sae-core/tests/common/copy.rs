//! A copy of a golden folder, for tests that change its files.

use super::common::golden;
use std::path::PathBuf;
use tempfile::TempDir;

/// A copy of a golden folder that may be spoilt.
pub fn copy(name: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sae");
    std::fs::create_dir(&folder).unwrap();
    for file in ["cfg.json", "sae_weights.safetensors"] {
        std::fs::copy(golden(name).join(file), folder.join(file)).unwrap();
    }
    (dir, folder)
}
