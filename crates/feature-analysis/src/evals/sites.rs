//! The forward passes: one plain, and others that go on from the hook with another value there.

use super::EvalError;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use model_hooks::{Capture, Edit, HookPoint, HookRows, HookedModel, LanguageModel, NoTap, Site, Start, TokenBatch};
use sae_core::SparseCoder;
use sae_hooks::CoderHooks;

/// Where a run with another value at the output hook begins: what comes before is the same in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    /// The value is what enters this block.
    WithValue(usize),
    /// The hook is in this block, which is run again from what entered it.
    InBlock(usize),
    /// From the tokens.
    AtTokens,
}

/// The places of a coder in a model.
pub(super) struct ReplacementRuns<'a> {
    model: &'a dyn HookedModel,
    pub(super) input: HookRows,
    pub(super) output: HookRows,
    resume: Resume,
}

/// What the plain run gave.
pub(super) struct Plain {
    /// What the coder reads, `[n, d_in]`, and what it reconstructs, `[n, d_out]`, for `n = batch * pos` tokens.
    pub(super) x: Tensor,
    pub(super) target: Tensor,
    /// The shape of the whole value at the output hook.
    shape: Vec<usize>,
    /// What entered the block of the output hook, where runs resume there.
    resid: Option<Tensor>,
    /// None where the run ended at the hook.
    pub(super) logits: Option<Tensor>,
}

impl<'a> ReplacementRuns<'a> {
    /// Checks that the coder fits the hook points.
    pub(super) fn new(model: &'a LanguageModel, coder: &dyn SparseCoder, hooks: CoderHooks) -> Result<Self> {
        let (shape, model) = (model.shape(), model.hooked());
        let (input, output) = (HookRows::resolve(hooks.input, shape)?, HookRows::resolve(hooks.output, shape)?);
        let fits = |side, hook: HookRows, found: usize| match hook.width() == found {
            true => Ok(()),
            false => Err(EvalError::Width { side, hook: hook.to_string(), expected: hook.width(), found }),
        };
        fits("d_in", input, coder.d_in())?;
        fits("d_out", output, coder.d_out())?;
        if output.point() < input.point() {
            return Err(EvalError::Order { input: input.to_string(), output: output.to_string() }.into());
        }
        Ok(Self { model, input, output, resume: resume(model, output) })
    }

    /// The plain run, to its logits or only to the hook.
    pub(super) fn plain(&self, tokens: &TokenBatch, logits: bool) -> Result<Plain> {
        let entered = match self.resume {
            Resume::InBlock(layer) if logits => Some(resid_pre(layer)),
            _ => None,
        };
        let points = [self.input.point(), self.output.point()].into_iter().chain(entered);
        let mut capture = Capture::new(points);
        let logits = match logits {
            true => Some(self.model.forward(tokens, &mut capture)?),
            false => self.model.forward_until(tokens, self.output.point(), &mut capture).map(|()| None)?,
        };
        Ok(Plain {
            x: as_rows(capture.get(self.input.point())?, self.input)?,
            target: as_rows(capture.get(self.output.point())?, self.output)?,
            shape: capture.get(self.output.point())?.dims().to_vec(),
            resid: entered.map(|point| capture.take(point)).transpose()?,
            logits,
        })
    }

    /// The logits of a run with these values at the output hook, `[n, d_out]`.
    pub(super) fn rerun(&self, tokens: &TokenBatch, plain: &Plain, value: Vec<f32>) -> Result<Tensor> {
        let device = plain.target.device();
        let mut shape = plain.shape.clone();
        if self.output.head().is_some() {
            shape[2] = 1;
        }
        let value = Tensor::from_vec(value, shape, device)?;
        let patch = |value| match self.output.head() {
            Some(head) => Edit::patch(self.output.point(), value).head(head),
            None => Edit::patch(self.output.point(), value),
        };
        let logits = match (self.resume, &plain.resid) {
            (Resume::WithValue(layer), _) => {
                self.model.run(tokens, Start::Residual { layer, resid: &value }, None, &mut NoTap)?
            }
            (Resume::InBlock(layer), Some(resid)) => {
                self.model.run(tokens, Start::Residual { layer, resid }, None, &mut patch(value))?
            }
            _ => self.model.run(tokens, Start::Tokens, None, &mut patch(value))?,
        };
        logits.ok_or(Error::from(model_hooks::Error::NoLogits))
    }
}

fn resid_pre(layer: usize) -> HookPoint {
    HookPoint::Block { layer: layer as u16, site: Site::ResidPre }
}

fn resume(model: &dyn HookedModel, output: HookRows) -> Resume {
    let has = |layer: usize| model.hook_points().contains(&resid_pre(layer));
    let layers = model.shape().n_layers;
    let layer = match output.point() {
        HookPoint::Block { layer, .. } => usize::from(layer),
        HookPoint::FinalNorm(_) | HookPoint::Logits => layers.saturating_sub(1),
        _ => return Resume::AtTokens,
    };
    match output.point().site() {
        Some(Site::ResidPre) if has(layer) => Resume::WithValue(layer),
        Some(Site::ResidPost) if layer + 1 < layers && has(layer + 1) => Resume::WithValue(layer + 1),
        _ if has(layer) => Resume::InBlock(layer),
        _ => Resume::AtTokens,
    }
}

/// The rows of all tokens, `[batch * pos, width]`.
fn as_rows(x: &Tensor, hook: HookRows) -> Result<Tensor> {
    Ok(hook.gather(x)?.to_dtype(DType::F32)?.contiguous()?.reshape(((), hook.width()))?)
}
