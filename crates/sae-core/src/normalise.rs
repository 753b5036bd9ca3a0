use crate::{ActShape, Error, Layout, Result, RowNorm};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// What happens to each activation vector before encoding, and is undone after decoding.
///
/// ```text
/// None, ExpectedAverageOnlyIn   x                            x_hat
/// ConstantNormRescale           x * c,  c = sqrt(d_in)/|x|   x_hat / c
/// LayerNorm                     (x - mu) / (sd + 1e-5)       x_hat * sd + mu     sd with d_in - 1 below the line
/// ```
///
/// These are SAELens' `normalize_activations`. As there, the 1e-5 of the layer norm is not added on the way back. A vector of
/// zeros has no direction to rescale and passes `ConstantNormRescale` as it is (SAELens gives NaN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Normalisation {
    /// Vectors as they are.
    None,
    /// Vectors as they are: a training-time factor that is meant to be folded with
    /// [`fold_norm_factor`](crate::Sae::fold_norm_factor). Until then the SAE expects vectors of mean norm `sqrt(d_in)`.
    ExpectedAverageOnlyIn,
    /// Every vector to norm `sqrt(d_in)`.
    ConstantNormRescale,
    /// Every vector to mean 0 and unbiased standard deviation 1.
    LayerNorm,
}

impl Normalisation {
    /// Whether decoding needs what encoding saw.
    #[must_use]
    pub fn is_per_token(self) -> bool {
        matches!(self, Self::ConstantNormRescale | Self::LayerNorm)
    }
}

const LAYER_NORM_EPS: f32 = 1e-5;

/// Everything between the caller's tensor and the product with the encoder: shape, type, normalisation, shift.
#[derive(Clone)]
pub(crate) struct InputMap {
    pub(crate) d_in: usize,
    pub(crate) act_shape: ActShape,
    pub(crate) normalisation: Normalisation,
    pub(crate) input_shift: Option<Arc<[f32]>>,
}

/// A prepared input: `x~` as `[n, d_in]`, and what the way back needs.
pub(crate) struct Prepared {
    pub(crate) x: Tensor,
    pub(crate) scale: Option<RowNorm>,
    pub(crate) layout: Layout,
}

impl InputMap {
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Prepared> {
        let layout = Layout::of(x.dims(), self.d_in, self.act_shape)?;
        if !x.dtype().is_float() {
            return Err(Error::InputType { found: x.dtype() });
        }
        let rows = layout.count();
        let mut flat: Vec<f32> = match rows {
            0 => Vec::new(),
            _ => x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
        };
        check_finite("input", &flat, self.d_in)?;
        let scale = self.normalise(&mut flat);
        if let Some(shift) = &self.input_shift {
            for row in flat.chunks_exact_mut(self.d_in) {
                row.iter_mut().zip(shift.iter()).for_each(|(x, b)| *x -= b);
            }
        }
        let x = Tensor::from_vec(flat, (rows, self.d_in), &Device::Cpu)?;
        Ok(Prepared { x, scale, layout })
    }

    fn normalise(&self, flat: &mut [f32]) -> Option<RowNorm> {
        let rows = flat.par_chunks_exact_mut(self.d_in);
        match self.normalisation {
            Normalisation::None | Normalisation::ExpectedAverageOnlyIn => None,
            Normalisation::ConstantNormRescale => Some(RowNorm { multiply: rows.map(rescale).collect(), add: None }),
            Normalisation::LayerNorm => {
                let (multiply, add) = rows.map(standardise).unzip();
                Some(RowNorm { multiply, add: Some(add) })
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
fn standardise(row: &mut [f32]) -> (f32, f32) {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (row.len() as f64 - 1.0)).sqrt();
    let divisor = deviation + f64::from(LAYER_NORM_EPS);
    row.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) / divisor) as f32);
    (deviation as f32, mean as f32)
}

/// Every value must be finite; the error says where the first one is that is not.
pub(crate) fn check_finite(name: &'static str, flat: &[f32], width: usize) -> Result<()> {
    match flat.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::NotFinite { name, value: flat[at], row: at / width, column: at % width }),
        None => Ok(()),
    }
}
