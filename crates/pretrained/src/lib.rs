//! Published SAEs, models and texts by name.

mod error;
mod names;
mod registry;

pub use error::{Error, Result};
#[allow(unused_imports)]
use registry::model_names;
pub use registry::{Entry, Query, Registry, Release, same_model};

/// The table of published SAEs: 170 releases, 13,857 SAEs. A gzip file of tab-separated text; `data/README.md` says what its lines hold.
pub const RELEASES: &[u8] = include_bytes!("../data/releases.tsv.gz");
