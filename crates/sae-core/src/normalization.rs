use crate::slices::with_f32;
use crate::{ActLayout, Error, InputNorm, InputShape, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Normalization of each activation vector before encoding, undone after decoding.
///
/// ```text
/// None                          x                            x_hat
/// ExpectedAverageOnlyIn         x * s                        x_hat / s                  s is not known: to be folded first
/// ConstantNormRescale           x * c,  c = sqrt(d_in)/|x|   x_hat / c
/// LayerNorm                     (x - mu) / (sd + 1e-5)       x_hat * sd + mu     sd with d_in - 1 below the line
/// ```
///
/// These are SAELens' `normalize_activations`. As there, the 1e-5 of the layer norm is not added on the way back. A vector of
/// zeros has no direction to rescale and passes `ConstantNormRescale` as it is (SAELens gives NaN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Normalization {
    /// Vectors as they are.
    None,
    /// A training-time factor that brings the mean norm to `sqrt(d_in)` and is not in the weights yet. Until it is folded
    /// ([`fold_norm_factor`](crate::Sae::fold_norm_factor)), encoding and decoding are [`Error::NormFactorMissing`].
    ExpectedAverageOnlyIn,
    /// Every vector to norm `sqrt(d_in)`.
    ConstantNormRescale,
    /// Every vector to mean 0 and unbiased standard deviation 1.
    LayerNorm,
}

impl Normalization {
    /// Whether decoding needs what encoding saw.
    #[must_use]
    pub fn is_per_token(self) -> bool {
        matches!(self, Self::ConstantNormRescale | Self::LayerNorm)
    }
}

const LAYER_NORM_EPS: f32 = 1e-5;

/// Everything between the caller's tensor and the product with the encoder: shape, type, normalization, shift.
#[derive(Clone)]
pub(crate) struct InputMap {
    pub(crate) d_in: usize,
    pub(crate) act_shape: InputShape,
    pub(crate) normalization: Normalization,
    pub(crate) input_shift: Option<Arc<[f32]>>,
}

/// A prepared input: `x~ = flat - shift` as `[n, d_in]`.
pub(crate) struct Rows<'a> {
    pub(crate) d_in: usize,
    /// Normalized rows, one after another.
    pub(crate) flat: &'a [f32],
    /// The vector still to be subtracted from each row.
    pub(crate) shift: Option<&'a [f32]>,
}

impl Rows<'_> {
    pub(crate) fn len(&self) -> usize {
        self.flat.len() / self.d_in
    }
}

impl InputMap {
    /// Inputs and outputs are in the units of the model's activations.
    pub(crate) fn check_scale(&self) -> Result<()> {
        match self.normalization {
            Normalization::ExpectedAverageOnlyIn => Err(Error::NormFactorMissing),
            _ => Ok(()),
        }
    }

    /// Prepares an input and lends it, with what the way back needs and its shape. Contiguous f32 inputs on the CPU that need no
    /// normalization are not copied.
    pub(crate) fn with_rows<R>(
        &self,
        x: &Tensor,
        work: impl FnOnce(&Rows<'_>, Option<InputNorm>, ActLayout) -> Result<R>,
    ) -> Result<R> {
        self.check_scale()?;
        let layout = ActLayout::of(x.dims(), self.d_in, self.act_shape)?;
        if !x.dtype().is_float() {
            return Err(Error::InputType { found: x.dtype() });
        }
        let lend = |flat: &[f32]| {
            check_finite("input", flat, self.d_in)?;
            let rows = |flat| Rows { d_in: self.d_in, flat, shift: self.input_shift.as_deref() };
            if !self.normalization.is_per_token() {
                return work(&rows(flat), None, layout.clone());
            }
            let mut flat = flat.to_vec();
            let scale = self.normalize(&mut flat);
            work(&rows(&flat), scale, layout.clone())
        };
        match layout.count() {
            0 => lend(&[]),
            _ => with_f32(&x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?, lend)?,
        }
    }

    fn normalize(&self, flat: &mut [f32]) -> Option<InputNorm> {
        let rows = flat.par_chunks_exact_mut(self.d_in);
        match self.normalization {
            Normalization::None | Normalization::ExpectedAverageOnlyIn => None,
            Normalization::ConstantNormRescale => Some(InputNorm { multiply: rows.map(rescale).collect(), add: None }),
            Normalization::LayerNorm => {
                let (multiply, add) = rows.map(standardize).unzip();
                Some(InputNorm { multiply, add: Some(add) })
            }
        }
    }
}

/// Brings a vector to norm `sqrt(d)`; returns the factor that undoes it.
fn rescale(row: &mut [f32]) -> f32 {
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return 1.0;
    }
    let factor = (row.len() as f64).sqrt() / norm;
    row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    (1.0 / factor) as f32
}

/// Brings a vector to mean 0 and deviation 1; returns the deviation and the mean.
fn standardize(row: &mut [f32]) -> (f32, f32) {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (row.len() as f64 - 1.0)).sqrt();
    let divisor = deviation + f64::from(LAYER_NORM_EPS);
    row.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) / divisor) as f32);
    (deviation as f32, mean as f32)
}

/// A matrix in f32 on the CPU, every value of it finite.
pub(crate) fn matrix(name: &'static str, tensor: &Tensor) -> Result<Tensor> {
    let &[_, width] = tensor.dims() else {
        return Err(Error::Shape { name, expected: vec![0, 0], found: tensor.dims().to_vec() });
    };
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    with_f32(&tensor, |flat| check_finite(name, flat, width))??;
    Ok(tensor)
}

/// Values that one task checks.
const CHECKED_AT_ONCE: usize = 1 << 14;

/// Every value must be finite; the error says where the first one is that is not.
pub(crate) fn check_finite(name: &'static str, flat: &[f32], width: usize) -> Result<()> {
    let infinite = |v: &f32| v.to_bits() & f32::INFINITY.to_bits() == f32::INFINITY.to_bits();
    let any = |part: &[f32]| part.iter().fold(false, |any, v| any | infinite(v));
    if !flat.par_chunks(CHECKED_AT_ONCE).any(any) {
        return Ok(());
    }
    match flat.iter().position(infinite) {
        Some(at) => Err(Error::NotFinite { name, value: flat[at], row: at / width, column: at % width }),
        None => Ok(()),
    }
}
