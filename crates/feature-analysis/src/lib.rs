//! What people look at: token frames, top activations, the logit lens, PCA, plots.
//!
//! The three types to know: [`KeptExamples`], what [`collect`] keeps of a text for a few features of an SAE; [`LogitLens`], the tokens that a
//! feature promotes; [`Pca`]. Frames are Arrow record batches. [`plot`] and [`page`] draw plain data, whoever made it.

mod error;
mod families;
mod feature_frame;
mod features;
mod kept;
mod lens;
pub mod page;
pub mod pca;
pub mod plot;
mod positive;
mod projection;
mod seed_loop;
mod select;
mod token_frame;
mod top;

pub use error::{Error, Result};
pub use families::{FamilyCounter, FamilyFeature, FamilyOptions, FamilyReport, WordFamily, family_features};
pub use feature_frame::{beside, feature_frame, with_counts, write_csv, write_parquet};
pub use features::{check_features, random_features};
pub use kept::{Counts, KeptExamples, Looked};
pub use lens::{FeatureTokens, LogitLens, logit_lens};
pub use pca::{Pca, Solver};
pub use positive::PositiveActivations;
pub use projection::{Extremes, LensOptions, project_directions};
pub use seed_loop::{Progress, SeedLoopOptions, collect};
pub use select::Best;
pub use token_frame::{FrameOptions, Place, SuffixRule, token_frame, token_frame_at};
pub use top::{TopActivation, top_activations, top_frame};
