//! How the vectors of an SAE lie in the value at a hook point.

use super::SpliceError;
use crate::Result;
use candle_core::Tensor;
use model_hooks::{HookPoint, ModelShape, Site};

/// Where in a value the vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `[batch, pos, d]`, or `[batch, pos, head, d_head]` with all heads side by side.
    Whole,
    /// One head of `[batch, pos, head, d_head]`.
    Head(usize),
}

impl Place {
    /// Checks that vectors of `width` fit at `hook`, in one head or in all.
    pub(super) fn check(
        hook: HookPoint,
        shape: &ModelShape,
        head: Option<usize>,
        side: &'static str,
        found: usize,
    ) -> Result<Self> {
        let heads = match hook.head_axis() {
            None => 0,
            Some(2) if hook.is_per_kv_head() => shape.n_kv_heads,
            Some(2) => shape.n_heads,
            Some(_) => return Err(SpliceError::NotVectors { hook }.into()),
        };
        if let Some(head) = head.filter(|head| *head >= heads) {
            return Err(SpliceError::NoSuchHead { hook, head, heads }.into());
        }
        let Some(whole) = width(hook, shape) else { return Ok(head.map_or(Self::Whole, Self::Head)) };
        let of_head = whole.checked_div(heads).unwrap_or(0);
        let expected = if head.is_some() { of_head } else { whole };
        if found == expected {
            return Ok(head.map_or(Self::Whole, Self::Head));
        }
        let hint = match head {
            None if found == of_head => " over all heads; name one with `SaeAt::head`",
            Some(_) if found == whole => " in one head; this SAE takes all of them",
            _ => "",
        };
        Err(SpliceError::Width { hook, side, expected, found, hint }.into())
    }

    /// The vectors, `[batch, pos, d]`.
    pub(super) fn vectors(self, hook: HookPoint, x: &Tensor) -> Result<Tensor> {
        let x = match (self, x.dims()) {
            (Self::Whole, [_, _, _]) => x.clone(),
            (Self::Whole, [_, _, _, _]) => x.flatten_from(2)?,
            (Self::Head(head), [_, _, heads, _]) if head < *heads => x.narrow(2, head, 1)?.squeeze(2)?,
            (_, dims) => {
                let expected = "[batch, pos, d] or [batch, pos, head, d_head]".into();
                return Err(SpliceError::Shape { hook, expected, found: dims.to_vec() }.into());
            }
        };
        Ok(x)
    }

    /// The value with other vectors, `[batch, pos, d]`, in its place and of its type.
    pub(super) fn put(self, x: &Tensor, vectors: &Tensor) -> Result<Tensor> {
        let vectors = vectors.to_device(x.device())?.to_dtype(x.dtype())?;
        Ok(match self {
            Self::Whole => vectors.reshape(x.shape())?,
            Self::Head(head) => x.slice_scatter(&vectors.unsqueeze(2)?, 2, head)?,
        })
    }
}

/// The size of one position's vector at a hook point, all heads together. `None` where it is not known here: such a place is checked
/// when it fires.
fn width(hook: HookPoint, shape: &ModelShape) -> Option<usize> {
    Some(match hook {
        HookPoint::Embed | HookPoint::PosEmbed => shape.d_model,
        HookPoint::Logits => shape.d_vocab,
        HookPoint::Block { site, .. } => match site {
            Site::ResidPre | Site::ResidMid | Site::ResidPost | Site::AttnOut | Site::MlpOut => shape.d_model,
            Site::Ln1Normalized | Site::Ln2Normalized => shape.d_model,
            Site::Q | Site::RotQ | Site::Z => shape.n_heads * shape.d_head,
            Site::K | Site::V | Site::RotK => shape.n_kv_heads * shape.d_head,
            Site::Result => shape.n_heads * shape.d_model,
            Site::MlpPre | Site::MlpPreLinear | Site::MlpPost => shape.d_mlp,
            _ => return None,
        },
        HookPoint::FinalNorm(model_hooks::NormSite::Normalized) => shape.d_model,
        _ => return None,
    })
}
