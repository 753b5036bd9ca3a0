//! From directions at a hook point to directions of the residual stream: [`ResidualMap`].

use crate::hook::known_to;
use crate::{BlockPart, Error, HookPoint, HookRows, HookSelector, HookedModel, Result, Site};
use candle_core::{D, Tensor};

/// The linear map from the rows of a hook point to the residual stream: what a change of the value there adds to the stream by the part
/// of the block that holds it.
///
/// ```text
/// hook_resid_pre, _mid, _post, hook_attn_out, hook_mlp_out, hook_embed, hook_pos_embed     x
/// attn.hook_z          W_O of all heads (rows of its query heads, in grouped attention too); of one head its rows
/// attn.hook_result     the sum over the heads; one head as it is
/// mlp.hook_post        x W_out
/// mlp.hook_pre         x W_out in plain MLPs: the neurons' directions, as if the activation function were the identity
/// ln1_post.hook_normalized, ln2_post.hook_normalized                                       x * gain
/// ```
///
/// Everything else is an error. A norm behind attention or the MLP (Gemma 2 and 3, OLMo 2) divides by a scale that depends on the text and
/// removes what is parallel to its input, so that no fixed map leads through it from `hook_z`, `hook_result`, `mlp.hook_post` or
/// `mlp.hook_pre`; behind its division the gain alone is left. In a gated MLP the sign of what `hook_pre` and `hook_pre_linear` do is decided by
/// the other factor. Queries, keys, values, norms before a layer and inputs of single parts reach the stream by way of other operations.
///
/// Biases are not part of a direction. Weights are the model's own, as its processing left them.
#[derive(Clone, Debug)]
pub struct ResidualMap {
    rows: HookRows,
    map: Map,
}

#[derive(Clone, Debug)]
enum Map {
    Identity,
    /// `[width, d_model]`
    Matrix(Tensor),
    /// `[d_model]`
    Gain(Tensor),
    /// Of so many heads.
    SumOfHeads(usize),
}

impl ResidualMap {
    /// The map from a hook point, or from one head of it.
    ///
    /// # Errors
    /// [`Error::NotWritten`] for a hook point from which no linear map leads to the stream, [`Error::UnknownHookPoint`] for one that the model
    /// does not have, [`Error::NoSuchHead`], [`Error::NotRows`], [`Error::NotExposed`] from a model that does not give the weights.
    pub fn resolve(model: &dyn HookedModel, at: impl Into<HookSelector>) -> Result<Self> {
        let at = at.into();
        known_to(model.hook_points(), at.point)?;
        let rows = HookRows::resolve(at, model.shape())?;
        let refuse = |reason| Err(Error::NotWritten { at, reason });
        let HookPoint::Block { layer, site } = at.point else {
            return match at.point {
                HookPoint::Embed | HookPoint::PosEmbed => Ok(Self { rows, map: Map::Identity }),
                _ => refuse("it lies behind the last block; use hook_resid_post of that block"),
            };
        };
        let has = |site| model.hook_points().contains(&HookPoint::Block { layer, site });
        let weights = |part| model.output_weights(usize::from(layer), part);
        let map = match site {
            Site::ResidPre | Site::ResidMid | Site::ResidPost | Site::AttnOut | Site::MlpOut => Map::Identity,
            Site::Z | Site::Result if has(Site::Ln1PostScale) => {
                return refuse(
                    "a norm follows attention, whose scale depends on the text; use hook_attn_out, behind it",
                );
            }
            Site::MlpPost | Site::MlpPre if has(Site::Ln2PostScale) => {
                return refuse("a norm follows the MLP, whose scale depends on the text; use hook_mlp_out, behind it");
            }
            Site::Z => {
                let w_o = weights(BlockPart::Attention)?.w;
                let d_head = rows.head_width().unwrap_or(rows.width());
                Map::Matrix(match at.head {
                    Some(head) => w_o.narrow(0, head * d_head, d_head)?.contiguous()?,
                    None => w_o,
                })
            }
            Site::Result => match at.head {
                Some(_) => Map::Identity,
                None => Map::SumOfHeads(model.shape().n_heads),
            },
            Site::MlpPost | Site::MlpPre => {
                let weights = weights(BlockPart::Mlp)?;
                if site == Site::MlpPre && weights.gated {
                    return refuse("in a gated MLP the other factor decides its sign; use mlp.hook_post");
                }
                Map::Matrix(weights.w)
            }
            Site::Ln1PostNormalized => Self::gain(&weights(BlockPart::Attention)?),
            Site::Ln2PostNormalized => Self::gain(&weights(BlockPart::Mlp)?),
            Site::MlpPreLinear => return refuse("in a gated MLP the other factor decides its sign; use mlp.hook_post"),
            Site::AttnIn | Site::QInput | Site::KInput | Site::VInput | Site::MlpIn => {
                return refuse("it is a copy that one reader of the stream is given, and is not written back");
            }
            _ => return refuse("it does not write to the stream"),
        };
        let map = Self { rows, map };
        map.check(model.shape().d_model)?;
        Ok(map)
    }

    fn gain(weights: &crate::OutputWeights) -> Map {
        weights.post_norm.as_ref().and_then(|norm| norm.gain.clone()).map_or(Map::Identity, Map::Gain)
    }

    /// That a model's own weights have the shape of its hook point.
    fn check(&self, d_model: usize) -> Result<()> {
        let (expected, found) = match &self.map {
            Map::Matrix(w) => (vec![self.rows.width(), d_model], w.dims()),
            Map::Gain(gain) => (vec![d_model], gain.dims()),
            Map::Identity | Map::SumOfHeads(_) => return Ok(()),
        };
        if expected == found {
            return Ok(());
        }
        let what = "a weight of HookedModel::output_weights";
        Err(Error::Shape { what, expected: format!("{expected:?} at {}", self.rows), found: found.to_vec() })
    }

    /// Hook point of the directions.
    #[must_use]
    pub fn at(&self) -> HookSelector {
        self.rows.selector()
    }

    /// Numbers in a direction.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rows.width()
    }

    /// Directions `[n, width]` as directions of the residual stream `[n, d_model]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for rows of another width.
    pub fn apply(&self, directions: &Tensor) -> Result<Tensor> {
        let &[n, width] = directions.dims() else { return self.misfit(directions) };
        if width != self.rows.width() {
            return self.misfit(directions);
        }
        Ok(match &self.map {
            Map::Identity => directions.clone(),
            Map::Matrix(w) => directions.to_device(w.device())?.to_dtype(w.dtype())?.contiguous()?.matmul(w)?,
            Map::Gain(gain) => directions.to_device(gain.device())?.to_dtype(gain.dtype())?.broadcast_mul(gain)?,
            Map::SumOfHeads(heads) => directions.reshape((n, *heads, width / heads))?.sum(D::Minus2)?,
        })
    }

    fn misfit<T>(&self, found: &Tensor) -> Result<T> {
        let expected = format!("[n, {}] at {}", self.rows.width(), self.rows);
        Err(Error::Shape { what: "directions", expected, found: found.dims().to_vec() })
    }
}

/// Directions `[n, width]` at a hook point as directions of the residual stream `[n, d_model]`: [`ResidualMap`], once.
///
/// # Errors
/// As [`ResidualMap::resolve`] and [`ResidualMap::apply`].
pub fn residual_directions(
    model: &dyn HookedModel,
    at: impl Into<HookSelector>,
    directions: &Tensor,
) -> Result<Tensor> {
    ResidualMap::resolve(model, at)?.apply(directions)
}
