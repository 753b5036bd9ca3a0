//! The rows that are measured: chosen evenly from the tokens, run once, and left without what is not representative.

use super::measure::LeftOut;
use super::statics::{Place, kept_positions};
use super::{PreflightOptions, Result, stats};
use candle_core::{DType, Tensor};
use model_hooks::{Capture, HookPoint, HookRows, LanguageModel, Side, TokenBatch};

/// Rows in one forward pass.
const ROWS_AT_ONCE: usize = 8;
/// A norm above this many medians is left out: the giant norms of first tokens and of a few others are 10 to 1000 times the median.
const OUTLIER: f64 = 10.0;

/// Activations of the kept tokens.
pub(super) struct Sample {
    /// The rows of tokens, whole, for other passes over the same.
    pub rows: Vec<Vec<u32>>,
    /// `[n, d_in]`.
    pub x: Vec<f32>,
    /// `[n, d_out]`: what the reconstruction is held against; empty where it is `x`.
    y: Vec<f32>,
    pub left_out: LeftOut,
    keep: Vec<bool>,
}

impl Sample {
    pub(super) fn y(&self) -> &[f32] {
        if self.y.is_empty() { &self.x } else { &self.y }
    }

    /// The values of the kept tokens at another point.
    pub(super) fn at(&self, model: &LanguageModel, points: &[HookPoint]) -> Result<Vec<Vec<f32>>> {
        let rows = points.iter().map(|point| HookRows::resolve(*point, model.shape()));
        let all = run(model, &self.rows, &rows.collect::<model_hooks::Result<Vec<_>>>()?)?;
        let tokens = self.keep.len();
        Ok(all.into_iter().map(|values| keep(&values, values.len() / tokens.max(1), &self.keep)).collect())
    }
}

/// Whole rows, evenly spread, of about as many tokens as the options say.
fn choose(tokens: &TokenBatch, at_most: usize) -> Vec<Vec<u32>> {
    let all: Vec<Vec<u32>> = tokens
        .rows()
        .enumerate()
        .map(|(row, ids)| ids[tokens.real(row)].to_vec())
        .filter(|ids| !ids.is_empty())
        .collect();
    let wanted = (at_most / tokens.pos().max(1)).clamp(1, all.len().max(1));
    (0..wanted.min(all.len())).map(|i| all[i * all.len() / wanted].clone()).collect()
}

pub(super) fn take(
    model: &LanguageModel,
    place: &Place,
    tokens: &TokenBatch,
    options: &PreflightOptions,
) -> Result<Sample> {
    let rows = choose(tokens, options.tokens);
    let points = if place.is_transcoder() { vec![place.read, place.target] } else { vec![place.read] };
    let mut values = run(model, &rows, &points)?;
    let y = if place.is_transcoder() { values.pop().unwrap_or_default() } else { Vec::new() };
    let x = values.pop().unwrap_or_default();
    let (keep_these, left_out) = kept(model, place, &rows, &x);
    let width = |values: &[f32]| values.len() / keep_these.len().max(1);
    let (x_kept, y_kept) = (keep(&x, width(&x), &keep_these), keep(&y, width(&y), &keep_these));
    Ok(Sample { rows, x: x_kept, y: y_kept, left_out, keep: keep_these })
}

/// Values of all tokens at each point, `[tokens, width]`.
fn run(model: &LanguageModel, rows: &[Vec<u32>], points: &[HookRows]) -> Result<Vec<Vec<f32>>> {
    let mut values = vec![Vec::new(); points.len()];
    let Some(last) = points.iter().map(HookRows::point).max() else { return Ok(values) };
    for part in rows.chunks(ROWS_AT_ONCE) {
        let batch = TokenBatch::padded(part, 0, Side::Right)?;
        let mut capture = Capture::of(points.iter().map(HookRows::point));
        model.hooked().forward_until(&batch, last, &mut capture)?;
        for (point, values) in points.iter().zip(&mut values) {
            let x = point.gather(capture.get(point.point())?)?.to_dtype(DType::F32)?;
            for (row, ids) in part.iter().enumerate() {
                let of_row: Tensor = x.get(row)?.narrow(0, 0, ids.len())?;
                values.extend(of_row.flatten_all()?.to_vec1::<f32>()?);
            }
        }
    }
    Ok(values)
}

fn keep(values: &[f32], width: usize, keep: &[bool]) -> Vec<f32> {
    let rows = values.chunks_exact(width.max(1)).zip(keep);
    rows.filter(|(_, keep)| **keep).flat_map(|(row, _)| row.iter().copied()).collect()
}

/// Which tokens count, and how many do not for which reason.
fn kept(model: &LanguageModel, place: &Place, rows: &[Vec<u32>], x: &[f32]) -> (Vec<bool>, LeftOut) {
    let special = model.tokenizer().map(|t| t.special_ids().clone()).unwrap_or_default();
    let mut left_out = LeftOut::default();
    let mut keep = Vec::new();
    for row in rows {
        let positions = place.positions.map(|slice| kept_positions(slice, row.len()));
        for (column, id) in row.iter().enumerate() {
            let counter = if column == 0 && row.len() > 1 {
                &mut left_out.first
            } else if special.contains(id) {
                &mut left_out.special
            } else if positions.as_ref().is_some_and(|kept| !kept[column]) {
                &mut left_out.positions
            } else {
                keep.push(true);
                continue;
            };
            *counter += 1;
            keep.push(false);
        }
    }
    let width = x.len() / keep.len().max(1);
    let norms: Vec<f64> = x.chunks_exact(width.max(1)).map(stats::norm).collect();
    let of_kept: Vec<f64> = norms.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(n, _)| *n).collect();
    let limit = OUTLIER * stats::median(&of_kept);
    for (norm, keep) in norms.iter().zip(&mut keep) {
        if *keep && *norm > limit {
            *keep = false;
            left_out.giant_norms += 1;
        }
    }
    (keep, left_out)
}
