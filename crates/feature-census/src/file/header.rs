//! Metadata of the file: one JSON object.

use crate::census::FeatureCensus;
use crate::coverage::{Coverage, Edge, Edges, Run};
use crate::options::{CensusLabels, CensusOptions};
use activation_store::{DocId, ExclusionCounts, TokenFilter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The metadata key.
pub(super) const KEY: &str = "saescope.census";
/// The metadata key of the digest.
pub(super) const DIGEST: &str = "saescope.census.digest";
const FORMAT: &str = "saescope census";
pub(super) const VERSION: u32 = 2;

/// The first two fields, which every version has.
#[derive(Deserialize)]
struct Tag {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    format: String,
    version: u32,
    pub(super) d_sae: usize,
    pub(super) tokens: u64,
    pub(super) excluded: ExclusionCounts,
    options: OptionFields,
    names: NameFields,
    runs: Vec<RunFields>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionFields {
    top: usize,
    samples_per_bin: usize,
    sample_bins: usize,
    seed: u64,
    together: Vec<u32>,
    documents: bool,
    filter: TokenFilter,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameFields {
    model: String,
    sae: String,
    hook: String,
    engine: String,
    source: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunFields {
    start: u64,
    end: u64,
    next_pos: u32,
    first: Option<(u32, u64)>,
    last: Option<(u32, u64)>,
}

impl Header {
    pub(super) fn of(census: &FeatureCensus, runs: &BTreeMap<u64, Run>) -> Self {
        let CensusOptions { top, samples_per_bin, sample_bins, seed, ref together, documents, ref filter } =
            census.options;
        let CensusLabels { model, sae, hook, engine, source } = census.names.clone();
        Self {
            format: FORMAT.into(),
            version: VERSION,
            d_sae: census.d_sae,
            tokens: census.tokens,
            excluded: census.excluded,
            options: OptionFields {
                top,
                samples_per_bin,
                sample_bins,
                seed,
                together: together.clone(),
                documents,
                filter: filter.clone(),
            },
            names: NameFields { model, sae, hook, engine, source },
            runs: runs.iter().map(|(&start, run)| RunFields::of(start, run)).collect(),
        }
    }

    /// Reads the object, after a look at format and version.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let tag: Tag = serde_json::from_str(json).map_err(|e| format!("`{KEY}` cannot be read: {e}"))?;
        if tag.format != FORMAT {
            return Err(format!("its format is `{}`, expected `{FORMAT}`", tag.format));
        }
        if tag.version != VERSION {
            return Err(format!("it is of version {}, this program reads version {VERSION}", tag.version));
        }
        serde_json::from_str(json).map_err(|e| format!("`{KEY}` cannot be read: {e}"))
    }

    pub(super) fn options(&self) -> CensusOptions {
        let of = &self.options;
        CensusOptions {
            top: of.top,
            samples_per_bin: of.samples_per_bin,
            sample_bins: of.sample_bins,
            seed: of.seed,
            together: of.together.clone(),
            documents: of.documents,
            filter: of.filter.clone(),
        }
    }

    pub(super) fn names(&self) -> CensusLabels {
        let NameFields { model, sae, hook, engine, source } = &self.names;
        let [model, sae, hook, engine, source] = [model, sae, hook, engine, source].map(String::clone);
        CensusLabels { model, sae, hook, engine, source }
    }

    /// The runs, given the features at each edge.
    pub(super) fn coverage(&self, mut edges: Vec<Vec<u32>>) -> Result<Coverage, String> {
        let mut runs = BTreeMap::new();
        let mut end = 0;
        for (i, run) in self.runs.iter().enumerate() {
            if run.start < end || run.end <= run.start {
                return Err(format!("run {i} of its rows, {} to {}, is out of order", run.start, run.end));
            }
            end = run.end;
            let mut edge = |side: usize, doc: (u32, u64)| {
                let features = edges.get_mut(2 * i + side).map(std::mem::take).unwrap_or_default();
                Edge { doc: DocId { file: doc.0, ordinal: doc.1 }, features }
            };
            let edges = match (run.first, run.last) {
                (None, None) => Edges::None,
                (Some(only), None) => Edges::Whole(edge(0, only)),
                (Some(first), Some(last)) => Edges::Two(edge(0, first), edge(1, last)),
                (None, Some(_)) => return Err(format!("run {i} of its rows has a last document and no first")),
            };
            runs.insert(run.start, Run { end: run.end, next_pos: run.next_pos, edges });
        }
        match edges.iter().position(|features| !features.is_empty()) {
            Some(edge) => Err(format!("features fired in edge {edge}, which no run has")),
            None => Ok(Coverage::from_runs(runs)),
        }
    }

    /// How many edges the runs have.
    pub(super) fn edges(&self) -> usize {
        2 * self.runs.len()
    }
}

impl RunFields {
    fn of(start: u64, run: &Run) -> Self {
        let doc = |edge: &Edge| (edge.doc.file, edge.doc.ordinal);
        let (first, last) = match &run.edges {
            Edges::None => (None, None),
            Edges::Whole(only) => (Some(doc(only)), None),
            Edges::Two(head, tail) => (Some(doc(head)), Some(doc(tail))),
        };
        Self { start, end: run.end, next_pos: run.next_pos, first, last }
    }
}
