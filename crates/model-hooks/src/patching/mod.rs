//! Experiments made of edits: path patching, gradients for attribution patching, and interventions that are saved and replayed.

pub(crate) mod gradients;
pub(crate) mod interventions;
pub(crate) mod path;
