//! Which features a prediction is made of: their effects on a difference of logits.

use crate::error::{Error, Result};
use crate::feature_edit::FeatureEdit;
use crate::hooked_sae::HookedSae;
use crate::splice::Splice;
use candle_core::{DType, Device, IndexOp, Tensor};
use model_hooks::{Capture, HookPoint, HookRows, HookedModel, Site, Start, TokenBatch, gradients};
use sae_core::{FeatureId, SparseFeatures};

/// The logit of the answers less that of the wrong tokens at a position, means of both lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogitDifference {
    /// Tokens whose mean logit counts for it.
    pub answer: Vec<u32>,
    /// Tokens whose mean logit counts against it.
    pub wrong: Vec<u32>,
    /// The column whose prediction is looked at; `None` for that of the last token.
    pub position: Option<usize>,
}

/// A feature at a position, and what it does to the metric.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeatureEffect {
    /// The feature.
    pub feature: FeatureId,
    /// The column of the tokens.
    pub pos: usize,
    /// The token there.
    pub token: u32,
    /// The feature's activation there, in the SAE's units.
    pub activation: f32,
    /// The first-order estimate of what the metric loses without it: its contribution to the reconstruction times the gradient.
    pub direct: f64,
    /// What the metric loses without it, where it was measured ([`Attribution::measure`]).
    pub exact: Option<f64>,
}

/// The effects of all active features on a metric, largest direct effect first (by size, of either sign).
///
/// ```text
/// direct[pos, f] = activation[pos, f] n[pos] W_dec[f] . g[pos]      g = d metric / d value at the output hook, of the plain model
/// exact[pos, f]  = metric - metric with f silent at pos alone       spliced in with the error term
/// sum_f direct + bias + skip + error  =  sum_pos value[pos] . g[pos]
/// ```
///
/// `n[pos]` is 1, or what undoes the SAE's per-token norm; it and the error term are held fixed, as a [`Splice`] holds them.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// The effects.
    pub rows: Vec<FeatureEffect>,
    /// The metric of the plain model.
    pub metric: f64,
    /// What the decoder's bias (and the mean that a per-token norm adds back) contributes to the first order.
    pub bias: f64,
    /// First-order contribution of the skip connection of a transcoder; 0 without one.
    pub skip: f64,
    /// The same of the SAE's error.
    pub error: f64,
    tokens: TokenBatch,
    difference: LogitDifference,
}

impl LogitDifference {
    /// At the last token.
    #[must_use]
    pub fn new(answer: impl Into<Vec<u32>>, wrong: impl Into<Vec<u32>>) -> Self {
        Self { answer: answer.into(), wrong: wrong.into(), position: None }
    }

    /// One number from logits `[1, pos, d_vocab]`, differentiable.
    fn of(&self, logits: &Tensor, position: usize) -> model_hooks::Result<Tensor> {
        let logits = logits.i((0, position))?.to_dtype(DType::F32)?;
        let mean = |ids: &[u32]| logits.index_select(&Tensor::new(ids, logits.device())?, 0)?.mean_all();
        Ok((mean(&self.answer)? - mean(&self.wrong)?)?)
    }

    /// The position, of a metric that can be read from a run of these tokens.
    fn check(&self, model: &dyn HookedModel, tokens: &TokenBatch) -> Result<usize> {
        if tokens.batch() != 1 {
            return Err(Error::NotOnePrompt { found: [tokens.batch(), tokens.pos()] });
        }
        for (option, ids) in [("answer", &self.answer), ("wrong", &self.wrong)] {
            if ids.is_empty() {
                return Err(Error::Option { option, expected: "at least one token", found: "none".into() });
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= model.shape().d_vocab) {
                let expected = "tokens of the model's vocabulary";
                return Err(Error::Option { option, expected, found: id.to_string() });
            }
        }
        let real = tokens.token_range(0);
        let position = self.position.unwrap_or(real.end.saturating_sub(1));
        if !real.contains(&position) {
            let expected = "a column that holds a token of the prompt";
            return Err(Error::Option {
                option: "position",
                expected,
                found: format!("{position}, tokens are {real:?}"),
            });
        }
        Ok(position)
    }
}

/// The direct effects of every active feature of `sae` on `difference`, from one forward and one backward pass of the plain model.
///
/// The model must be on [`Engine::Reference`](model_hooks::Engine::Reference): load it with `LoadOptions::engine(Engine::Reference)`; for
/// exact effects the same weights can then run on the kernels. Columns of padding and excluded tokens are left out.
///
/// # Errors
/// [`Error::NotOnePrompt`] for more than one row; [`Error::Option`] for an empty list, a token outside the vocabulary or a position without a
/// token; [`Splice::with`]'s for an SAE that does not fit; [`model_hooks::Error::NoGradients`] from a model that the kernels compute.
pub fn direct_effects(
    model: &dyn HookedModel,
    tokens: &TokenBatch,
    sae: &HookedSae<'_>,
    difference: &LogitDifference,
) -> Result<Attribution> {
    let position = difference.check(model, tokens)?;
    drop(Splice::new(model).with(sae.borrowed())?);
    let [from, to] = [sae.input(), sae.output()].map(|at| HookRows::resolve(at, model.shape()));
    let (from, to) = (from?, to?);
    let found = gradients(model, tokens, &[from.point(), to.point()], |logits| difference.of(logits, position))?;
    let rows = |x: Tensor| Ok::<_, Error>(x.squeeze(0)?.to_dtype(DType::F32)?.to_vec2::<f32>()?);
    let original = rows(to.gather(found.value(to.point())?)?)?;
    let gradient = rows(to.gather(found.gradient(to.point())?)?)?;

    let x = from.gather(found.value(from.point())?)?;
    let codes = sae.coder().encode(&x)?;
    let vectors = rows(x.clone())?;
    let (pos, d_out) = (tokens.pos(), sae.coder().d_out());
    let decoded = |codes| Ok::<_, Error>(sae.coder().decode(codes)?.reshape((pos, d_out))?.to_vec2::<f32>()?);
    let silent = SparseFeatures::new(vec![0; pos + 1], Vec::new(), Vec::new(), codes.features.d_sae() as u32)?;
    let (x_hat, bias) = (decoded(&codes)?, decoded(&codes.with_features(silent)?)?);
    let skip = sae.coder().skip(&x)?.map(|skip| skip.reshape((pos, d_out))?.to_dtype(DType::F32)?.to_vec2::<f32>());
    let skip = skip.transpose()?;

    let mut made = Attribution {
        rows: Vec::new(),
        metric: found.scalar(),
        bias: 0.0,
        skip: 0.0,
        error: 0.0,
        tokens: tokens.clone(),
        difference: LogitDifference { position: Some(position), ..difference.clone() },
    };
    let real = tokens.token_range(0);
    for pos in real.clone() {
        let (token, g) = (tokens.ids()[pos], &gradient[pos]);
        if sae.excludes(pos - real.start, token, &vectors[pos]) {
            continue;
        }
        made.bias += dot(&bias[pos], g);
        let skipped = skip.as_ref().map_or(0.0, |skip| dot(&skip[pos], g));
        made.skip += skipped;
        made.error += dot(&original[pos], g) - dot(&x_hat[pos], g) - skipped;
        let norm = codes.scale.as_ref().map_or(1.0, |scale| f64::from(scale.multiply[pos]));
        let (features, activations) = codes.features.row(pos);
        if features.is_empty() {
            continue;
        }
        let directions = sae.coder().decoder_rows(features)?.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        for ((&feature, &activation), direction) in features.iter().zip(activations).zip(&directions) {
            let direct = f64::from(activation) * norm * dot(direction, g);
            made.rows.push(FeatureEffect { feature, pos, token, activation, direct, exact: None });
        }
    }
    made.rows
        .sort_by(|a, b| b.direct.abs().total_cmp(&a.direct.abs()).then((a.pos, a.feature).cmp(&(b.pos, b.feature))));
    Ok(made)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

impl Attribution {
    /// Measures the exact effects of the first `top` rows, one run each from the hook's block on. `model` and `sae` are those of the direct
    /// effects, on any engine. `progress` is told how many are done.
    ///
    /// # Errors
    /// The model's and the SAE's.
    pub fn measure(
        &mut self,
        model: &dyn HookedModel,
        sae: &HookedSae<'_>,
        top: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let chosen: Vec<usize> = (0..self.rows.len().min(top)).collect();
        self.measure_rows(model, sae, &chosen, progress)
    }

    /// The same for the rows of these features.
    ///
    /// # Errors
    /// As [`measure`](Self::measure); [`Error::Sae`] for an empty list, a feature that the SAE does not have, or one that is listed twice.
    pub fn measure_features(
        &mut self,
        model: &dyn HookedModel,
        sae: &HookedSae<'_>,
        features: &[FeatureId],
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        sae_core::check_feature_list(features, sae.coder().d_sae())?;
        let chosen: Vec<usize> =
            (0..self.rows.len()).filter(|&row| features.contains(&self.rows[row].feature)).collect();
        self.measure_rows(model, sae, &chosen, progress)
    }

    fn measure_rows(
        &mut self,
        model: &dyn HookedModel,
        sae: &HookedSae<'_>,
        chosen: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let position = self.difference.check(model, &self.tokens)?;
        let (input, output) = (sae.input().point, sae.output().point);
        // What comes before the block of the input hook is the same in every run.
        let entry = input.layer().map(|layer| HookPoint::Block { layer: layer as u16, site: Site::ResidPre });
        let mut before = None;
        if let (Some(entry), Some(layer)) = (entry.filter(|entry| model.hook_points().contains(entry)), input.layer()) {
            let mut capture = Capture::new([entry]);
            model.forward_until(&self.tokens, entry, &mut capture)?;
            before = Some((layer, capture.take(entry)?));
        }
        let (tokens, difference) = (&self.tokens, &self.difference);
        let metric = |edit: Option<FeatureEdit>| -> Result<f64> {
            let mut splice = Splice::new(model).with(sae.borrowed().error_term(true))?;
            if let Some(edit) = edit {
                splice = splice.edit(output, edit)?;
            }
            let start = match &before {
                Some((layer, resid)) => Start::Residual { layer: *layer, resid },
                None => Start::Tokens,
            };
            let logits = model.run(tokens, start, None, &mut splice)?.ok_or(model_hooks::Error::NoLogits)?;
            Ok(f64::from(difference.of(&logits, position)?.to_scalar::<f32>()?))
        };
        let plain = metric(None)?;
        for (done, &at) in chosen.iter().enumerate() {
            let row = &mut self.rows[at];
            row.exact = Some(plain - metric(Some(FeatureEdit::ablate([row.feature]).positions(row.pos..=row.pos)))?);
            progress(done + 1);
        }
        Ok(())
    }
}
