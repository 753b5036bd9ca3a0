//! What people look at: token frames, top activations, logit lens, PCA, plots.

pub mod page;
pub mod plot;
