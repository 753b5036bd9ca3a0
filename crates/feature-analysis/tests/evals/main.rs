//! `feature_analysis::evals`: numbers by hand, laws, resampling by brute force, refusals, and SAELens' own answers.

mod bootstrap;
mod golden;
mod hand;
mod laws;
mod refusals;
mod resume;
#[path = "../../../../tests/support/tolerances.rs"]
mod tolerances;
mod toy;
