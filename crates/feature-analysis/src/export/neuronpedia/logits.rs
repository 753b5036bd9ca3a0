//! Decoder rows, and what they add to every token's logit.

use super::NeuronpediaTarget;
use crate::{Error, Result};
use candle_core::Tensor;
use model_hooks::ResidualMap;

/// Columns of `W_U` in one product.
const COLUMNS: usize = 8192;
/// Logits that are held at once: 64 MiB.
const HELD: usize = 1 << 24;

/// A feature's decoder row and logits.
pub(super) struct Direction {
    /// The row's norm; 1 for a row of zeros.
    pub(super) norm: f32,
    /// The row of norm 1.
    pub(super) row: Vec<f32>,
    /// What that row adds to every logit: the row, through the weights between its hook point and the residual stream, times `W_U`.
    pub(super) logits: Vec<f32>,
}

/// How many features are asked for at once.
pub(super) fn at_once(target: &NeuronpediaTarget<'_>) -> usize {
    (HELD / target.model.shape().d_vocab.max(1)).max(1)
}

/// The directions of some features; `map` leads from decoder rows to the residual stream.
pub(super) fn directions(
    target: &NeuronpediaTarget<'_>,
    map: &ResidualMap,
    features: &[u32],
) -> Result<Vec<Direction>> {
    let rows: Vec<Vec<f32>> = target.coder.decoder_rows(features)?.to_vec2()?;
    let mut found: Vec<Direction> = rows
        .into_iter()
        .map(|row| {
            let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt() as f32;
            let norm = if norm > 0.0 { norm } else { 1.0 };
            Direction { norm, row: row.iter().map(|v| v / norm).collect(), logits: Vec::new() }
        })
        .collect();
    let units: Vec<f32> = found.iter().flat_map(|direction| direction.row.iter().copied()).collect();
    let units = Tensor::from_vec(units, (features.len(), map.width()), &candle_core::Device::Cpu)?;
    let units = map.apply(&units)?;
    let d_vocab = target.model.shape().d_vocab;
    for start in (0..d_vocab).step_by(COLUMNS) {
        let w_u = target.model.hooked().w_u_columns(start, COLUMNS.min(d_vocab - start))?;
        for (direction, part) in found.iter_mut().zip(units.matmul(&w_u)?.to_vec2::<f32>()?) {
            direction.logits.extend(part);
        }
    }
    let finite = |direction: &Direction| direction.logits.iter().all(|logit| logit.is_finite());
    match found.iter().position(|direction| !finite(direction)) {
        Some(i) => Err(Error::Option {
            option: "model",
            expected: "finite logits of every feature",
            found: format!("NaN or infinity for feature {}", features[i]),
        }),
        None => Ok(found),
    }
}
