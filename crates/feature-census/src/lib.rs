//! Statistics and strongest examples of all features of an SAE, from one pass over a text.
//!
//! A census counts every feature exactly, in memory that does not grow with the text. Its result is a function of the set of tokens: batches, threads
//! and order make no difference, and the censuses of the parts of a text merge into the census of the whole.
//!
//! ```
//! use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
//! use feature_census::{CensusOptions, CensusRun, FeatureCensus};
//! # use model_hooks::{LoadOptions, Processing, load};
//! # use sae_core::{Sae, SparseCoder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = |name: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo").join(name);
//! # let model = load(&demo("lm"), &LoadOptions::new(Processing::TransformerLens))?;
//! # let sae = Sae::load(demo("sae"))?;
//! # let path = demo("text.jsonl");
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("census.parquet");
//! let text = Documents::open(&[path], DocumentOptions::default())?;
//! let mut source = ActivationStore::from_sae(&model, &sae, text, StoreOptions::default())?.in_order();
//! let options = CensusOptions::default();
//! println!("{} bytes", options.memory_bytes(sae.d_sae()));
//! let census = FeatureCensus::new(sae.d_sae(), options)?;
//! let mut run = CensusRun::new().add(0, &sae, census)?.max_tokens(2_000);
//! run.run(&mut source, &mut |progress| println!("{} tokens", progress.tokens))?;
//! let census = run.finish().remove(0);
//! println!("{} dead; feature 7: {:?} {:?}", census.dead().len(), census.stats(7)?, census.top(7)?);
//! census.save(&file)?;
//! # assert_eq!(FeatureCensus::load(&file, 1 << 30)?.stats(7)?, census.stats(7)?);
//! # Ok(()) }
//! ```
//!
//! The types to know:
//!
//! - [`FeatureCensus`]: the counts; its results ([`FeatureStats`], [`CensusExample`], [`BinSamples`], [`Cofiring`]), its merge, and its [`file`](mod@file).
//! - [`CensusOptions`]: how many examples and samples are kept, which tokens count, and how many bytes that takes.
//! - [`CensusBatch`]: the sparse codes of some tokens with their addresses, for [`FeatureCensus::push`].
//! - [`CensusRun`]: any [`ActivationSource`](activation_store::ActivationSource), any number of SAEs; [`Checkpoints`] let a killed run go on.
//! - [`IntervalPass`]: a uniform sample of each interval of a few features' activations, by a second pass.
//! - [`Histogram`]: counts by quarter octaves of magnitude.

mod batch;
mod census;
mod checkpoint;
mod coder_digest;
mod coverage;
mod error;
pub mod file;
mod fixed_point;
mod frame;
mod histogram;
mod intervals;
mod merge;
mod options;
mod run;
mod shard;
mod stats;
mod tally;

pub use batch::CensusBatch;
pub use census::FeatureCensus;
pub use checkpoint::{Checkpoints, DamagedCheckpoint};
pub use coder_digest::coder_digest;
pub use error::{Error, Result};
pub use fixed_point::{LIMIT, MOST_TOKENS};
pub use histogram::{BINS, Histogram, bin_end, bin_of, bin_start};
pub use intervals::{ActivationInterval, IntervalPass};
pub use options::{CensusLabels, CensusOptions};
pub use run::{CensusProgress, CensusReport, CensusRun};
pub use stats::{BinSamples, CensusExample, Cofiring, FeatureAt, FeatureStats};
