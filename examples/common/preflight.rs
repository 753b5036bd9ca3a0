//! The preflight of an example: does the SAE belong to this model on this text?

use super::out::print_line;
use super::{Outcome, Setup, Source};
use clap::Args;
use saescope::activation_store::StoreOptions;
use saescope::model_hooks::TokenBatch;
use saescope::pretrained::preflight::{Expected, PreflightOptions, preflight};

/// Whether to ask first.
#[derive(Args, Clone, Debug)]
pub struct PreflightFlags {
    /// Go on although the preflight says that the SAE was trained for something else
    #[arg(long)]
    force: bool,
    /// Skip the preflight
    #[arg(long)]
    no_preflight: bool,
}

impl PreflightFlags {
    /// Prints the verdict; an error where it fails, unless forced. Skipped for random SAEs, which match no model.
    pub fn check(&self, source: &Source, setup: &Setup, store: StoreOptions) -> Outcome {
        let random = source.sae.as_deref().is_some_and(|sae| sae.starts_with("random:"));
        if self.no_preflight || random {
            return Ok(());
        }
        let mut options = PreflightOptions::default();
        options.expected = setup.entry.as_ref().map(Expected::from);
        let mut store = setup.store_with(store)?;
        let mut rows: Vec<Vec<u32>> = Vec::new();
        while rows.iter().map(Vec::len).sum::<usize>() < options.tokens {
            let Some(batch) = store.get_batch_tokens()? else { break };
            rows.extend(batch.rows.iter().map(|row| row.tokens.to_vec()));
        }
        if rows.is_empty() {
            // The example says itself that the text is too short.
            return Ok(());
        }
        let verdict = preflight(&setup.model, &setup.sae, &TokenBatch::new(&rows)?, &options)?;
        print_line(&verdict);
        if verdict.is_fail() && !self.force {
            return Err("the preflight failed; --force goes on all the same, --no-preflight does not ask".into());
        }
        Ok(())
    }
}
