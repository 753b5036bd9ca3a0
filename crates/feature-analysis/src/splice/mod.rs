//! SAEs inside the forward pass: [`Splice`] puts them there, as a tap.
//!
//! The value at an SAE's hook point is replaced by its reconstruction; with the error term what the SAE misses is added back, so that
//! nothing changes until features are edited. Several SAEs and transcoders at once, features visible and editable, and nothing stays
//! on the model: a splice is the argument of one call. The semantics are those of SAELens' `HookedSAETransformer`.
//!
//! ```
//! use feature_analysis::splice::{FeatureEdit, SaeHookPoint, SaeSite, Splice};
//! use model_hooks::{HookPoint, HookedModel, TokenBatch};
//! use sae_core::Sae;
//!
//! # fn demo(model: &dyn HookedModel, sae: &Sae, tokens: &TokenBatch) -> feature_analysis::Result<()> {
//! let hook: HookPoint = "blocks.8.hook_resid_pre".parse()?;
//!
//! // What does the model predict when it must do with the reconstruction?
//! let logits = model.forward(tokens, &mut Splice::new(model).sae(hook, sae)?)?; // [batch, pos, d_vocab]
//!
//! // What changes when feature 7 is silent and feature 12 strong, and nothing else is touched?
//! let sae = feature_analysis::splice::HookedSae::new(hook, sae).error_term(true);
//! let mut splice = Splice::new(model)
//!     .with(sae)?
//!     .edit(hook, FeatureEdit::ablate([7]))?
//!     .edit(hook, FeatureEdit::clamp([12], 20.0).positions(3..))?
//!     .capture([SaeHookPoint::new(hook, SaeSite::ActsPost)])?;
//! let steered = model.forward(tokens, &mut splice)?;
//! println!("{} features per token", splice.captured().codes(hook)?.features.l0());
//! # Ok(()) }
//! ```
//!
//! Where to read on: [`HookedSae`] (an SAE, its place and its error term), [`SaeHookPoint`] (the places inside it), [`FeatureEdit`],
//! [`SpliceCapture`].

mod captured;
mod error;
mod feature_edit;
mod feature_name;
mod hooked_sae;
mod point;
mod spliced;
mod tap;

pub use captured::SpliceCapture;
pub use error::SpliceError;
pub use feature_edit::FeatureEdit;
pub use feature_name::FeatureHookName;
pub use hooked_sae::HookedSae;
pub use point::{SaeHookPoint, SaeSite};

use crate::Result;
use candle_core::Tensor;
use error::listed;
use model_hooks::{ForwardPass, HookPoint, HookedModel, ModelShape, NoTap, TapContext, TokenBatch};
use sae_core::{Codes, SparseCoder};
use spliced::{Edit, Spliced};
use std::fmt;

/// SAEs and transcoders in a forward pass, with their edits and what is kept of them. See the [module](self).
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
/// tracked through the value a splice refuses ([`SpliceError::Gradients`]).
pub struct Splice<'a> {
    points: Vec<HookPoint>,
    shape: ModelShape,
    /// By output hook, rising.
    saes: Vec<Spliced<'a>>,
    captured: SpliceCapture,
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
    /// [`model_hooks::Error::UnknownHookPoint`] when the model lacks one of its hook points; [`SpliceError::TwoAtOneHook`],
    /// [`SpliceError::OutputBeforeInput`], [`SpliceError::Width`], [`SpliceError::NotVectors`], [`SpliceError::NoSuchHead`].
    pub fn with(mut self, sae: HookedSae<'a>) -> Result<Self> {
        for hook in [sae.input, sae.output] {
            // A run's own check, so that both find and say the same.
            ForwardPass::plan(&self.points, &TokenBatch::new(&[[0]])?, None, Some(hook), &mut NoTap)?;
        }
        let hook = sae.output;
        match self.saes.binary_search_by_key(&hook, |spliced| spliced.sae.output) {
            Ok(_) => Err(SpliceError::TwoAtOneHook { hook }.into()),
            Err(at) => {
                self.saes.insert(at, Spliced::check(sae, &self.shape)?);
                Ok(self)
            }
        }
    }

    /// Changes features of the SAE that writes `hook`. Edits of one SAE are made in the order in which they were given.
    ///
    /// # Errors
    /// [`SpliceError::NoSaeAt`], [`crate::Error::FeatureRange`], and [`crate::Error::Option`] for a value that is not finite. During a
    /// run: [`SpliceError::NoSuchPosition`].
    pub fn edit(mut self, hook: HookPoint, edit: FeatureEdit) -> Result<Self> {
        let spliced = self.at(hook)?;
        edit.check(spliced.sae.coder.d_sae())?;
        spliced.edits.push(Edit::Features(edit));
        Ok(self)
    }

    /// Changes the features of the SAE that writes `hook` with a closure: sparse codes in, sparse codes of the same rows out (see
    /// [`Codes::with_features`]). Row `b * pos + p` is position `p` of row `b` of the tokens.
    ///
    /// # Errors
    /// [`SpliceError::NoSaeAt`]. During a run the closure's own, and [`SpliceError::EditChangedShape`].
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
    /// [`SpliceError::NoSaeAt`], [`SpliceError::NoErrorTerm`], and [`SpliceError::NotEditable`] for features, which are edited as codes,
    /// and pre-activations. During a run the closure's own, and [`SpliceError::EditChangedShape`].
    pub fn edit_tensor(
        mut self,
        point: SaeHookPoint,
        f: impl FnMut(&TapContext<'_>, Tensor) -> Result<Tensor> + 'a,
    ) -> Result<Self> {
        let spliced = self.existing(point)?;
        let hint = match point.site {
            SaeSite::ActsPre => "pre-activations can be captured, and `hook_sae_acts_post` edited",
            SaeSite::ActsPost => "edit its codes with `edit` or `edit_codes`",
            site => {
                spliced.edits.push(Edit::Tensor(site, Box::new(f)));
                return Ok(self);
            }
        };
        Err(SpliceError::NotEditable { point, hint }.into())
    }

    /// Keeps the values at these places during runs, for [`captured`](Self::captured).
    ///
    /// # Errors
    /// [`SpliceError::NoSaeAt`], [`SpliceError::NoErrorTerm`]. During a run [`sae_core::Error::NoPreActs`] of a coder that does not show
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
        let of = |spliced: &Spliced<'a>| {
            let (hook, error_term) = (spliced.sae.output, spliced.sae.error_term);
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

    fn existing(&mut self, point: SaeHookPoint) -> Result<&mut Spliced<'a>> {
        let spliced = self.at(point.hook)?;
        match point.site {
            SaeSite::Error if !spliced.sae.error_term => Err(SpliceError::NoErrorTerm { point }.into()),
            _ => Ok(spliced),
        }
    }

    fn at(&mut self, hook: HookPoint) -> Result<&mut Spliced<'a>> {
        match self.saes.binary_search_by_key(&hook, |spliced| spliced.sae.output) {
            Ok(at) => Ok(&mut self.saes[at]),
            Err(_) => {
                let held = listed(self.saes.iter().map(|spliced| spliced.sae.output));
                Err(SpliceError::NoSaeAt { hook, held }.into())
            }
        }
    }
}

impl fmt::Debug for Splice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.saes.iter().map(|spliced| &spliced.sae)).finish()
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
