//! A model whose activations are chosen by the test, coders made of a function, rows by hand.

use activation_store::{DocId, Origin, TokenRow};
use candle_core::{Device, Tensor};
use feature_analysis::Result;
use feature_analysis::evals::{Bootstrap, EvalOptions, Evaluation, evaluate};
use model_hooks::{ForwardPass, HookPoint, HookedModel, LanguageModel, ModelShape, Processing, Start, Tap, TokenBatch};
use sae_core::{Codes, Coupling, SparseCoder, SparseFeatures};
use sae_hooks::CoderHooks;
use std::sync::Arc;

/// A model without blocks: the activation of a token is its vector at `hook_embed`, its logits are `[x, sum of x]`, and zeros for further tokens.
pub struct Toy {
    vectors: Vec<Vec<f32>>,
    shape: ModelShape,
    points: Vec<HookPoint>,
}

/// The toy with these vectors, one for each token.
pub fn toy(vectors: &[&[f32]]) -> LanguageModel {
    let vectors: Vec<Vec<f32>> = vectors.iter().map(|v| v.to_vec()).collect();
    let d = vectors[0].len();
    let shape = ModelShape::new(d, 0, vectors.len().max(d + 1), 1000);
    let model = Toy { vectors, shape, points: vec![HookPoint::Embed, HookPoint::Logits] };
    LanguageModel::new(Arc::new(model), None, "toy", Processing::None.into())
}

impl HookedModel for Toy {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn hook_points(&self) -> &[HookPoint] {
        &self.points
    }

    fn run(
        &self,
        tokens: &TokenBatch,
        _: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> model_hooks::Result<Option<Tensor>> {
        ForwardPass::plan(&self.points, tokens, None, last, tap)?.through(|at| {
            let x: Vec<f32> = tokens.ids().iter().flat_map(|id| self.vectors[*id as usize].clone()).collect();
            let x = Tensor::from_vec(x, (tokens.batch(), tokens.pos(), self.shape.d_model), &Device::Cpu)?;
            let x = at.tap(HookPoint::Embed, x)?;
            let further = (x.dim(0)?, x.dim(1)?, self.shape.d_vocab - self.shape.d_model - 1);
            let zeros = Tensor::zeros(further, candle_core::DType::F32, &Device::Cpu)?;
            let logits = Tensor::cat(&[x.clone(), x.sum_keepdim(2)?, zeros], 2)?;
            at.tap(HookPoint::Logits, logits)
        })
    }

    fn unembed(&self, resid: &Tensor) -> model_hooks::Result<Tensor> {
        Ok(resid.clone())
    }

    fn w_u_columns(&self, _: usize, _: usize) -> model_hooks::Result<Tensor> {
        Ok(Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu)?)
    }
}

/// A coder whose features are its input and whose reconstruction is any function of it.
pub struct Map<F>(pub usize, pub F);

impl<F: Fn(&[f32]) -> Vec<f32> + Send + Sync> SparseCoder for Map<F> {
    fn d_in(&self) -> usize {
        self.0
    }

    fn d_sae(&self) -> usize {
        self.0
    }

    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }

    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        Ok(Codes::from_features(SparseFeatures::from_dense(&x.reshape(((), self.0))?)?))
    }

    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        let rows = codes.to_dense()?.to_vec2::<f32>()?;
        let out: Vec<f32> = rows.iter().flat_map(|row| (self.1)(row)).collect();
        Ok(Tensor::from_vec(out, (rows.len(), self.0), &Device::Cpu)?)
    }

    fn decoder_rows(&self, _: &[u32]) -> sae_core::Result<Tensor> {
        unreachable!("an evaluation asks for no directions")
    }
}

/// Rows that are one document each, numbered from 0.
pub fn rows(tokens: &[&[u32]]) -> Vec<TokenRow> {
    (0..).zip(tokens).map(|(i, tokens)| row_of(i, i, tokens)).collect()
}

/// A row of one document.
pub fn row_of(row: u64, ordinal: u64, tokens: &[u32]) -> TokenRow {
    let doc = DocId { file: 0, ordinal };
    let origin = (0..tokens.len() as u64).map(|i| Some(Origin { doc, span: i..i + 1 })).collect();
    TokenRow { row, tokens: tokens.to_vec(), origin }
}

/// Everything in one batch, nothing excluded, no intervals.
pub fn plain() -> EvalOptions {
    EvalOptions {
        rows: None,
        filter: activation_store::TokenFilter::everything(),
        bootstrap: Bootstrap { resamples: 0, ..Bootstrap::default() },
        ..EvalOptions::default()
    }
}

/// An evaluation of the toy's `hook_embed`.
pub fn on_toy(
    model: &LanguageModel,
    coder: &dyn SparseCoder,
    rows: &[TokenRow],
    options: &EvalOptions,
) -> Result<Evaluation> {
    at(model, coder, CoderHooks::sae(HookPoint::Embed), rows, options)
}

/// An evaluation at any hooks.
pub fn at(
    model: &LanguageModel,
    coder: &dyn SparseCoder,
    hooks: CoderHooks,
    rows: &[TokenRow],
    options: &EvalOptions,
) -> Result<Evaluation> {
    evaluate(model, coder, hooks, &mut rows.iter().cloned().map(Ok), options, &mut |_| ())
}

/// The rows as a batch.
pub fn batch(rows: &[TokenRow]) -> TokenBatch {
    TokenBatch::new(&rows.iter().map(|row| row.tokens.as_slice()).collect::<Vec<_>>()).unwrap()
}

#[track_caller]
pub fn near(evaluation: &Evaluation, key: &str, right: f64, tolerance: f64) {
    let found = evaluation.get(key).unwrap_or_else(|| panic!("no {key}")).value;
    assert!((found - right).abs() <= tolerance, "{key}: {found}, expected {right}");
}
