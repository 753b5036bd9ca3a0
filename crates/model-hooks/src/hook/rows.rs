//! The value at a hook point as one row for each position: [`HookSelector`] says which, [`HookRows`] how wide and where.

use super::HookPoint;
use crate::{Error, ModelShape, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A hook point, or one head of it. `Display` and `FromStr` are the point's name, with the head in brackets.
///
/// ```
/// use model_hooks::HookSelector;
/// let z: HookSelector = "blocks.3.attn.hook_z[5]".parse()?;
/// assert_eq!(z, HookSelector::head("blocks.3.attn.hook_z".parse()?, 5));
/// assert_eq!(z.to_string(), "blocks.3.attn.hook_z[5]");
/// # Ok::<(), model_hooks::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HookSelector {
    /// The hook point.
    pub point: HookPoint,
    /// One head of a value with heads; without it the heads lie side by side in a row.
    pub head: Option<usize>,
}

impl HookSelector {
    /// One head of a hook point.
    #[must_use]
    pub fn head(point: HookPoint, head: usize) -> Self {
        Self { point, head: Some(head) }
    }
}

impl From<HookPoint> for HookSelector {
    fn from(point: HookPoint) -> Self {
        Self { point, head: None }
    }
}

impl fmt::Display for HookSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head {
            None => self.point.fmt(f),
            Some(head) => write!(f, "{}[{head}]", self.point),
        }
    }
}

impl FromStr for HookSelector {
    type Err = Error;

    /// Reads the name of a hook point, and behind it a head in brackets if there is one.
    ///
    /// # Errors
    /// As [`HookPoint::from_str`]; [`Error::BadOption`] for brackets without a number.
    fn from_str(name: &str) -> Result<Self> {
        let Some((point, head)) = name.strip_suffix(']').and_then(|name| name.split_once('[')) else {
            return Ok(Self::from(name.parse::<HookPoint>()?));
        };
        let index = head.parse::<usize>().ok().filter(|index| index.to_string() == head);
        let index = index.ok_or_else(|| Error::BadOption {
            what: "the head of a hook point",
            expected: "a number in brackets behind the point, such as blocks.3.attn.hook_z[5]".into(),
            found: format!("`{name}`"),
        })?;
        Ok(Self::head(point.parse()?, index))
    }
}

impl From<HookSelector> for String {
    fn from(selector: HookSelector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for HookSelector {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

/// The value at a hook point as one row for each position: `[batch, pos, d]` as it is, `[batch, pos, head, d]` with all heads side by
/// side, or one head of it.
///
/// Axes and widths come from [`HookPoint::axes`] and the model's shape, so that every hook point with a vector for each position has rows.
///
/// ```
/// use model_hooks::{HookRows, HookSelector, ModelShape};
/// let mut shape = ModelShape::new(64, 2, 100, 32);
/// (shape.n_heads, shape.n_kv_heads, shape.d_head) = (4, 2, 16);
/// let width = |name: &str| HookRows::resolve(name.parse::<HookSelector>()?, &shape).map(|rows| rows.width());
/// assert_eq!(width("blocks.1.hook_mlp_in")?, 64);
/// assert_eq!(width("blocks.1.attn.hook_v")?, 2 * 16);
/// assert_eq!(width("blocks.1.attn.hook_v[1]")?, 16);
/// assert!(width("blocks.1.attn.hook_pattern").is_err());
/// # Ok::<(), model_hooks::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookRows {
    selector: HookSelector,
    /// Number of heads of the value, if it has an axis of them.
    heads: Option<usize>,
    /// Size of the value's last axis.
    last: usize,
}

impl HookRows {
    /// The rows of a hook point, or of one head of it, in a model of this shape.
    ///
    /// # Errors
    /// [`Error::NotRows`] for scores and patterns, which have no vector for each position; [`Error::NoSuchHead`].
    pub fn resolve(selector: impl Into<HookSelector>, shape: &ModelShape) -> Result<Self> {
        let selector = selector.into();
        let HookSelector { point, head } = selector;
        let (heads, last) = sizes(point, shape).ok_or(Error::NotRows { point })?;
        match head.filter(|head| *head >= heads.unwrap_or(0)) {
            Some(head) => Err(Error::NoSuchHead { point, head, heads: heads.unwrap_or(0) }),
            None => Ok(Self { selector, heads, last }),
        }
    }

    /// Which value.
    #[must_use]
    pub fn selector(&self) -> HookSelector {
        self.selector
    }

    /// The hook point.
    #[must_use]
    pub fn point(&self) -> HookPoint {
        self.selector.point
    }

    /// The one head that is meant, if it is one.
    #[must_use]
    pub fn head(&self) -> Option<usize> {
        self.selector.head
    }

    /// Numbers in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        match (self.selector.head, self.heads) {
            (None, Some(heads)) => heads.saturating_mul(self.last),
            _ => self.last,
        }
    }

    /// Numbers in a row of one head, of a value that has heads.
    #[must_use]
    pub fn head_width(&self) -> Option<usize> {
        self.heads.map(|_| self.last)
    }

    /// The rows of a value: `[batch, pos, (head,) d]` -> `[batch, pos, width]`, of the value's type.
    ///
    /// # Errors
    /// [`Error::Shape`] for a value that is not of this hook point in this model.
    pub fn gather(&self, value: &Tensor) -> Result<Tensor> {
        self.check(value)?;
        Ok(match (self.selector.head, self.heads) {
            (_, None) => value.clone(),
            (None, Some(_)) => value.flatten_from(2)?,
            (Some(head), Some(_)) => value.narrow(2, head, 1)?.squeeze(2)?,
        })
    }

    /// The value with other rows `[batch, pos, width]` in it, of the value's type and on its device. Other heads are left as they are.
    ///
    /// # Errors
    /// [`Error::Shape`] for a value that is not of this hook point in this model, or rows that do not fit it.
    pub fn scatter(&self, value: &Tensor, rows: &Tensor) -> Result<Tensor> {
        self.check(value)?;
        let expected = [value.dim(0)?, value.dim(1)?, self.width()];
        if rows.dims() != expected {
            let expected = format!("[batch, pos, width] = {expected:?}");
            return Err(Error::Shape { what: "rows of a hook point", expected, found: rows.dims().to_vec() });
        }
        let rows = rows.to_device(value.device())?.to_dtype(value.dtype())?;
        Ok(match self.selector.head {
            None => rows.reshape(value.shape())?,
            Some(head) => value.slice_scatter(&rows.unsqueeze(2)?.contiguous()?, 2, head)?,
        })
    }

    fn check(&self, value: &Tensor) -> Result<()> {
        let fits = match (value.dims(), self.heads) {
            (&[_, _, width], None) => width == self.last,
            (&[_, _, heads, width], Some(all)) => heads == all && width == self.last,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let expected = match self.heads {
            None => format!("[batch, pos, {}] at {}", self.last, self.selector.point),
            Some(heads) => format!("[batch, pos, {heads}, {}] at {}", self.last, self.selector.point),
        };
        Err(Error::Shape { what: "the value at a hook point", expected, found: value.dims().to_vec() })
    }
}

impl fmt::Display for HookRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.selector.fmt(f)
    }
}

/// Number of heads, if there is an axis of them, and the size of the last axis; `None` where positions are not rows.
fn sizes(point: HookPoint, shape: &ModelShape) -> Option<(Option<usize>, usize)> {
    match point.axes() {
        ["batch", "pos", last] => Some((None, size(last, shape)?)),
        ["batch", "pos", heads, last] => Some((Some(size(heads, shape)?), size(last, shape)?)),
        _ => None,
    }
}

/// The size of an axis by its name.
fn size(axis: &str, shape: &ModelShape) -> Option<usize> {
    Some(match axis {
        "1" => 1,
        "head" => shape.n_heads,
        "kv_head" => shape.n_kv_heads,
        "d_head" => shape.d_head,
        "d_model" => shape.d_model,
        "d_mlp" => shape.d_mlp,
        "d_vocab" => shape.d_vocab,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NormSite, Site};

    fn shape() -> ModelShape {
        let mut shape = ModelShape::new(12, 2, 50, 8);
        (shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_mlp) = (6, 2, 3, 20);
        shape
    }

    #[test]
    fn every_point_has_rows_but_scores_and_patterns() {
        let outside = [HookPoint::Embed, HookPoint::PosEmbed, HookPoint::Logits].into_iter();
        let norms = [NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm);
        let blocks = Site::all().map(|site| HookPoint::Block { layer: 1, site });
        for point in outside.chain(norms).chain(blocks) {
            let rows = HookRows::resolve(point, &shape());
            match point.site() {
                Some(Site::AttnScores | Site::Pattern) => {
                    assert!(matches!(rows, Err(Error::NotRows { .. })), "{point}");
                }
                _ => assert!(rows.unwrap().width() > 0, "{point}"),
            }
        }
    }

    #[test]
    fn selectors_round_trip_as_text_and_as_json() {
        for name in ["blocks.3.attn.hook_z[5]", "blocks.0.hook_resid_pre", "hook_embed", "blocks.1.attn.hook_k[0]"] {
            let selector: HookSelector = name.parse().unwrap();
            assert_eq!(selector.to_string(), name);
            let json = serde_json::to_string(&selector).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<HookSelector>(&json).unwrap(), selector);
        }
        for bad in ["blocks.3.attn.hook_z[]", "blocks.3.attn.hook_z[05]", "blocks.3.attn.hook_z[-1]", "[3]", "x[1]"] {
            assert!(bad.parse::<HookSelector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn heads_that_are_not_there_are_errors() {
        let of = |name: &str| HookRows::resolve(name.parse::<HookSelector>().unwrap(), &shape());
        assert!(matches!(of("blocks.0.attn.hook_z[6]"), Err(Error::NoSuchHead { head: 6, heads: 6, .. })));
        assert!(matches!(of("blocks.0.attn.hook_v[2]"), Err(Error::NoSuchHead { head: 2, heads: 2, .. })));
        assert!(matches!(of("blocks.0.hook_resid_pre[0]"), Err(Error::NoSuchHead { heads: 0, .. })));
        assert_eq!(of("blocks.0.attn.hook_result[5]").unwrap().width(), 12);
    }

    #[test]
    fn values_and_rows_of_another_shape_are_errors() {
        let rows = HookRows::resolve("blocks.0.attn.hook_z".parse::<HookPoint>().unwrap(), &shape()).unwrap();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        assert!(rows.gather(&zeros(&[1, 2, 18])).is_err());
        assert!(rows.gather(&zeros(&[1, 2, 3, 6])).is_err());
        assert!(rows.scatter(&zeros(&[1, 2, 6, 3]), &zeros(&[1, 3, 18])).is_err());
        assert_eq!(rows.gather(&zeros(&[1, 2, 6, 3])).unwrap().dims(), [1, 2, 18]);
    }
}
