//! SAEs inside the forward pass: [`Splice`] puts them there, as a tap.
//!
//! The value at an SAE's hook point is replaced by its reconstruction; with the error term what the SAE misses is added back, so that
//! nothing changes until features are edited. Several SAEs and transcoders at once, features visible and editable, and nothing stays
//! on the model: a splice is the argument of one call. The semantics are those of SAELens' `HookedSAETransformer`.
//!
//! ```
//! use model_hooks::{HookPoint, HookedModel, TokenBatch};
//! use sae_core::Sae;
//! use sae_hooks::{FeatureEdit, HookedSae, SaeHookPoint, SaeSite, Splice};
//!
//! # fn demo(model: &dyn HookedModel, sae: &Sae, tokens: &TokenBatch) -> sae_hooks::Result<()> {
//! let hook: HookPoint = "blocks.8.hook_resid_pre".parse()?;
//!
//! // What does the model predict when it must do with the reconstruction?
//! let logits = model.forward(tokens, &mut Splice::new(model).sae(hook, sae)?)?; // [batch, pos, d_vocab]
//!
//! // What changes when feature 7 is silent and feature 12 strong, and nothing else is touched?
//! let mut splice = Splice::new(model)
//!     .with(HookedSae::new(hook, sae).error_term(true))?
//!     .edit(hook, FeatureEdit::ablate([7]))?
//!     .edit(hook, FeatureEdit::clamp([12], 20.0).positions(3..))?
//!     .capture([SaeHookPoint::new(hook, SaeSite::ActsPost)])?;
//! let steered = model.forward(tokens, &mut splice)?;
//! println!("{} features per token", splice.captured().codes(hook)?.features.l0());
//! # Ok(()) }
//! ```
//!
//! | type or function | purpose |
//! |---|---|
//! | [`Splice`], [`run_with_saes`] | SAEs and transcoders in a forward pass, with their edits and captures |
//! | [`HookedSae`] | a coder, where it goes, its error term and the tokens that it excludes; [`CoderHooks`]: the hook points that it reads and writes |
//! | [`SaeHookPoint`], [`SaeSite`] | the places inside a spliced SAE, under SAELens' names; [`FeatureHookName`]: the name of a feature |
//! | [`FeatureEdit`] | ablate, clamp, scale, add, keep only |
//! | [`SpliceCapture`] | what a splice keeps of a run |
//! | [`direct_effects`], [`Attribution`] | the effects of features on a difference of logits, by gradient and by ablation |

mod active;
mod attribution;
mod capture;
mod error;
mod feature_edit;
mod hooked_sae;
mod names;
mod sae_hook_point;
mod splice;
mod tap;

pub use attribution::{Attribution, FeatureEffect, LogitDifference, direct_effects};
pub use capture::SpliceCapture;
pub use error::{Error, Result};
pub use feature_edit::FeatureEdit;
pub use hooked_sae::{CoderHooks, HookedSae};
pub use sae_hook_point::{FeatureHookName, SaeHookPoint, SaeSite};
pub use splice::{Splice, run_with_saes};
