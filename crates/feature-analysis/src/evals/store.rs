//! An SAE on the text of a store.

use super::{EvalOptions, EvalProgress, Evaluation, FeatureWeights, evaluate};
use crate::Result;
use activation_store::{ActivationSource, ActivationStore, TokenRow};
use sae_core::{Sae, SparseCoder};
use sae_hooks::CoderHooks;
use tensor_kernels::Precision;

/// Evaluates an SAE or other dictionary on the rows of tokens of a store: at the store's hook point; a transcoder that belongs there writes where its metadata say.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_store(
    coder: &dyn SparseCoder,
    store: &mut ActivationStore,
    options: &EvalOptions,
    progress: &mut dyn FnMut(EvalProgress),
) -> Result<Evaluation> {
    let (model, hook) = (store.model().clone(), store.spec().hooks[0]);
    let at_store = CoderHooks::sae(hook.selector());
    let hooks = CoderHooks::from_metadata_in(model.hooked(), coder)
        .ok()
        .filter(|home| home.input == at_store.input)
        .unwrap_or(at_store);
    let mut rows = RowsOfStore { store, ready: Vec::new().into_iter() };
    let mut evaluation = evaluate(&model, coder, hooks, &mut rows, options, progress)?;
    let rounded = |sae: &Sae| sae.engine().arithmetic().is_some_and(|a| a.precision() == Precision::Bf16);
    if let Some(sae) = coder.as_sae().filter(|sae| !rounded(sae)) {
        evaluation.features.weights = Some(FeatureWeights::of(sae)?);
    }
    Ok(evaluation)
}

/// The rows of tokens of a store, one by one.
struct RowsOfStore<'a> {
    store: &'a mut ActivationStore,
    ready: std::vec::IntoIter<TokenRow>,
}

impl Iterator for RowsOfStore<'_> {
    type Item = activation_store::Result<TokenRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            match self.store.get_batch_tokens().transpose()? {
                Ok(batch) => self.ready = batch.rows.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
