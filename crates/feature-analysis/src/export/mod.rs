//! What other tools read: caches of activations for delphi ([`delphi`]), dashboards for Neuronpedia ([`neuronpedia`]).
//!
//! An SAE itself goes out with [`Sae::save`](sae_core::Sae::save), as a SAELens folder. The folders written here appear whole under their names or not at
//! all, and one that is there already is refused.

pub mod delphi;
mod error;
mod folder;
pub mod neuronpedia;
mod scratch;
mod tokens;

pub use error::ExportError;

use crate::{Error, Result};
use activation_store::ActivationSource;
use sae_core::SparseCoder;

/// Whether a dictionary can read a source's hook.
fn check_width(source: &dyn ActivationSource, hook: usize, coder: &dyn SparseCoder) -> Result<()> {
    let Some(found) = source.spec().hooks.get(hook) else {
        return Err(Error::Option { option: "hook", expected: "one of the source's hooks", found: hook.to_string() });
    };
    let (left_size, right_size) = (found.width(), coder.d_in());
    if left_size == right_size {
        return Ok(());
    }
    Err(Error::SizeMismatch { left: "the hook's width", left_size, right: "the dictionary's d_in", right_size })
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// What is being done.
    pub stage: ExportStage,
    /// How much of it is done.
    pub done: u64,
    /// How much there is, if that is known.
    pub of: Option<u64>,
}

/// What an export does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportStage {
    /// The text is read and encoded; counted in tokens.
    Text,
    /// Files are written; counted in files.
    Files,
}

impl ExportProgress {
    pub(crate) fn text(done: u64, of: Option<u64>) -> Self {
        Self { stage: ExportStage::Text, done, of }
    }

    pub(crate) fn files(done: u64, of: u64) -> Self {
        Self { stage: ExportStage::Files, done, of: Some(of) }
    }
}
