//! Path patching: what one part of a model tells another directly.

use crate::{Capture, Edit, Error, HookPoint, HookedModel, Result, Selection, Site, TokenBatch};
use candle_core::Tensor;

/// Activations frozen at the plain run, between senders and receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Frozen {
    /// The output `z` of every attention head and every MLP's output: only the direct path through the residual stream is left.
    #[default]
    AttentionAndMlps,
    /// `z` of every attention head; MLPs are computed anew, so that paths lead through them (as in Wang et al.).
    Attention,
}

/// Path patching (Wang et al. 2022, <https://arxiv.org/abs/2211.00593>; Goldowsky-Dill et al. 2023,
/// <https://arxiv.org/abs/2304.05969>): the effect of `senders` that reaches the logits through `receivers` alone.
///
/// ```text
/// 1. run plain:                                    keep z (and mlp_out) of every layer
/// 2. run with those frozen and the senders edited: keep the receivers' values
/// 3. run plain but for the receivers, which get the values of step 2: the logits
/// ```
/// Senders are edits, most often [`Edit::patch`] with values of another prompt's run. A receiver at `logits` or at the last
/// `hook_resid_post` shows the direct effect on the output; one at `hook_q`, `hook_k`, `hook_v` (or their inputs) of a head, what the
/// senders tell that head. What a receiver would become is kept, and the receiver itself is frozen with the rest, so that nothing goes
/// from one receiver to another. A sender before `z` of its own layer (`hook_q`, a pattern) reaches only receivers between the two.
///
/// ```no_run
/// # fn demo(model: &dyn model_hooks::HookedModel, tokens: &model_hooks::TokenBatch, other_z: candle_core::Tensor) -> model_hooks::Result<()> {
/// use model_hooks::{Selection, Edit, PathPatch};
/// let sender = Edit::patch("blocks.0.attn.hook_z".parse()?, other_z).head(3);
/// let receiver = ("blocks.2.attn.hook_q".parse()?, Selection::default().heads(1));
/// let logits = PathPatch::new([sender], [receiver]).run(model, tokens)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PathPatch {
    senders: Vec<Edit>,
    receivers: Vec<(HookPoint, Selection)>,
    frozen: Frozen,
}

impl PathPatch {
    /// From these senders to these receivers, with everything between them frozen.
    #[must_use]
    pub fn new(
        senders: impl IntoIterator<Item = Edit>,
        receivers: impl IntoIterator<Item = (HookPoint, Selection)>,
    ) -> Self {
        let (senders, receivers) = (senders.into_iter().collect(), receivers.into_iter().collect());
        Self { senders, receivers, frozen: Frozen::default() }
    }

    /// The frozen activations.
    #[must_use]
    pub fn frozen(mut self, frozen: Frozen) -> Self {
        self.frozen = frozen;
        self
    }

    /// The logits `[batch, pos, d_vocab]` of the last run. Three runs; memory holds the frozen values of all layers.
    ///
    /// # Errors
    /// [`Error::NoReceivers`] without receivers, and the errors of the runs and of the senders.
    pub fn run(&self, model: &dyn HookedModel, tokens: &TokenBatch) -> Result<Tensor> {
        let last = self.receivers.iter().map(|(point, _)| *point).max().ok_or(Error::NoReceivers)?;
        let is_frozen = |point: &&HookPoint| match point.site() {
            Some(Site::Z) => true,
            Some(Site::MlpOut) => self.frozen == Frozen::AttentionAndMlps,
            _ => false,
        };
        let points = model.hook_points().iter().filter(is_frozen).filter(|point| **point <= last);
        let points: Vec<HookPoint> = points.copied().collect();
        let mut plain = Capture::new(points.iter().copied());
        if let Some(&end) = points.last() {
            model.forward_until(tokens, end, &mut plain)?;
        }
        let freeze = plain.into_map().into_iter().map(|(point, x)| Edit::patch(point, x));
        let edits: Vec<Edit> = freeze.chain(self.senders.iter().cloned()).collect();
        // A receiver that is frozen itself shows what it would have become; any other one what it is after the senders' edits.
        let (frozen, free): (Vec<HookPoint>, Vec<HookPoint>) =
            self.receivers.iter().map(|(point, _)| *point).partition(|point| points.contains(point));
        let mut taps = (Capture::new(frozen), (edits, Capture::new(free)));
        model.forward_until(tokens, last, &mut taps)?;
        let mut patches = Vec::with_capacity(self.receivers.len());
        for (point, cut) in &self.receivers {
            let value = taps.0.get(*point).or_else(|_| taps.1.1.get(*point))?;
            patches.push(Edit::patch(*point, value.clone()).within(cut.clone()));
        }
        model.forward(tokens, &mut patches)
    }
}
