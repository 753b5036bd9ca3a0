//! How the vectors of an SAE lie in the value at a hook point.

use super::SpliceError;
use crate::Result;
use candle_core::Tensor;
use model_hooks::{HookPoint, ModelShape};

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
        let vector = match hook.axes() {
            // What a norm divides by is a number.
            [.., "1"] => return Err(SpliceError::NotVectors { hook }.into()),
            ["batch", "pos", vector @ ..] => vector,
            _ => return Err(SpliceError::NotVectors { hook }.into()),
        };
        let heads = match hook.head_axis() {
            None => 0,
            Some(_) if hook.is_per_kv_head() => shape.n_kv_heads,
            Some(_) => shape.n_heads,
        };
        if let Some(head) = head.filter(|head| *head >= heads) {
            return Err(SpliceError::NoSuchHead { hook, head, heads }.into());
        }
        // An axis of a name that is not known here is left to the coder, which checks every input.
        let Some(whole) = vector.iter().try_fold(1, |whole, axis| Some(whole * size(axis, shape)?)) else {
            return Ok(head.map_or(Self::Whole, Self::Head));
        };
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

/// The size of an axis by its name.
fn size(axis: &str, shape: &ModelShape) -> Option<usize> {
    Some(match axis {
        "head" => shape.n_heads,
        "kv_head" => shape.n_kv_heads,
        "d_head" => shape.d_head,
        "d_model" => shape.d_model,
        "d_mlp" => shape.d_mlp,
        "d_vocab" => shape.d_vocab,
        _ => return None,
    })
}
