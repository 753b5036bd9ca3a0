//! From rows of tokens to rows of activations, in the documents' order: [`Harvest`].

use crate::{
    ActivationBatch, ActivationSource, ActivationSpec, DocumentReport, DocumentSource, Exclusion, ExclusionCounts,
    KeepRows, PackingReport, ResolvedFilter, Result, RowIndex, StreamId, TokenFilter, TokenPos, TokenRow, TokenRows,
    sha256_hex,
};
use candle_core::{DType, Tensor};
use model_hooks::{Capture, HookPoint, HookRows, LanguageModel, TokenBatch, Tokenizer};
use std::collections::HashSet;

/// Tokens whose activations identify a model.
const DIGEST_TOKENS: usize = 32;

/// Rows of tokens for one forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRowBatch {
    /// The rows; all equally long.
    pub rows: Vec<TokenRow>,
}

impl TokenRowBatch {
    /// The tokens as the model wants them, `[batch, pos]`.
    ///
    /// # Errors
    /// An empty batch.
    pub fn tokens(&self) -> Result<TokenBatch> {
        let rows: Vec<&[u32]> = self.rows.iter().map(|row| row.tokens.as_slice()).collect();
        Ok(TokenBatch::new(&rows)?)
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Counts of what a store has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReport {
    /// Which documents were left out.
    pub documents: DocumentReport,
    /// What became of the documents' tokens.
    pub packing: PackingReport,
    /// Activation rows that went on, from all forward passes of `next_batch`.
    pub rows: u64,
    /// Activation rows of excluded tokens, by reason.
    pub excluded: ExclusionCounts,
    /// Activation rows left out at the end because they did not fill a batch (`drop_last`).
    pub dropped: u64,
}

/// Activations of rows of tokens, one forward pass after another, in the documents' order. The forward stops at the last hook point.
pub struct Harvest {
    model: LanguageModel,
    rows: TokenRows<Box<dyn DocumentSource>>,
    spec: ActivationSpec,
    last: HookPoint,
    keep: KeepRows,
    index: RowIndex,
    filter: ResolvedFilter,
    report: StoreReport,
}

impl Harvest {
    pub(crate) fn new(
        model: LanguageModel,
        rows: TokenRows<Box<dyn DocumentSource>>,
        spec: ActivationSpec,
        last: HookPoint,
        keep: KeepRows,
        filter: ResolvedFilter,
    ) -> Self {
        Self { model, rows, spec, last, keep, index: RowIndex::new(), filter, report: StoreReport::default() }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// The rows of tokens that are remembered.
    #[must_use]
    pub fn index(&self) -> &RowIndex {
        &self.index
    }

    /// Whether rows of tokens are kept as long as they are in use.
    pub(crate) fn keeps_in_use(&self) -> bool {
        self.keep == KeepRows::InUse
    }

    /// Remembers at least the rows of the latest batch.
    pub(crate) fn remember_latest(&mut self) {
        if matches!(self.keep, KeepRows::Nothing | KeepRows::InUse) {
            self.keep = KeepRows::Latest(self.spec.store_batch_size_prompts);
        }
    }

    /// Delivers the activations of every token.
    pub(crate) fn deliver_everything(&mut self) {
        self.spec.filter = TokenFilter::everything();
        self.filter = ResolvedFilter::everything();
    }

    /// Forgets the other rows of tokens.
    pub(crate) fn forget_all_but(&mut self, used: &HashSet<u64>) {
        self.index.retain(|row| used.contains(&row));
    }

    /// What has been done so far.
    #[must_use]
    pub fn report(&self) -> StoreReport {
        StoreReport { documents: self.rows.source().report(), packing: *self.rows.report(), ..self.report }
    }

    /// The next rows of tokens; the last batch may be smaller; `None` at the end (SAELens starts over instead).
    ///
    /// # Errors
    /// The documents' or the tokenizer's.
    pub fn get_batch_tokens(&mut self) -> Result<Option<TokenRowBatch>> {
        let rows = self.rows.by_ref().take(self.spec.store_batch_size_prompts).collect::<Result<Vec<_>>>()?;
        match self.keep {
            KeepRows::Nothing => {}
            KeepRows::All | KeepRows::InUse => rows.iter().cloned().for_each(|row| self.index.insert(row)),
            KeepRows::Latest(count) => {
                rows.iter().cloned().for_each(|row| self.index.insert(row));
                self.index.keep_latest(count);
            }
        }
        Ok((!rows.is_empty()).then_some(TokenRowBatch { rows }))
    }

    /// The activations of these rows at each hook, `[batch, pos', width]` of f32: heads flattened or chosen, `pos'` the kept positions.
    /// Special tokens are in it.
    ///
    /// # Errors
    /// The model's.
    pub fn activations(&self, batch: &TokenRowBatch) -> Result<Vec<Tensor>> {
        let mut capture = Capture::new(self.spec.hooks.iter().map(HookRows::point));
        self.model.hooked().forward_until(&batch.tokens()?, self.last, &mut capture)?;
        self.spec.hooks.iter().map(|hook| self.kept(&hook.gather(capture.get(hook.point())?)?)).collect()
    }

    /// The kept positions: `[batch, pos, width]` -> `[batch, pos', width]`.
    fn kept(&self, x: &Tensor) -> Result<Tensor> {
        let kept = &self.spec.positions;
        let x = match kept.last() {
            Some(&end) if (end - kept[0]) as usize + 1 == kept.len() => x.narrow(1, kept[0] as usize, kept.len())?,
            _ => x.index_select(&Tensor::new(kept.as_slice(), x.device())?, 1)?,
        };
        Ok(x.to_dtype(DType::F32)?.contiguous()?)
    }

    /// The addresses and tokens of a forward pass that are not excluded, and where they are among all; counted in the report.
    fn addresses(
        &mut self,
        batch: &TokenRowBatch,
        exclusions: &[Option<Exclusion>],
    ) -> (Vec<TokenPos>, Vec<u32>, Vec<u32>) {
        let (mut at, mut tokens, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let addresses = batch.rows.iter().flat_map(|row| self.spec.positions.iter().map(move |&pos| (row, pos)));
        for ((i, (row, pos)), exclusion) in (0u32..).zip(addresses).zip(exclusions) {
            match exclusion {
                Some(exclusion) => self.report.excluded.count(*exclusion),
                None => {
                    at.push(TokenPos { row: row.row, pos });
                    tokens.push(row.tokens[pos as usize]);
                    wanted.push(i);
                }
            }
        }
        self.report.rows += at.len() as u64;
        (at, tokens, wanted)
    }

    /// The rows of one forward pass whose tokens are not excluded.
    fn next_chunk(&mut self) -> Result<Option<ActivationBatch>> {
        let Some(batch) = self.get_batch_tokens()? else { return Ok(None) };
        let rows = self.activations(&batch)?;
        // The norm is that of the first hook's vector.
        let exclusions = self.filter.exclusions(&batch.rows, &self.spec.positions, &rows[0])?;
        let (at, tokens, wanted) = self.addresses(&batch, &exclusions);
        let whole = wanted.len() == batch.len() * self.spec.positions.len();
        let flat = |x: Tensor| -> Result<Tensor> {
            let x = x.flatten_to(1)?;
            Ok(if whole { x } else { x.index_select(&Tensor::new(wanted.as_slice(), x.device())?, 0)? })
        };
        let rows = rows.into_iter().map(flat).collect::<Result<_>>()?;
        Ok(Some(ActivationBatch { rows, at, tokens }))
    }
}

/// SHA-256 of a tokenizer.
fn tokenizer_digest(tokenizer: &Tokenizer) -> Result<String> {
    Ok(sha256_hex([tokenizer.to_json()?, format!("{:?}", tokenizer.special())]))
}

impl Harvest {
    /// SHA-256 of the activations of a fixed row of tokens, spread over the vocabulary, at the hook points.
    fn activations_digest(&self) -> Result<String> {
        let shape = self.model.shape();
        let count = DIGEST_TOKENS.min(shape.n_ctx).min(shape.d_vocab);
        let tokens: Vec<u32> = (0..count).map(|i| (i * shape.d_vocab / count) as u32).collect();
        let mut capture = Capture::new(self.spec.hooks.iter().map(HookRows::point));
        self.model.hooked().forward_until(&TokenBatch::new(&[tokens])?, self.last, &mut capture)?;
        let bytes = |hook: &HookRows| -> Result<Vec<u8>> {
            let values = capture.get(hook.point())?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect())
        };
        Ok(sha256_hex(self.spec.hooks.iter().map(bytes).collect::<Result<Vec<_>>>()?))
    }
}

impl Iterator for Harvest {
    type Item = Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}

impl ActivationSource for Harvest {
    fn spec(&self) -> &ActivationSpec {
        &self.spec
    }

    fn stream_id(&self) -> Result<StreamId> {
        Ok(StreamId {
            processing: Some(self.model.processing()),
            engine: Some(self.model.engine().to_string()),
            tokenizer_sha256: self.model.tokenizer().map(tokenizer_digest).transpose()?,
            documents: self.rows.source().digests()?,
            packing: Some(self.rows.options().clone()),
            activations_sha256: Some(self.activations_digest()?),
            ..StreamId::of_spec(&self.spec)
        })
    }

    fn token_rows(&self) -> Option<&RowIndex> {
        (self.keep != KeepRows::Nothing).then_some(&self.index)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.model.tokenizer()
    }

    /// Tokenizes and packs; the model does not run.
    fn skip_batches(&mut self, batches: u64) -> Result<u64> {
        for passed in 0..batches {
            let Some(batch) = self.get_batch_tokens()? else { return Ok(passed) };
            // In the documents' order nothing is excluded.
            self.report.rows += (batch.len() * self.spec.positions.len()) as u64;
        }
        Ok(batches)
    }
}
