//! Merge of the censuses of two parts of a text.

use crate::census::FeatureCensus;
use crate::error::{Error, Result};
use crate::fixed_point::MOST_TOKENS;
use rayon::prelude::*;
use std::fmt::Debug;

impl FeatureCensus {
    /// Checks that another census is of the same SAE, with the same options and names.
    pub(crate) fn check_like(&self, other: &Self) -> Result<()> {
        same("numbers of features", &self.d_sae, &other.d_sae)?;
        same("options", &self.options, &other.options)?;
        same("names", &self.names, &other.names)
    }

    /// Adds the counts of another census. With [`CensusOptions::documents`](crate::CensusOptions::documents) both say which rows they saw, and rows in common
    /// are an error; without, that the parts do not overlap is the caller's promise.
    ///
    /// # Errors
    /// Another SAE, other options or names, rows in common, or too many tokens; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.check_like(other)?;
        let tokens = self.tokens + other.tokens;
        if tokens > MOST_TOKENS {
            return Err(Error::TooManyTokens { tokens });
        }
        self.settle();
        let (runs, twice) = other.coverage.runs(other.in_latest_document());
        if let Some(row) = self.coverage.overlap(&runs) {
            return Err(Error::Overlap { row });
        }
        self.tokens = tokens;
        self.excluded.add(&other.excluded);
        self.shards.par_iter_mut().zip(&other.shards).for_each(|(ours, theirs)| ours.merge(theirs));
        let mut counted_twice = twice;
        for (start, run) in runs {
            counted_twice.extend(self.coverage.insert(start, run));
        }
        for feature in counted_twice {
            self.tally_mut(feature).documents -= 1;
        }
        Ok(())
    }
}

pub(crate) fn same<T: PartialEq + Debug>(what: &'static str, left: &T, right: &T) -> Result<()> {
    if left == right {
        return Ok(());
    }
    let (left, right) = (format!("{left:?}"), format!("{right:?}"));
    Err(Error::Different { what, left, right })
}
