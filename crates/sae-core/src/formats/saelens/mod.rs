//! SAELens' own folders: `cfg.json`, `sae_weights.safetensors` and, optionally, `sparsity.safetensors`.
//!
//! Configurations of SAELens 6 and later are read as they are; older ones are first rewritten to that form
//! ([`legacy`]), by SAELens' own rules.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub(crate) mod auxiliary;
mod config;
mod legacy;
mod load;
mod metadata;
mod other_architectures;
pub(super) mod reader;
mod save;

pub use load::LoadOptions;
pub(crate) use load::load;

const CFG_FILE: &str = "cfg.json";
const WEIGHTS_FILE: &str = "sae_weights.safetensors";
const SPARSITY_FILE: &str = "sparsity.safetensors";

/// Architectures that can be loaded.
const SUPPORTED: &str = "standard, topk, abstopk, batchtopk, matryoshka_batchtopk, jumprelu, gated, transcoder, skip_transcoder, \
                         jumprelu_transcoder, jumprelu_skip_transcoder, matching_pursuit, temporal";

/// The version of SAELens whose layout is written.
const LAYOUT_VERSION: &str = "6.54.12";
