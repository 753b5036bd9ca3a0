//! What other tools read: caches of activations for delphi ([`delphi`]).
//!
//! An SAE itself goes out with [`Sae::save`](sae_core::Sae::save), as a SAELens folder. The folders written here appear whole under their names or not at
//! all, and one that is there already is refused.

pub mod delphi;
mod error;
mod folder;

pub use error::ExportError;

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
