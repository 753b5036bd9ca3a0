//! Changes that an edit makes to the selected part of a value.

use super::each::EachSlice;
use super::selection::AxisSelection;
use crate::{Error, HookPoint, Result};
use candle_core::{D, Tensor};
use std::fmt;
use std::sync::Arc;

#[derive(Clone)]
pub(super) enum Change {
    Scale(f64),
    Add(Tensor),
    Patch(Tensor),
    /// As `Patch`, with a row for each row: one is not broadcast to all.
    Resample(Tensor),
    ProjectOut(Tensor),
    Map(Arc<dyn Fn(Tensor) -> Result<Tensor> + Send + Sync>),
    Each(EachSlice),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shaped = |f: &mut fmt::Formatter<'_>, x: &Tensor| write!(f, "{}({:?})", self.name(), x.dims());
        match self {
            Self::Scale(factor) => write!(f, "scale({factor})"),
            Self::Add(x) | Self::Patch(x) | Self::Resample(x) | Self::ProjectOut(x) => shaped(f, x),
            Self::Map(_) | Self::Each(_) => f.write_str(self.name()),
        }
    }
}

impl Change {
    fn name(&self) -> &'static str {
        match self {
            Self::Scale(_) => "scale",
            Self::Add(_) => "add",
            Self::Patch(_) => "patch",
            Self::Resample(_) => "resample",
            Self::ProjectOut(_) => "project out",
            Self::Map(_) => "map",
            Self::Each(_) => "each",
        }
    }

    /// Applies the change to `x` inside the cuts, and keeps it outside.
    pub fn apply(&self, point: HookPoint, x: &Tensor, cuts: &[AxisSelection]) -> Result<Tensor> {
        // A tensor of the whole value's shape (from another run, say) is cut as the value is.
        let cut_too = |y: &Tensor| -> Result<Tensor> {
            if y.shape() == x.shape() { cuts.iter().try_fold(y.clone(), |y, cut| cut.take(&y)) } else { Ok(y.clone()) }
        };
        let change = match self {
            Self::Add(y) => Self::Add(cut_too(y)?),
            Self::Patch(y) => Self::Patch(cut_too(y)?),
            Self::Resample(y) => Self::Resample(cut_too(y)?),
            other => other.clone(),
        };
        let place = At { point, whole: x.dims(), cuts };
        change.within(&place, x, cuts)
    }

    fn within(&self, at: &At<'_>, x: &Tensor, cuts: &[AxisSelection]) -> Result<Tensor> {
        let Some((cut, rest)) = cuts.split_first() else { return self.whole(at, x) };
        cut.put(x, &self.within(at, &cut.take(x)?, rest)?)
    }

    fn whole(&self, at: &At<'_>, x: &Tensor) -> Result<Tensor> {
        let fit = |y: &Tensor| -> Result<Tensor> {
            y.to_dtype(x.dtype())?.broadcast_as(x.shape()).map_err(|_| at.misfit(self.name(), x, y))
        };
        Ok(match self {
            Self::Scale(0.0) => x.zeros_like()?,
            Self::Scale(factor) => (x * *factor)?,
            Self::Add(y) => (x + fit(y)?)?,
            Self::Resample(y) if y.dim(0)? != x.dim(0)? => return Err(at.misfit(self.name(), x, y)),
            Self::Patch(y) | Self::Resample(y) => fit(y)?.contiguous()?,
            Self::ProjectOut(d) => {
                let d = fit(d)?;
                let along = (x * &d)?.sum_keepdim(D::Minus1)?.broadcast_div(&d.sqr()?.sum_keepdim(D::Minus1)?)?;
                (x - d.broadcast_mul(&along)?)?
            }
            Self::Map(f) => {
                let y = f(x.clone())?;
                if y.shape() == x.shape() && y.dtype() == x.dtype() {
                    return Ok(y);
                }
                return Err(Error::EditChangedShape {
                    point: at.point,
                    expected: format!("{:?} of {:?}", x.dims(), x.dtype()),
                    found: format!("{:?} of {:?}", y.dims(), y.dtype()),
                });
            }
            Self::Each(f) => f.apply(at.point, at.cuts, x)?,
        })
    }
}

/// Location of a change, for errors.
struct At<'a> {
    point: HookPoint,
    whole: &'a [usize],
    cuts: &'a [AxisSelection],
}

impl At<'_> {
    fn misfit(&self, op: &'static str, x: &Tensor, y: &Tensor) -> Error {
        let expected = match self.cuts.is_empty() {
            true => format!("{:?}, or what broadcasts to it", x.dims()),
            false => format!("{:?} (the part), what broadcasts to it, or {:?} (the whole)", x.dims(), self.whole),
        };
        Error::EditShape { point: self.point, op, expected, found: y.dims().to_vec() }
    }
}
