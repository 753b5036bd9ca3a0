//! What people look at: token frames, top activations, the logit lens, PCA, plots.
//!
//! The types to know: [`FeatureExamples`], what [`collect`] keeps of a text for a few features; [`LogitLens`], the tokens that a
//! feature promotes; [`Pca`]. Frames are Arrow record batches. [`plot`] and [`page`] draw plain data from any source. The census of all
//! features is in [`feature_census`].
//!
//! The notebook's cells 18 to 27 on a model, an SAE and a text:
//!
//! ```no_run
//! use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
//! use feature_analysis::*;
//! use model_hooks::{LoadOptions, Processing, load};
//! use sae_core::Sae;
//!
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! let model = load("assets/demo/lm".as_ref(), &LoadOptions::new(Processing::TransformerLens))?;
//! let sae = Sae::load("assets/demo/sae")?;
//! let text = Documents::open(&["assets/demo/text.jsonl"], DocumentOptions::default())?;
//! let mut store = ActivationStore::from_sae(&model, &sae, text, StoreOptions::default())?;
//!
//! // Cells 20 and 26: every token on which one of these features fired.
//! let features = random_features(2048, 100, 0)?;
//! let options = CollectOptions { total_batches: 20, ..CollectOptions::default() };
//! let kept = collect(&sae, &mut store, &features, &options, &mut |_progress| {})?;
//! println!("{} examples in {}", kept.len(), kept.counts());
//!
//! // Cell 23: its strongest activations, with the text around them.
//! let tokenizer = model.try_tokenizer()?;
//! let top = top_frame(&kept, features[0], 10, tokenizer, &FrameOptions::default())?;
//!
//! // Cell 24: the tokens it promotes.
//! let lens = logit_lens(&model, &sae, Some(&features), &LensOptions::default())?;
//!
//! // Cell 27: the plane in which the reconstructions vary most.
//! let reconstructions = kept.reconstructions()?;
//! let pca = Pca::fit(&reconstructions, 3, Solver::Auto)?;
//! let embedding = pca.transform(&reconstructions)?;
//! # Ok(()) }
//! ```

mod error;
pub mod evals;
pub mod export;
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
pub mod views;

pub use error::{Error, Result};
pub use families::{WordFeature, WordFeatureCounter, WordFeatureOptions, WordList, WordReport, word_features};
pub use feature_frame::{beside, feature_frame, with_report, write_csv, write_parquet};
pub use features::random_features;
pub use kept::{CollectReport, FeatureExamples};
pub use lens::{FeatureTokens, LogitLens, logit_lens};
pub use pca::{Pca, Solver};
pub use positive::PositiveActivations;
pub use projection::{LensOptions, TopBottomTokens, project_directions, project_directions_on};
pub use seed_loop::{CollectOptions, Progress, collect};
pub use select::TopK;
pub use token_frame::{ContextEnd, FrameOptions, Place, token_frame, token_frame_at};
pub use top::{TopActivation, top_activations, top_frame};
