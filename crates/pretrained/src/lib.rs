//! Published SAEs, models and texts by name.
//!
//! ```no_run
//! # fn main() -> pretrained::Result<()> {
//! use model_hooks::{LoadOptions, Processing};
//!
//! // What is there: a table of 13,857 SAEs, part of this crate.
//! for entry in pretrained::Registry::built_in().search(&pretrained::Query::parse("gpt2 layer 7")?) {
//!     println!("{} {} {:?}", entry.release.name, entry.sae_id, entry.d_sae);
//! }
//! // By name; feature `hub` downloads what is not in the cache shared with Python's tools.
//! let published = pretrained::sae("gpt2-small-res-jb", "blocks.7.hook_resid_pre")?;
//! let model = pretrained::model("gpt2")?.load(&LoadOptions::new(Processing::TransformerLens))?;
//! # let _ = (published, model);
//! # Ok(()) }
//! ```
//!
//! [`Hub`] is the way with choices: another cache, a revision, a token, offline, progress. Everything works without the feature
//! `hub` but the download itself.
//!
//! [`preflight`] catches a wrong pairing of SAE, model, processing and text before a day is spent on it.
//!
//! What comes from the table, a server or an index of shards is a name from outside: absolute paths, `..`, backslashes, drives, control
//! characters and links that lead out of the cache are refused ([`Error::UnsafeName`]). A file gets its name when its length and checksum
//! are right, never before.

mod cache;
mod dataset;
#[cfg(feature = "hub")]
mod download;
mod error;
mod hub_client;
mod model;
mod names;
pub mod preflight;
mod progress;
mod registry;
mod sae;
mod session;

pub use cache::Cache;
pub use dataset::{DatasetFilter, DownloadedDataset, PARQUET_REVISION};
pub use error::{Error, Result};
pub use hub_client::{HUGGING_FACE_ENDPOINT, Hub, RetryPolicy};
pub use model::DownloadedModel;
pub use progress::DownloadEvent;
pub use registry::{Entry, Query, Registry, Release, is_same_model};
pub use sae::{DownloadedSae, PretrainedSae};

/// The table of published SAEs: 170 releases, 13,857 SAEs. A gzip file of tab-separated text; `data/README.md` says what its lines hold.
pub const RELEASE_TABLE: &[u8] = include_bytes!("../data/releases.tsv.gz");

/// Whether this build downloads (feature `hub`).
pub const CAN_DOWNLOAD: bool = cfg!(feature = "hub");

/// Opens an SAE by name: `Hub::from_env()?.sae(release, sae_id)`, which reads the variables of Python's tools.
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::sae`].
pub fn sae(release: &str, sae_id: &str) -> Result<PretrainedSae> {
    Hub::from_env()?.sae(release, sae_id)
}

/// Brings a model here by name: `Hub::from_env()?.model(name)`, which reads the variables of Python's tools.
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::model`].
pub fn model(name: &str) -> Result<DownloadedModel> {
    Hub::from_env()?.model(name)
}

/// Brings files of a data set here: `Hub::from_env()?.dataset(name, part)`, which reads the variables of Python's tools.
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::dataset`].
pub fn dataset(name: &str, part: &DatasetFilter) -> Result<DownloadedDataset> {
    Hub::from_env()?.dataset(name, part)
}
