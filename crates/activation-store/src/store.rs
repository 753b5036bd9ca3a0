//! The store: documents in, batches of activations out.

use crate::{
    ActivationBatch, ActivationSource, ActivationSpec, DocumentSource, Error, Harvest, Result, RowIndex,
    ShuffleOptions, Shuffled, StoreOptions, StoreReport, StreamId, TokenRowBatch, TokenRows, Tokenize, TokenizedText,
};
use candle_core::Tensor;
use model_hooks::{HookPoint, HookRows, HookSelector, LanguageModel, Tokenizer};
use sae_core::{SaeMetadata, SparseCoder};
use std::sync::Arc;

/// Activations of a model on documents, with SAELens' parameter names and meaning.
///
/// [`get_batch_tokens`](Self::get_batch_tokens) and [`activations`](Self::activations) are the two halves that the notebook's loop
/// calls; [`next_batch`](Self::next_batch) delivers shuffled rows from a ring of fixed size. All draw on one stream of documents, which ends
/// (SAELens starts over). Memory is bounded by [`crate::memory_bytes`] of the [`spec`](ActivationSource::spec).
pub struct ActivationStore {
    stream: Shuffled<Harvest>,
}

impl ActivationStore {
    /// A store of the activations that an SAE, transcoder or other dictionary reads: hook point, head, context size, BOS, positions, separator and excluded tokens
    /// come from its metadata where the options do not set them.
    ///
    /// # Errors
    /// [`Error::Metadata`] for what neither says, [`Error::Width`] when the SAE's `d_in` is not the hook point's width,
    /// and those of [`new`](Self::new).
    pub fn from_sae(
        model: &LanguageModel,
        sae: &dyn SparseCoder,
        documents: impl DocumentSource + 'static,
        options: StoreOptions,
    ) -> Result<Self> {
        let options = options.or_metadata(sae.metadata().unwrap_or(&SaeMetadata::default()))?;
        let name = options.hook_name.as_deref().unwrap_or_default();
        let selector = HookSelector { point: find_hook(model, name)?, head: options.hook_head_index };
        let hook = HookRows::resolve(selector, model.shape())?;
        if hook.width() != sae.d_in() {
            return Err(Error::Width {
                hook: hook.to_string(),
                model: model.name().into(),
                found: hook.width(),
                expected: sae.d_in(),
            });
        }
        Self::new(model, [selector], documents, options)
    }

    /// A store of the activations at these hook points, one tensor each in every batch, all from one forward pass.
    /// `options.hook_name` is not read; `options.context_size` must be set.
    ///
    /// # Errors
    /// [`Error::MissingHook`] for a point that the model lacks, [`model_hooks::Error::NotRows`] for scores and patterns,
    /// [`model_hooks::Error::NoSuchHead`], [`Error::Option`] for a context longer than `n_ctx` and other values that cannot work.
    pub fn new<H: Into<HookSelector>>(
        model: &LanguageModel,
        hooks: impl IntoIterator<Item = H>,
        documents: impl DocumentSource + 'static,
        options: StoreOptions,
    ) -> Result<Self> {
        let hooks = hooks.into_iter().map(|hook| hook_rows(model, hook.into())).collect::<Result<Vec<_>>>()?;
        let last = hooks.iter().map(HookRows::point).max().ok_or_else(|| Error::Option {
            option: "hooks",
            found: "an empty list".into(),
            expected: "at least one hook point".into(),
        })?;
        if options.store_batch_size_prompts == 0 {
            let option = "store_batch_size_prompts";
            return Err(Error::Option { option, found: "0".into(), expected: "at least 1".into() });
        }
        let packing = options.packing(model)?;
        let positions = options.positions(packing.context_size)?;
        let (filter, resolved) = options.filter(model)?;
        let ring_rows = options.n_batches_in_buffer.saturating_mul(positions.len());
        let batch_rows = options.store_batch_size_prompts.saturating_mul(positions.len());
        let spec = ActivationSpec {
            context_size: packing.context_size,
            positions,
            filter,
            store_batch_size_prompts: options.store_batch_size_prompts,
            ..ActivationSpec::new(model.name(), hooks, batch_rows)
        };
        let tokenizer = model.tokenizer().map(|_| Arc::new(OfModel(model.clone())) as Arc<dyn Tokenize>);
        let documents: Box<dyn DocumentSource> = Box::new(documents);
        let rows = TokenRows::new(documents, tokenizer, packing)?;
        let harvest = Harvest::new(model.clone(), rows, spec, last, options.keep_rows, resolved);
        let shuffling = ShuffleOptions {
            ring_rows,
            batch_rows: options.train_batch_size_tokens,
            shuffle: options.shuffle,
            mix_fraction: options.mix_fraction,
            drop_last: options.drop_last,
        };
        Ok(Self { stream: Shuffled::new(harvest, shuffling)? })
    }

    /// The next `store_batch_size_prompts` rows of tokens; fewer at the end, then `None`. (SAELens drops what does not fill the
    /// last batch and starts over.)
    ///
    /// # Errors
    /// The documents' or the tokenizer's.
    pub fn get_batch_tokens(&mut self) -> Result<Option<TokenRowBatch>> {
        self.stream.source_mut().get_batch_tokens()
    }

    /// The activations of these rows at the (first) hook, `[batch, pos', width]`: heads flattened or chosen, `pos'` the kept
    /// positions, special tokens included. The forward stops exactly at the last hook.
    ///
    /// # Errors
    /// The model's.
    pub fn activations(&self, batch: &TokenRowBatch) -> Result<Tensor> {
        Ok(self.activations_at_all(batch)?.swap_remove(0))
    }

    /// As [`activations`](Self::activations), for each hook of the spec.
    ///
    /// # Errors
    /// The model's.
    pub fn activations_at_all(&self, batch: &TokenRowBatch) -> Result<Vec<Tensor>> {
        self.stream.source().activations(batch)
    }

    /// The next `train_batch_size_tokens` rows, of the tokens that [`StoreOptions::filter`](field@StoreOptions::filter) counts; every other row of the documents comes exactly once; the last
    /// batch is smaller unless `drop_last`; then `None`.
    ///
    /// # Errors
    /// [`Error::Option`] for a ring smaller than a batch; the documents', the tokenizer's, the model's. After an error there is nothing more.
    pub fn next_batch(&mut self) -> Result<Option<ActivationBatch>> {
        let batch = self.stream.next().transpose()?;
        if self.stream.source().keeps_in_use() {
            let delivered = batch.iter().flat_map(|batch| batch.at.iter().copied());
            let used = self.stream.held().chain(delivered).map(|at| at.row).collect();
            self.stream.source_mut().forget_all_but(&used);
        }
        Ok(batch)
    }

    /// The rows of tokens that the store remembers ([`StoreOptions::keep_rows`]): where addresses resolve to documents.
    #[must_use]
    pub fn index(&self) -> &RowIndex {
        self.stream.source().index()
    }

    /// The stage before the ring: the activations of every token in the documents' order, a forward pass at a time, that remembers at least the
    /// rows of tokens of its latest batch. Nothing is filtered, so that statistics can count the tokens that they exclude. What is in the ring already is lost.
    #[must_use]
    pub fn in_order(self) -> Harvest {
        let mut harvest = self.stream.into_source();
        harvest.remember_latest();
        harvest.deliver_everything();
        harvest
    }

    /// What became of every token and row so far.
    #[must_use]
    pub fn report(&self) -> StoreReport {
        StoreReport { dropped: self.stream.dropped(), ..self.stream.source().report() }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &LanguageModel {
        self.stream.source().model()
    }
}

impl Iterator for ActivationStore {
    type Item = Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl ActivationSource for ActivationStore {
    fn spec(&self) -> &ActivationSpec {
        self.stream.spec()
    }

    fn stream_id(&self) -> Result<StreamId> {
        self.stream.stream_id()
    }

    fn token_rows(&self) -> Option<&RowIndex> {
        self.stream.token_rows()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.model().tokenizer()
    }
}

fn find_hook(model: &LanguageModel, name: &str) -> Result<HookPoint> {
    match model.hooked().hook_point(name) {
        Err(model_hooks::Error::UnknownHookPoint { point, .. }) => Err(missing(model, point)),
        found => Ok(found?),
    }
}

fn hook_rows(model: &LanguageModel, selector: HookSelector) -> Result<HookRows> {
    match model.hooked().hook_points().contains(&selector.point) {
        true => Ok(HookRows::resolve(selector, model.shape())?),
        false => Err(missing(model, selector.point)),
    }
}

fn missing(model: &LanguageModel, hook: HookPoint) -> Error {
    Error::MissingHook { hook, model: model.name().into(), n_layers: model.shape().n_layers }
}

/// The model's tokenizer, shared with the threads that tokenize.
struct OfModel(LanguageModel);

impl Tokenize for OfModel {
    fn tokenize(&self, text: &str) -> Result<TokenizedText> {
        self.0.try_tokenizer()?.tokenize(text)
    }

    fn splits_at_whitespace(&self) -> bool {
        self.0.tokenizer().is_some_and(Tokenize::splits_at_whitespace)
    }
}
