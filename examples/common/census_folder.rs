//! The folder of a census: its file, its page, and what an interrupted run leaves.

use super::Outcome;
use clap::Args;
use saescope::feature_census::{Checkpoints, FeatureCensus};
use std::path::PathBuf;

/// Where a census goes.
#[derive(Args, Clone, Debug)]
pub struct CensusFolder {
    /// Where the census and its page go
    #[arg(long, default_value = "target/census")]
    pub out: PathBuf,
    /// Goes on with a census that was interrupted in the same folder
    #[arg(long)]
    pub resume: bool,
    /// Writes down where the run is after so many tokens [default: every five minutes]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: Option<u64>,
}

impl CensusFolder {
    /// The census itself.
    pub fn file(&self) -> PathBuf {
        self.out.join("census.parquet")
    }

    /// The page.
    pub fn page(&self) -> PathBuf {
        self.out.join("census.html")
    }

    /// What an interrupted run leaves.
    pub fn checkpoints(&self) -> Checkpoints {
        let checkpoints = Checkpoints::new(self.out.join("checkpoints"));
        match self.checkpoint_every {
            Some(tokens) => checkpoints.every_tokens(tokens),
            None => checkpoints,
        }
    }

    /// Refuses a folder with a census of something else, or with one that waits to be resumed.
    pub fn check(&self, census: &FeatureCensus) -> Outcome {
        let out = self.out.display();
        if !self.resume && self.checkpoints().exist()? {
            return Err(format!(
                "{out} holds a census that was interrupted: go on with --resume, or give another --out"
            )
            .into());
        }
        if !self.file().exists() {
            return Ok(());
        }
        let most = census.options().memory_bytes(census.d_sae()).saturating_mul(64);
        let there = FeatureCensus::load(&self.file(), most)?;
        let parts = [
            ("engine", &there.names().engine, &census.names().engine),
            ("model", &there.names().model, &census.names().model),
            ("SAE", &there.names().sae, &census.names().sae),
            ("text", &there.names().source, &census.names().source),
        ];
        match parts.into_iter().find(|(_, there, ours)| there != ours) {
            None => Ok(()),
            Some((what, there, ours)) => {
                Err(format!("{out} holds a census of another {what}, `{there}`, not `{ours}`: give another --out")
                    .into())
            }
        }
    }
}
