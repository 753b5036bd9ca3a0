//! The evaluation itself: rows in, sums out.

use super::features::{FeatureCounts, l0_l1};
use super::metric::BatchSums;
use super::sites::{Plain, ReplacementRuns};
use super::sums::{Term, Terms, Units, units_of_row};
use super::tokens::{Batch, TokenOfBatch, add};
use super::{EvalError, EvalOptions, EvalPhase, EvalProgress, Evaluation};
use crate::Result;
use activation_store::{Exclusion, ExclusionCounts, Origin, ResolvedFilter, TokenPos, TokenRow};
use candle_core::Tensor;
use model_hooks::{LanguageModel, Predictions, TokenBatch};
use sae_core::SparseCoder;
use sae_hooks::CoderHooks;

/// Evaluates any coder on rows of tokens.
///
/// For every batch the model runs once plain and once with each of: the reconstruction, zeros, the mean at the output hook. These later runs begin at the block of the
/// hook, with the residual stream that the plain run had there: the same arithmetic on the same values, so nothing changes but the time. The coder
/// runs once, on the plain run's activations (which are those that it would see in the run with the SAE).
///
/// Memory: one batch's activations and reconstructions, two runs' logits of `forward_rows` rows, and at most [`EvalOptions::held_bytes`] for the sums of each document
/// (`16 (d_out + 20)` bytes) and, with mean ablation, the rows of tokens, which are read twice.
///
/// # Errors
/// An option that cannot work, a coder that does not fit its hooks, no tokens that count, a value that is not finite, and those of rows, model and coder.
pub fn evaluate(
    model: &LanguageModel,
    coder: &dyn SparseCoder,
    hooks: CoderHooks,
    rows: &mut dyn Iterator<Item = activation_store::Result<TokenRow>>,
    options: &EvalOptions,
    progress: &mut dyn FnMut(EvalProgress),
) -> Result<Evaluation> {
    options.check()?;
    let sites = ReplacementRuns::new(model, coder, hooks)?;
    let limit = options.rows.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
    let mut rows = rows.take(limit);
    let filter = options.filter.resolve(model.tokenizer())?;
    let d_vocab = model.shape().d_vocab;
    let mut run = Run { sites, coder, options, filter, d_vocab, mean: None, progress, total: options.rows, held: 0 };
    let mut state = State::new(coder);
    if options.mean() {
        let rows = run.hold(&mut rows)?;
        run.total = Some(rows.len() as u64);
        run.mean = run.mean_at_hook(&rows)?;
        run.all(&mut rows.into_iter().map(Ok), &mut state)?;
    } else {
        run.all(&mut rows, &mut state)?;
    }
    state.check(options)?;
    let (rows_done, rows) = (state.rows, Some(state.rows));
    progress(EvalProgress { phase: EvalPhase::Intervals, rows_done, rows });
    Ok(Evaluation::of(state, options, hooks))
}

/// What has been added up so far.
pub(super) struct State {
    pub(super) units: Units,
    pub(super) batches: Vec<BatchSums>,
    pub(super) features: FeatureCounts,
    pub(super) rows: u64,
    pub(super) tokens: u64,
    pub(super) counted: u64,
    pub(super) excluded: ExclusionCounts,
    pub(super) predictions: u64,
    pub(super) context_size: usize,
}

impl State {
    fn new(coder: &dyn SparseCoder) -> Self {
        Self {
            units: Units::new(coder.d_out()),
            batches: Vec::new(),
            features: FeatureCounts::new(coder.d_sae()),
            rows: 0,
            tokens: 0,
            counted: 0,
            excluded: ExclusionCounts::default(),
            predictions: 0,
            context_size: 0,
        }
    }

    fn check(&self, options: &EvalOptions) -> Result<()> {
        let (rows, tokens) = (self.rows, self.tokens);
        if self.counted == 0 {
            return Err(EvalError::NoTokens { rows, tokens, excluded: tokens }.into());
        }
        if options.downstream && self.predictions == 0 {
            return Err(EvalError::NoPredictions { rows, tokens: self.counted }.into());
        }
        Ok(())
    }
}

/// An evaluation under way.
struct Run<'a, 'p> {
    sites: ReplacementRuns<'a>,
    coder: &'a dyn SparseCoder,
    options: &'a EvalOptions,
    filter: ResolvedFilter,
    d_vocab: usize,
    mean: Option<Vec<f32>>,
    progress: &'p mut dyn FnMut(EvalProgress),
    total: Option<u64>,
    /// Bytes of the rows that are held.
    held: u64,
}

/// Losses (`batch * (pos - 1)`) and divergences (`batch * pos`) of a run.
struct Compared {
    loss: Term,
    losses: Vec<f64>,
    kl: Option<(Term, Vec<f64>)>,
}

impl Run<'_, '_> {
    /// All rows, for mean ablation.
    fn hold(&mut self, rows: &mut dyn Iterator<Item = activation_store::Result<TokenRow>>) -> Result<Vec<TokenRow>> {
        let mut held = Vec::new();
        for row in rows {
            let row = row?;
            self.held += row_bytes(&row);
            self.allow("the rows of tokens for mean ablation", held.len() as u64 + 1, self.held)?;
            held.push(row);
        }
        Ok(held)
    }

    fn allow(&self, what: &'static str, rows: u64, bytes: u64) -> Result<()> {
        let allowed = self.options.held_bytes;
        if bytes > allowed { Err(EvalError::Held { what, rows, bytes, allowed }.into()) } else { Ok(()) }
    }

    /// The mean of the counted tokens' activations at the output hook; nothing where none counts.
    fn mean_at_hook(&mut self, rows: &[TokenRow]) -> Result<Option<Vec<f32>>> {
        let (mut sum, mut count) = (vec![0.0; self.sites.output.width()], 0_u64);
        let mut done = 0;
        for rows in rows.chunks(self.options.batch_size_prompts) {
            let plain = self.sites.plain(&tokens_of(rows)?, false)?;
            let target: Vec<f32> = plain.target.flatten_all()?.to_vec1()?;
            let excluded = self.exclusions(rows, &plain.x)?;
            for (x, _) in target.chunks_exact(sum.len()).zip(&excluded).filter(|(_, exclusion)| exclusion.is_none()) {
                add(&mut sum, x);
                count += 1;
            }
            done += rows.len() as u64;
            (self.progress)(EvalProgress { phase: EvalPhase::Mean, rows_done: done, rows: self.total });
        }
        Ok((count > 0).then(|| sum.iter().map(|sum| (sum / count as f64) as f32).collect()))
    }

    /// Every batch.
    fn all(
        &mut self,
        rows: &mut dyn Iterator<Item = activation_store::Result<TokenRow>>,
        state: &mut State,
    ) -> Result<()> {
        loop {
            let batch: Vec<TokenRow> =
                rows.take(self.options.batch_size_prompts).collect::<activation_store::Result<_>>()?;
            let Some(first) = batch.first() else { return Ok(()) };
            state.context_size = state.context_size.max(first.tokens.len());
            let at_once = self.options.rows_at_once(first.tokens.len(), self.d_vocab);
            let mut collected = Batch::default();
            for rows in batch.chunks(at_once) {
                self.forward(rows, state, &mut collected)?;
            }
            state.batches.extend(collected.add_to(&mut state.units, self.sites.output.width())?);
            let held = self.held.saturating_add(state.units.bytes());
            self.allow("the sums of documents and the rows held", state.rows, held)?;
            (self.progress)(EvalProgress { phase: EvalPhase::Runs, rows_done: state.rows, rows: self.total });
        }
    }

    /// The runs of some rows.
    fn forward(&self, rows: &[TokenRow], state: &mut State, batch: &mut Batch) -> Result<()> {
        let tokens = tokens_of(rows)?;
        let mut plain = self.sites.plain(&tokens, self.options.downstream)?;
        let (x, target): (Vec<f32>, Vec<f32>) =
            (plain.x.flatten_all()?.to_vec1()?, plain.target.flatten_all()?.to_vec1()?);
        finite("the activation that goes in", &x, rows)?;
        finite("the activation that is reconstructed", &target, rows)?;
        let reconstruction = self.coder.forward(&plain.x)?;
        let x_hat: Vec<f32> = reconstruction.x_hat.flatten_all()?.to_vec1()?;
        finite("the reconstruction", &x_hat, rows)?;
        let excluded = self.exclusions(rows, &plain.x)?;
        let compared = self.compare(&tokens, &mut plain, &target, &x_hat, &excluded)?;
        excluded.iter().flatten().for_each(|exclusion| state.excluded.count(*exclusion));

        let (pos, width) = (tokens.pos(), self.sites.output.width());
        for (r, row) in rows.iter().enumerate() {
            let units = units_of_row(row);
            for (p, unit) in units.into_iter().enumerate().filter(|(p, _)| excluded[r * pos + p].is_none()) {
                let i = r * pos + p;
                let mut terms = Terms::default();
                terms[Term::Token] = 1.0;
                (terms[Term::L0], terms[Term::L1]) = l0_l1(&reconstruction.codes.features, i);
                for run in &compared {
                    run.fill(&mut terms, r, p, pos);
                }
                let (features, values) = reconstruction.codes.features.row(i);
                state.features.add(state.rows + r as u64, features, values);
                state.counted += 1;
                state.predictions += u64::from(p + 1 < pos);
                batch.tokens.push(TokenOfBatch { at: TokenPos { row: row.row, pos: p as u32 }, unit, terms });
                batch.x.extend_from_slice(&target[i * width..][..width]);
                batch.x_hat.extend_from_slice(&x_hat[i * width..][..width]);
            }
        }
        state.rows += rows.len() as u64;
        state.tokens += (rows.len() * pos) as u64;
        Ok(())
    }

    /// Why each token of these rows does not count, if it does not; `x` is what goes in.
    fn exclusions(&self, rows: &[TokenRow], x: &Tensor) -> Result<Vec<Option<Exclusion>>> {
        let pos = rows.first().map_or(0, |row| row.tokens.len());
        Ok(self.filter.exclusions(rows, &(0..pos as u32).collect::<Vec<_>>(), x)?)
    }

    /// The plain run's losses, and those of the others with their divergences.
    fn compare(
        &self,
        tokens: &TokenBatch,
        plain: &mut Plain,
        target: &[f32],
        x_hat: &[f32],
        excluded: &[Option<Exclusion>],
    ) -> Result<Vec<Compared>> {
        let Some(logits) = plain.logits.take() else { return Ok(Vec::new()) };
        let original = Predictions::new(logits)?;
        let mut all = vec![Compared { loss: Term::LossPlain, losses: original.loss(tokens)?, kl: None }];
        let zeros = self.options.zero().then(|| vec![0.0; target.len()]);
        let mean = self.mean.as_ref().map(|mean| mean.repeat(target.len() / mean.len()));
        let runs = [
            (Term::LossSae, Term::KlSae, Some(x_hat.to_vec()), true),
            (Term::LossZero, Term::KlZero, zeros, self.options.spare_excluded),
            (Term::LossMean, Term::KlMean, mean, self.options.spare_excluded),
        ];
        for (loss, kl, value, spares) in runs {
            let Some(mut value) = value else { continue };
            if spares {
                self.pass_excluded(excluded, &mut value, target);
            }
            let run = Predictions::new(self.sites.rerun(tokens, plain, value)?)?;
            all.push(Compared { loss, losses: run.loss(tokens)?, kl: Some((kl, original.kl(&run)?)) });
        }
        Ok(all)
    }

    /// Puts the original activation back at the excluded tokens.
    fn pass_excluded(&self, excluded: &[Option<Exclusion>], value: &mut [f32], target: &[f32]) {
        let width = self.sites.output.width();
        let vectors = value.chunks_exact_mut(width).zip(target.chunks_exact(width)).zip(excluded);
        vectors.filter(|(_, exclusion)| exclusion.is_some()).for_each(|((value, x), _)| value.copy_from_slice(x));
    }
}

impl Compared {
    /// Writes what the run says of position `p` of row `r`.
    fn fill(&self, terms: &mut Terms, r: usize, p: usize, pos: usize) {
        if p + 1 < pos {
            terms[Term::Prediction] = 1.0;
            terms[self.loss] = self.losses[r * (pos - 1) + p];
        }
        if let Some((term, kl)) = &self.kl {
            terms[*term] = kl[r * pos + p];
        }
    }
}

/// What a row takes in memory.
fn row_bytes(row: &TokenRow) -> u64 {
    let (tokens, origin) =
        (row.tokens.capacity() * size_of::<u32>(), row.origin.capacity() * size_of::<Option<Origin>>());
    (size_of::<TokenRow>() + tokens + origin) as u64
}

fn tokens_of(rows: &[TokenRow]) -> Result<TokenBatch> {
    let rows: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
    Ok(TokenBatch::new(&rows)?)
}

/// Every value must be finite; the error says which token has one that is not.
fn finite(what: &'static str, flat: &[f32], rows: &[TokenRow]) -> Result<()> {
    let Some(i) = flat.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let pos = rows[0].tokens.len();
    let token = i / (flat.len() / (rows.len() * pos));
    let at = TokenPos { row: rows[token / pos].row, pos: (token % pos) as u32 };
    Err(EvalError::NotFinite { what, value: f64::from(flat[i]), at }.into())
}
