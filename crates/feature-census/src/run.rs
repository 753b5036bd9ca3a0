//! Pass over a source of activations for the censuses of one or more SAEs: [`CensusRun`].

use crate::batch::CensusBatch;
use crate::census::FeatureCensus;
use crate::checkpoint::{Checkpoints, DamagedCheckpoint, Identity};
use crate::coder_digest::coder_digest;
use crate::error::{Error, Result};
use crate::intervals::IntervalPass;
use crate::options::CensusOptions;
use activation_store::{ActivationBatch, ActivationSource, ActivationSpec, DocId, Exclusion, ResolvedFilter, RowIndex};
use sae_core::SparseCoder;
use std::time::Instant;

/// Progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CensusProgress {
    /// Batches done.
    pub batches: u64,
    /// Tokens that the source delivered, excluded ones among them.
    pub tokens: u64,
    /// Tokens to stop after, if limited.
    pub of: Option<u64>,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CensusReport {
    /// Batches taken from the source.
    pub batches: u64,
    /// Tokens that the source delivered, excluded ones among them.
    pub tokens: u64,
    /// How many of these tokens were counted before this call: by an earlier one, or by a run whose checkpoint was found.
    pub resumed_at: u64,
    /// Whether the source ended before the tokens to stop after.
    pub ended_early: bool,
    /// Checkpoints that could not be read, newest first: the run went on from an earlier one, and counted again what came after it.
    pub damaged_checkpoints: Vec<DamagedCheckpoint>,
}

/// Counter of an SAE's features.
enum Counter {
    Census(Box<FeatureCensus>),
    Intervals(Box<IntervalPass>),
}

impl Counter {
    fn options(&self) -> &CensusOptions {
        match self {
            Self::Census(census) => census.options(),
            Self::Intervals(pass) => pass.options(),
        }
    }

    fn census(&self) -> Option<&FeatureCensus> {
        match self {
            Self::Census(census) => Some(census),
            Self::Intervals(_) => None,
        }
    }

    /// Whether it reads of which document a token is.
    fn needs_documents(&self) -> bool {
        self.options().documents && self.census().is_some()
    }

    fn push(&mut self, batch: &CensusBatch) -> Result<()> {
        match self {
            Self::Census(census) => census.push(batch),
            Self::Intervals(pass) => pass.push(batch),
        }
    }
}

/// An SAE, the tensor of the batch that it reads, and its counter.
struct Target<'a> {
    hook: usize,
    coder: &'a dyn SparseCoder,
    counter: Counter,
    filter: ResolvedFilter,
    excluded: Vec<Option<Exclusion>>,
}

impl<'a> Target<'a> {
    /// The filter is resolved when the run starts.
    fn new(hook: usize, coder: &'a dyn SparseCoder, counter: Counter) -> Self {
        Self { hook, coder, counter, filter: ResolvedFilter::everything(), excluded: Vec::new() }
    }
}

/// One pass over a source of activations, for any number of SAEs at any of its hook points: each batch is encoded by each SAE and counted in its
/// census.
///
/// ```no_run
/// # use activation_store::{ActivationStore, Documents, DocumentOptions, StoreOptions};
/// # use feature_census::{CensusOptions, CensusRun, FeatureCensus};
/// # use sae_core::{Sae, SparseCoder};
/// # fn example(model: &model_hooks::LanguageModel, sae: &Sae) -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let text = Documents::open(&["corpus/*.jsonl"], DocumentOptions::default())?;
/// // In the documents' order, not through the shuffling ring, so that documents can be counted.
/// let mut harvest = ActivationStore::from_sae(model, sae, text, StoreOptions::default())?.in_order();
/// let census = FeatureCensus::new(sae.d_sae(), CensusOptions::default())?;
/// let mut run = CensusRun::new().add(0, sae, census)?.max_tokens(1_000_000);
/// run.run(&mut harvest, &mut |progress| println!("{} tokens", progress.tokens))?;
/// let census = run.finish().remove(0);
/// println!("{} dead features", census.dead().len());
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct CensusRun<'a> {
    targets: Vec<Target<'a>>,
    max_tokens: Option<u64>,
    batches: u64,
    tokens: u64,
    documents: Vec<Option<DocId>>,
    checkpoints: Option<Checkpoints>,
    /// The part of the latest batch behind the limit of tokens, and the spec of its source.
    rest: Option<(ActivationBatch, ActivationSpec)>,
}

impl<'a> CensusRun<'a> {
    /// A run without SAEs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an SAE that reads tensor `hook` of the batches, and the census that counts its features.
    ///
    /// # Errors
    /// A census of another number of features.
    pub fn add(mut self, hook: usize, coder: &'a dyn SparseCoder, census: FeatureCensus) -> Result<Self> {
        misfit("the census's d_sae", census.d_sae(), "the SAE's", coder.d_sae())?;
        self.targets.push(Target::new(hook, coder, Counter::Census(Box::new(census))));
        Ok(self)
    }

    /// Adds an SAE that reads tensor `hook` of the batches, and intervals of some of its features to be filled. Checkpoints do not hold them: a run with
    /// checkpoints refuses them.
    ///
    /// # Errors
    /// Intervals of an SAE with another number of features.
    pub fn add_intervals(mut self, hook: usize, coder: &'a dyn SparseCoder, pass: IntervalPass) -> Result<Self> {
        misfit("the intervals' d_sae", pass.d_sae(), "the SAE's", coder.d_sae())?;
        self.targets.push(Target::new(hook, coder, Counter::Intervals(Box::new(pass))));
        Ok(self)
    }

    /// Stops after exactly so many tokens of the source (excluded ones count), whatever its batches. A later call of [`run`](Self::run) that stops later goes on with
    /// the very next token, if it is given the same source again.
    #[must_use]
    pub fn max_tokens(mut self, tokens: u64) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Writes checkpoints, from which a killed run goes on: the same SAEs, options and names, and a
    /// source that delivers the same batches from the start again, which is checked ([`StreamId`](activation_store::StreamId), [`coder_digest`]): another text, tokenizer, processing, packing or SAE is
    /// [`Error::OtherRun`]. What was written is read at the beginning of [`run`](Self::run); the final
    /// censuses are those of an uninterrupted run, byte for byte when saved.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Removes the checkpoints. Call it when the censuses are saved.
    ///
    /// # Errors
    /// I/O.
    pub fn remove_checkpoints(&self) -> Result<()> {
        self.checkpoints.as_ref().map_or(Ok(()), Checkpoints::remove)
    }

    /// Runs until the source ends, or to the tokens to stop after. The SAEs' censuses go on from where they are.
    ///
    /// # Errors
    /// [`Error::NoDocuments`] when a census counts documents and the source does not remember its rows, and
    /// [`activation_store::Error::NoTokenRow`] when it excludes inserted tokens; [`activation_store::Error::NoSpecialTokens`] when it excludes special tokens
    /// and the source has no tokenizer; an SAE of
    /// another width than its hook; the source's, the SAEs' and the censuses' own.
    pub fn run(
        &mut self,
        source: &mut dyn ActivationSource,
        progress: &mut dyn FnMut(CensusProgress),
    ) -> Result<CensusReport> {
        self.check(source)?;
        for target in &mut self.targets {
            target.filter = target.counter.options().filter.resolve(source.tokenizer())?;
        }
        let identity = self.identity(source)?;
        let damaged_checkpoints = self.resume(source, identity.as_ref())?;
        let resumed_at = self.tokens;
        let mut written = (Instant::now(), self.batches, self.tokens);
        while self.left() > 0 {
            // The rest of a batch was counted with its first part.
            let (batch, new) = match self.rest.take() {
                Some((rest, spec)) if spec == *source.spec() => (rest, 0),
                _ => match source.next().transpose()? {
                    Some(batch) => (batch, 1),
                    None => break,
                },
            };
            let (batch, rest) = self.cut(batch)?;
            self.take(&batch, source.token_rows())?;
            self.batches += new;
            self.tokens += batch.len() as u64;
            self.rest = rest.map(|rest| (rest, source.spec().clone()));
            // No checkpoint inside a batch: `skip_batches` skips whole batches.
            if self.rest.is_none() {
                self.write_down(identity.as_ref(), &mut written)?;
            }
            progress(CensusProgress { batches: self.batches, tokens: self.tokens, of: self.max_tokens });
        }
        let ended_early = self.max_tokens.is_some_and(|tokens| self.tokens < tokens);
        Ok(CensusReport { batches: self.batches, tokens: self.tokens, resumed_at, ended_early, damaged_checkpoints })
    }

    /// The censuses so far, in the order in which their SAEs were added.
    pub fn censuses(&self) -> impl Iterator<Item = &FeatureCensus> {
        self.targets.iter().filter_map(|target| target.counter.census())
    }

    /// The censuses, in the order in which their SAEs were added.
    #[must_use]
    pub fn finish(self) -> Vec<FeatureCensus> {
        let census = |target: Target| match target.counter {
            Counter::Census(census) => Some(*census),
            Counter::Intervals(_) => None,
        };
        self.targets.into_iter().filter_map(census).collect()
    }

    /// The intervals, in the order in which they were added.
    #[must_use]
    pub fn into_intervals(self) -> Vec<IntervalPass> {
        let pass = |target: Target| match target.counter {
            Counter::Census(_) => None,
            Counter::Intervals(pass) => Some(*pass),
        };
        self.targets.into_iter().filter_map(pass).collect()
    }

    /// The identity of the run; `None` without checkpoints.
    fn identity(&self, source: &dyn ActivationSource) -> Result<Option<Identity>> {
        if self.checkpoints.is_none() {
            return Ok(None);
        }
        let saes = self.targets.iter().map(|target| coder_digest(target.coder)).collect::<Result<_>>()?;
        Ok(Some(Identity { stream: source.stream_id()?, saes }))
    }

    /// Goes on from the latest checkpoint, if there is one and nothing was done yet. Returns the later ones, which cannot be read.
    fn resume(
        &mut self,
        source: &mut dyn ActivationSource,
        identity: Option<&Identity>,
    ) -> Result<Vec<DamagedCheckpoint>> {
        let (Some(checkpoints), Some(identity), 0) = (&self.checkpoints, identity, self.batches) else {
            return Ok(Vec::new());
        };
        let empty: Vec<_> = self.censuses().collect();
        if empty.len() < self.targets.len() {
            let (expected, found) = ("none in a run with intervals", "some".into());
            return Err(Error::Option { option: "checkpoints", expected, found });
        }
        let Some(found) = checkpoints.latest(identity, &empty)? else { return Ok(Vec::new()) };
        if let Some(most) = self.max_tokens.filter(|most| *most < found.tokens) {
            return Err(Error::Beyond { found: found.tokens, most });
        }
        let passed = source.skip_batches(found.batches)?;
        if passed < found.batches {
            return Err(Error::SourceEnded { found: passed, expected: found.batches });
        }
        (self.batches, self.tokens) = (found.batches, found.tokens);
        self.targets
            .iter_mut()
            .zip(found.censuses)
            .for_each(|(target, census)| target.counter = Counter::Census(Box::new(census)));
        Ok(found.damaged)
    }

    /// Writes a checkpoint when it is due; `written` holds the time, batch and token of the latest one.
    fn write_down(&self, identity: Option<&Identity>, written: &mut (Instant, u64, u64)) -> Result<()> {
        let (Some(checkpoints), Some(identity)) = (&self.checkpoints, identity) else { return Ok(()) };
        if !checkpoints.due(written.0.elapsed(), self.batches - written.1, self.tokens - written.2) {
            return Ok(());
        }
        checkpoints.write(identity, self.batches, self.tokens, &self.censuses().collect::<Vec<_>>())?;
        *written = (Instant::now(), self.batches, self.tokens);
        Ok(())
    }

    fn left(&self) -> u64 {
        self.max_tokens.map_or(u64::MAX, |tokens| tokens.saturating_sub(self.tokens))
    }

    fn check(&self, source: &dyn ActivationSource) -> Result<()> {
        let hooks = &source.spec().hooks;
        for target in &self.targets {
            let Some(hook) = hooks.get(target.hook) else {
                let found = target.hook.to_string();
                return Err(Error::Option { option: "hook", expected: "one of the source's hooks", found });
            };
            misfit("the hook's width", hook.width(), "the SAE's d_in", target.coder.d_in())?;
        }
        Ok(())
    }

    /// The part of a batch before the tokens to stop after, and the part behind, if there is one.
    fn cut(&self, mut batch: ActivationBatch) -> Result<(ActivationBatch, Option<ActivationBatch>)> {
        let (left, len) = (usize::try_from(self.left()).unwrap_or(usize::MAX), batch.len());
        if len <= left {
            return Ok((batch, None));
        }
        let part =
            |start, n| batch.rows.iter().map(|rows| rows.narrow(0, start, n)).collect::<candle_core::Result<_>>();
        let (before, behind) = (part(0, left)?, part(left, len - left)?);
        let rest = ActivationBatch { rows: behind, at: batch.at.split_off(left), tokens: batch.tokens.split_off(left) };
        batch.rows = before;
        Ok((batch, Some(rest)))
    }

    fn take(&mut self, batch: &ActivationBatch, rows: Option<&RowIndex>) -> Result<()> {
        let documents = self.targets.iter().any(|target| target.counter.needs_documents());
        self.documents.clear();
        if documents {
            find_documents(batch, rows.ok_or(Error::NoDocuments)?, &mut self.documents)?;
        }
        for target in &mut self.targets {
            let activations = batch.rows.get(target.hook).ok_or(Error::Batch {
                what: "tensors",
                found: batch.rows.len(),
                expected: target.hook + 1,
            })?;
            let codes = target.coder.encode(activations)?;
            target.filter.exclusions_of_batch(batch, activations, rows, &mut target.excluded)?;
            let mut part = CensusBatch::new(&batch.at, &batch.tokens, &codes.features);
            if documents {
                part = part.documents(&self.documents);
            }
            if !target.filter.is_everything() {
                part = part.excluded(&target.excluded);
            }
            target.counter.push(&part)?;
        }
        Ok(())
    }
}

fn misfit(left: &'static str, left_size: usize, right: &'static str, right_size: usize) -> Result<()> {
    if left_size == right_size { Ok(()) } else { Err(Error::SizeMismatch { left, left_size, right, right_size }) }
}

/// Appends the document of each token of the batch.
fn find_documents(batch: &ActivationBatch, rows: &RowIndex, documents: &mut Vec<Option<DocId>>) -> Result<()> {
    let mut row = None;
    for at in &batch.at {
        if row.is_none_or(|row: &activation_store::TokenRow| row.row != at.row) {
            row = rows.get(at.row);
        }
        let origin = row.and_then(|row| row.origin.get(at.pos as usize)).ok_or(Error::NoDocuments)?;
        documents.push(origin.as_ref().map(|origin| origin.doc));
    }
    Ok(())
}
