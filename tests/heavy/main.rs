//! The whole way against Python, on a model of GPT-2 small's shape and an SAE of 24,576 features.
//!
//! These files are too large for the repository (`tools/README.md` says how to make them), so every test is ignored by default.
//! `tools/checks/check_heavy.sh ROOT` sets the four variables and runs them; `tools/checks/heavy_results.md` has what it last showed.
//!
//! | variable | folder or file |
//! |---|---|
//! | `SAESCOPE_GPT2_RANDOM` | `ROOT/models/gpt2-small-random` |
//! | `SAESCOPE_GPT2_SAE` | `ROOT/sae/res-random` |
//! | `SAESCOPE_GPT2_CORPUS` | `ROOT/corpus/corpus.jsonl` |
//! | `SAESCOPE_GOLDENS` | `ROOT/golden/gpt2-small-random` |

mod analysis;
mod model;
mod notebook;
mod sae;
#[path = "../support/mod.rs"]
mod support;
mod text;

use model_hooks::{LanguageModel, LoadOptions, Processing};
use std::path::PathBuf;
use support::Golden;

/// The goldens of the model, and the processing they were made with.
const FILES: [(&str, Processing); 2] =
    [("processed.safetensors", Processing::TransformerLens), ("no_processing.safetensors", Processing::None)];

/// The path in an environment variable.
fn path(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set; see tests/heavy/main.rs")).into()
}

fn golden(file: &str) -> Golden {
    Golden::open(path("SAESCOPE_GOLDENS").join(file))
}

fn json(file: &str) -> serde_json::Value {
    support::json(path("SAESCOPE_GOLDENS").join(file))
}

fn load_model(processing: Processing) -> LanguageModel {
    model_hooks::load(&path("SAESCOPE_GPT2_RANDOM"), &LoadOptions::new(processing)).expect("the model loads")
}

fn load_sae() -> sae_core::Sae {
    sae_core::Sae::load(path("SAESCOPE_GPT2_SAE")).expect("the SAE loads")
}
