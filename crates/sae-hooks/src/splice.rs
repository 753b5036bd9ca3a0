//! Building a splice: SAEs, edits and captures, each checked as it is added.

use crate::active::{ActiveSae, Edit};
use crate::capture::SpliceCapture;
use crate::error::{Error, Result, listed};
use crate::feature_edit::FeatureEdit;
use crate::hooked_sae::HookedSae;
use crate::sae_hook_point::{SaeHookPoint, SaeSite};
use candle_core::Tensor;
use model_hooks::{ForwardPass, HookPoint, HookedModel, ModelShape, NoTap, TapContext, TokenBatch};
use sae_core::{Codes, SparseCoder};
use std::fmt;

/// SAEs and transcoders in a forward pass, with their edits and what is kept of them. See the [crate](crate).
///
/// ```text
/// f      = edit(encode(x))                              x: the value at the input hook
/// output = decode(f)                                    without the error term
/// output = decode(f) + (original - decode(encode(x)))   with it
/// output = original                                     at excluded tokens
/// ```
///
/// Each step of building checks what it is given (hook points, widths, features, places), so that a splice that exists can run on its
/// model. A splice can be run again and again; taps that come after it in a [pair](model_hooks::Tap) see what the model goes on with.
/// A transcoder reads what the model goes on with at its input hook, after an SAE there.
///
/// Values are computed in f32; the sparse codes are the only form of the features unless a dense one is asked for. Where gradients are
/// tracked through the value a splice refuses ([`Error::Gradients`]).
pub struct Splice<'a> {
    points: Vec<HookPoint>,
    shape: ModelShape,
    /// By output hook, rising.
    pub(crate) saes: Vec<ActiveSae<'a>>,
    pub(crate) captured: SpliceCapture,
}

impl<'a> Splice<'a> {
    /// Nothing yet, for runs of this model. Only its dimensions and hook points are remembered.
    #[must_use]
    pub fn new(model: &dyn HookedModel) -> Self {
        let (points, shape) = (model.hook_points().to_vec(), model.shape().clone());
        Self { points, shape, saes: Vec::new(), captured: SpliceCapture::default() }
    }

    /// Adds an SAE that replaces the value at `hook` by its reconstruction: [`with`](Self::with) of a plain [`HookedSae::new`].
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn sae(self, hook: HookPoint, coder: impl SparseCoder + 'a) -> Result<Self> {
        self.with(HookedSae::new(hook, coder))
    }

    /// Adds an SAE or transcoder.
    ///
    /// # Errors
    /// [`model_hooks::Error::UnknownHookPoint`] when the model lacks one of its hook points; [`Error::TwoAtOneHook`],
    /// [`Error::OutputBeforeInput`], [`Error::Width`], [`Error::NotVectors`], [`Error::NoSuchHead`].
    pub fn with(mut self, sae: HookedSae<'a>) -> Result<Self> {
        for hook in [sae.input, sae.output] {
            // A run's own check, so that both find and say the same.
            ForwardPass::plan(&self.points, &TokenBatch::new(&[[0]])?, None, Some(hook), &mut NoTap)?;
        }
        let hook = sae.output;
        match self.saes.binary_search_by_key(&hook, |active| active.sae.output) {
            Ok(_) => Err(Error::TwoAtOneHook { hook }),
            Err(at) => {
                self.saes.insert(at, ActiveSae::check(sae, &self.shape)?);
                Ok(self)
            }
        }
    }

    /// Changes features of the SAE that writes `hook`. Edits of one SAE are made in the order in which they were given.
    ///
    /// # Errors
    /// [`Error::NoSaeAt`], [`Error::FeatureRange`], and [`Error::Option`] for a value that is not finite. During a
    /// run: [`Error::NoSuchPosition`].
    pub fn edit(mut self, hook: HookPoint, edit: FeatureEdit) -> Result<Self> {
        let active = self.at(hook)?;
        edit.check(active.sae.coder.d_sae())?;
        active.edits.push(Edit::Features(edit));
        Ok(self)
    }

    /// Changes the features of the SAE that writes `hook` with a closure: sparse codes in, sparse codes of the same rows out (see
    /// [`Codes::with_features`]). Row `b * pos + p` is position `p` of row `b` of the tokens.
    ///
    /// # Errors
    /// [`Error::NoSaeAt`]. During a run the closure's own, and [`Error::EditChangedShape`].
    pub fn edit_codes(
        mut self,
        hook: HookPoint,
        f: impl FnMut(&TapContext<'_>, Codes) -> Result<Codes> + 'a,
    ) -> Result<Self> {
        self.at(hook)?.edits.push(Edit::Codes(Box::new(f)));
        Ok(self)
    }

    /// Changes the tensor at a place inside an SAE with a closure: its input (the error term is still that of the untouched input), its
    /// reconstruction, its error or its output.
    ///
    /// # Errors
    /// [`Error::NoSaeAt`], [`Error::NoErrorTerm`], and [`Error::NotEditable`] for features, which are edited as codes,
    /// and pre-activations. During a run the closure's own, and [`Error::EditChangedShape`].
    pub fn edit_tensor(
        mut self,
        point: SaeHookPoint,
        f: impl FnMut(&TapContext<'_>, Tensor) -> Result<Tensor> + 'a,
    ) -> Result<Self> {
        let active = self.existing(point)?;
        let hint = match point.site {
            SaeSite::ActsPre => "pre-activations can be captured, and `hook_sae_acts_post` edited",
            SaeSite::ActsPost => "edit its codes with `edit` or `edit_codes`",
            site => {
                active.edits.push(Edit::Tensor(site, Box::new(f)));
                return Ok(self);
            }
        };
        Err(Error::NotEditable { point, hint })
    }

    /// Keeps the values at these places during runs, for [`captured`](Self::captured).
    ///
    /// # Errors
    /// [`Error::NoSaeAt`], [`Error::NoErrorTerm`]. During a run [`sae_core::Error::NoPreActs`] of a coder that does not show
    /// its pre-activations.
    pub fn capture(mut self, points: impl IntoIterator<Item = SaeHookPoint>) -> Result<Self> {
        for point in points {
            self.existing(point)?.captured.insert(point.site);
        }
        Ok(self)
    }

    /// The places inside the SAEs added so far, in execution order of the SAEs. (Pre-activations only exist of coders that show them.)
    #[must_use]
    pub fn sae_points(&self) -> Vec<SaeHookPoint> {
        let of = |active: &ActiveSae<'a>| {
            let (hook, error_term) = (active.sae.output, active.sae.error_term);
            let exists = move |site: &SaeSite| error_term || *site != SaeSite::Error;
            SaeSite::all().filter(exists).map(move |site| SaeHookPoint::new(hook, site))
        };
        self.saes.iter().flat_map(of).collect()
    }

    /// What has been kept.
    #[must_use]
    pub fn captured(&self) -> &SpliceCapture {
        &self.captured
    }

    /// What has been kept, for keeps.
    #[must_use]
    pub fn into_captured(self) -> SpliceCapture {
        self.captured
    }

    fn existing(&mut self, point: SaeHookPoint) -> Result<&mut ActiveSae<'a>> {
        let active = self.at(point.hook)?;
        match point.site {
            SaeSite::Error if !active.sae.error_term => Err(Error::NoErrorTerm { point }),
            _ => Ok(active),
        }
    }

    fn at(&mut self, hook: HookPoint) -> Result<&mut ActiveSae<'a>> {
        match self.saes.binary_search_by_key(&hook, |active| active.sae.output) {
            Ok(at) => Ok(&mut self.saes[at]),
            Err(_) => {
                let held = listed(self.saes.iter().map(|active| active.sae.output));
                Err(Error::NoSaeAt { hook, held })
            }
        }
    }
}

impl fmt::Debug for Splice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.saes.iter().map(|active| &active.sae)).finish()
    }
}

/// Logits `[batch, pos, d_vocab]` with SAEs in the forward pass. For edits and captures make a [`Splice`].
///
/// # Errors
/// As [`Splice::with`], and the model's.
pub fn run_with_saes<'a>(
    model: &dyn HookedModel,
    tokens: &TokenBatch,
    saes: impl IntoIterator<Item = HookedSae<'a>>,
) -> Result<Tensor> {
    let mut splice = saes.into_iter().try_fold(Splice::new(model), Splice::with)?;
    Ok(model.forward(tokens, &mut splice)?)
}
