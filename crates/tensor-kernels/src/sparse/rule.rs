//! Selection rules: the values of a product that are kept.

use crate::{Error, Result};

/// Activation that turns the pre-activations `h = x W + b` of a row into its few active values `f`.
///
/// ```text
/// Relu      f = max(h, 0)
/// JumpRelu  f = max(h, 0) where h > threshold (strictly), else 0            negative thresholds act as 0
/// Gated     f = max(x W * gain + b_mag, 0) where h > 0, else 0
/// TopK      f = max(h * norm, 0) for the k largest h * norm of a row, of equal ones the lower columns, else 0
/// ```
/// NaN counts as active, and for `TopK` as larger than any number: what went wrong before shows in the result.
///
/// Parameters hold one value per column of the product.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SparseActivation<'a> {
    /// Everything above zero.
    Relu,
    /// A threshold per column.
    JumpRelu {
        /// Threshold that a pre-activation must exceed.
        threshold: &'a [f32],
    },
    /// One product, read twice: a gate that opens and a magnitude that passes.
    Gated {
        /// The magnitude's gain.
        gain: &'a [f32],
        /// The magnitude's bias.
        b_mag: &'a [f32],
    },
    /// The k largest above zero.
    TopK {
        /// Maximum number of values kept per row.
        k: usize,
        /// Factors that pre-activations compete with, and come out with; finite and not negative.
        norms: Option<&'a [f32]>,
    },
}

impl SparseActivation<'_> {
    /// Checks the parameters against the number of columns.
    pub(crate) fn check(&self, cols: usize) -> Result<()> {
        let check = |what, values: &[f32]| match values.len() {
            found if found == cols => Ok(()),
            found => Err(Error::Length { what, expected: cols, found }),
        };
        match self {
            Self::Relu | Self::TopK { norms: None, .. } => Ok(()),
            Self::JumpRelu { threshold } => check("thresholds", threshold),
            Self::Gated { gain, b_mag } => check("gains", gain).and_then(|()| check("biases of magnitudes", b_mag)),
            Self::TopK { norms: Some(norms), .. } => check("norms", norms),
        }
    }
}
