//! The logit lens on decoder rows: which tokens a feature's direction promotes and suppresses.
//!
//! ```text
//! P = W_dec M W_U [d_sae, d_vocab],   top(f) = the k largest of P[f, :],   bottom(f) = the k smallest
//! ```
//!
//! `P` of GPT-2 small and a 24,576-feature SAE would take 4.9 GB. It is never held: of each tile of it the few values are kept that can still
//! be among the extremes. How much memory that takes is said by [`LensOptions::bytes`](crate::LensOptions::bytes).
//!
//! `M` leads from the SAE's hook point to the residual stream ([`ResidualMap`]): nothing on the stream and at the outputs of attention and
//! MLP, `W_O` at `hook_z`, `W_out` in the MLP. For a transcoder it is the hook point that it writes. Where no linear map leads to the stream there is
//! no lens.
//!
//! What `W_U` means depends on the model's weight processing: with the final norm's gain folded in (TransformerLens' `fold_ln`, its
//! default), `P` is what the notebook shows; on raw weights the gain is missing from it.

use crate::{Error, LensOptions, Result, TopBottomTokens, project_directions, project_directions_on};
use model_hooks::{HookSelector, LanguageModel, ProcessingSteps, ResidualMap};
use sae_core::{SaeMetadata, SparseCoder};
use sae_hooks::HookedSae;
use std::ops::Range;
use tensor_kernels::{Arithmetic, Operand};

/// One feature's extreme tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTokens {
    /// The feature.
    pub feature: u32,
    /// The tokens it promotes and suppresses most.
    pub tokens: TopBottomTokens,
}

/// The logit lens of some features, and of which weights it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogitLens {
    /// One entry per feature, in the order asked for.
    pub features: Vec<FeatureTokens>,
    /// Where the decoder rows write: a hook point, or one head of it.
    pub at: HookSelector,
    /// The weight processing of the model whose `W_U` this is. Without `fold_ln` the final norm's gain is not in it.
    pub processing: ProcessingSteps,
    /// Width of the projection that was searched.
    pub d_vocab: usize,
    /// What computed it, and how exactly.
    pub arithmetic: Arithmetic,
}

/// The tokens that features promote and suppress: rows of `W_dec M W_U`, searched and dropped block by block.
///
/// Decoder rows are directions at [`LensOptions::at`], by default the hook point (and head) that the coder's metadata name.
///
/// With `features` of `None` all of the SAE's are taken, in order. The model's own `W_U` is used, as its processing left it; the result
/// says which. (The vocabulary may be padded: ids that the tokenizer does not know can appear.)
///
/// # Errors
/// A bad feature list; [`sae_core::Error::MissingMetadata`] where neither the options nor the metadata name a hook point; an SAE whose output width
/// is not that of the hook point; [`model_hooks::Error::NotWritten`] for one from which no linear map leads to the residual stream; as
/// [`project_directions`].
pub fn logit_lens(
    model: &LanguageModel,
    coder: &dyn SparseCoder,
    features: Option<&[u32]>,
    options: &LensOptions,
) -> Result<LogitLens> {
    let d_vocab = model.shape().d_vocab;
    let at = match options.at {
        Some(at) => at,
        None => HookedSae::from_metadata_in(model.hooked(), coder)?.output(),
    };
    let map = residual_map(model, coder, at)?;
    let features = match features {
        Some(list) => {
            sae_core::check_feature_list(list, coder.d_sae())?;
            list.to_vec()
        }
        None => (0..coder.d_sae() as u32).collect(),
    };
    let directions = |range: Range<usize>| Ok(map.apply(&coder.decoder_rows(&features[range])?)?);
    let w_u = model.hooked().w_u_operand();
    let extremes = match w_u {
        Some(w_u) => project_directions_on(features.len(), directions, w_u, options)?,
        None => {
            let w_u_columns = |start, len| Ok(model.hooked().w_u_columns(start, len)?);
            project_directions(features.len(), d_vocab, directions, w_u_columns, options)?
        }
    };
    let arithmetic = match w_u {
        Some(Operand::Packed(packed)) => packed.arithmetic(),
        _ => options.arithmetic,
    };
    let features =
        features.into_iter().zip(extremes).map(|(feature, tokens)| FeatureTokens { feature, tokens }).collect();
    Ok(LogitLens { features, at, processing: model.processing(), d_vocab, arithmetic })
}

/// The map from a coder's decoder rows to the residual stream.
pub(crate) fn residual_map(model: &LanguageModel, coder: &dyn SparseCoder, at: HookSelector) -> Result<ResidualMap> {
    let map = ResidualMap::resolve(model.hooked(), at)?;
    let (left_size, right_size) = (coder.d_out(), map.width());
    if left_size != right_size {
        let right = "the width of the hook point that it writes";
        return Err(Error::SizeMismatch { left: "the SAE's output width", left_size, right, right_size });
    }
    Ok(map)
}

/// Returns the hook point that a coder writes when it reads `read`: that same point for an SAE, whatever its metadata name (the caller may read it elsewhere), and
/// the metadata's output for a transcoder.
pub(crate) fn written(model: &LanguageModel, coder: &dyn SparseCoder, read: HookSelector) -> Result<HookSelector> {
    let has_own_output =
        |metadata: &SaeMetadata| metadata.hook_name_out.is_some() && metadata.hook_name_out != metadata.hook_name;
    if coder.is_transcoder() || coder.metadata().is_some_and(has_own_output) {
        return Ok(HookedSae::from_metadata_in(model.hooked(), coder)?.output());
    }
    Ok(read)
}
