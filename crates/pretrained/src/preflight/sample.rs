//! The rows that are measured: chosen evenly from the tokens, run once, and left without what is not representative.

use super::statics::{Place, kept_positions};
use super::{PreflightOptions, Result, stats};
use activation_store::{Exclusion, ExclusionCounts, SpecialTokenPolicy, TokenPos};
use candle_core::{DType, Device, Tensor};
use model_hooks::{Capture, HookPoint, HookRows, Interest, LanguageModel, PaddingSide, Tap, TapContext, TokenBatch};

/// Tokens in one forward pass, where rows are not longer.
const TOKENS_AT_ONCE: usize = 1024;
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
    pub excluded: ExclusionCounts,
    keep: Vec<bool>,
}

impl Sample {
    pub(super) fn y(&self) -> &[f32] {
        if self.y.is_empty() { &self.x } else { &self.y }
    }

    /// Runs the rows of the first `at_most` kept tokens once more and calls `each` with the values of every `step`th of these tokens at one point after
    /// another, so that one point is held at a time.
    pub(super) fn visit(
        &self,
        model: &LanguageModel,
        points: &[HookPoint],
        (at_most, step): (usize, usize),
        mut each: impl FnMut(HookPoint, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let Some(&last) = points.iter().max() else { return Ok(()) };
        // Columns of kept tokens, row by row.
        let (mut kept, mut rows, mut places) = (self.keep.iter(), Vec::new(), Vec::new());
        for row in &self.rows {
            if places.len() >= at_most {
                break;
            }
            let columns = (0..row.len()).zip(kept.by_ref()).filter(|(_, keep)| **keep).map(|(column, _)| column);
            let columns: Vec<usize> = columns.collect();
            let wanted = &columns[..columns.len().min(at_most - places.len())];
            // Later tokens change nothing before them.
            let Some(end) = wanted.last().map(|column| column + 1) else { continue };
            places.extend(wanted.iter().map(|column| (rows.len(), *column)));
            rows.push(row[..end].to_vec());
        }
        if places.is_empty() {
            return Ok(());
        }
        let batch = TokenBatch::padded(&rows, 0, PaddingSide::Right)?;
        let index = places.iter().step_by(step.max(1)).map(|(row, column)| (row * batch.pos() + column) as u32);
        let index = Tensor::from_iter(index, &Device::Cpu)?;
        let mut visit = Visit { points, index, each: &mut each, stopped: Ok(()) };
        model.hooked().forward_until(&batch, last, &mut visit)?;
        visit.stopped
    }
}

/// Hands on some tokens' values at some points.
struct Visit<'a> {
    points: &'a [HookPoint],
    /// The tokens, as lines of a batch.
    index: Tensor,
    each: &'a mut dyn FnMut(HookPoint, Vec<f32>) -> Result<()>,
    /// Error of the visitor, kept here because a forward pass cannot return it.
    stopped: Result<()>,
}

impl Tap for Visit<'_> {
    fn points(&self, _: &[HookPoint]) -> model_hooks::Result<Vec<(HookPoint, Interest)>> {
        Ok(self.points.iter().map(|point| (*point, Interest::Watch)).collect())
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> model_hooks::Result<()> {
        if self.stopped.is_ok() {
            let lines = x.flatten_from(2)?.flatten(0, 1)?.index_select(&self.index, 0)?;
            let values = lines.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            self.stopped = (self.each)(cx.at, values);
        }
        Ok(())
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> model_hooks::Result<Tensor> {
        Ok(x)
    }
}

/// Rows, evenly spread, of about as many tokens as the options say: whole ones, unless one alone has more.
fn choose(tokens: &TokenBatch, at_most: usize) -> Vec<Vec<u32>> {
    let at_most = at_most.max(1);
    let all: Vec<Vec<u32>> = tokens
        .rows()
        .enumerate()
        .map(|(row, ids)| ids[tokens.token_range(row)].iter().take(at_most).copied().collect::<Vec<u32>>())
        .filter(|ids| !ids.is_empty())
        .collect();
    let wanted = (at_most / tokens.pos().max(1)).clamp(1, all.len().max(1));
    (0..wanted.min(all.len())).map(|i| all[i * all.len() / wanted].clone()).collect()
}

pub(super) fn take(
    model: &LanguageModel,
    place: &Place,
    tokens: &TokenBatch,
    widths: (usize, usize),
    options: &PreflightOptions,
) -> Result<Sample> {
    // Half of the memory: each value once for all tokens of a row and once for those that are kept.
    let width = widths.0 + if place.is_transcoder() { widths.1 } else { 0 };
    let fit = options.memory_bytes / 2 / (2 * size_of::<f32>() * width).max(1) as u64;
    let rows = choose(tokens, options.tokens.min(usize::try_from(fit).unwrap_or(usize::MAX)));
    let points = if place.is_transcoder() { vec![place.read, place.target] } else { vec![place.read] };
    let mut values = run(model, &rows, &points)?;
    let y = if place.is_transcoder() { values.pop().unwrap_or_default() } else { Vec::new() };
    let x = values.pop().unwrap_or_default();
    let (keep_these, excluded) = kept(model, place, &rows, &x, options)?;
    let width = |values: &[f32]| values.len() / keep_these.len().max(1);
    let (of_x, of_y) = (width(&x), width(&y));
    let x = keep(x, of_x, &keep_these);
    let y = keep(y, of_y, &keep_these);
    Ok(Sample { rows, x, y, excluded, keep: keep_these })
}

/// Values of all tokens at each point, `[tokens, width]`.
fn run(model: &LanguageModel, rows: &[Vec<u32>], points: &[HookRows]) -> Result<Vec<Vec<f32>>> {
    let mut values = vec![Vec::new(); points.len()];
    let Some(last) = points.iter().map(HookRows::point).max() else { return Ok(values) };
    let tokens: usize = rows.iter().map(Vec::len).sum();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    for part in rows.chunks((TOKENS_AT_ONCE / longest).max(1)) {
        let batch = TokenBatch::padded(part, 0, PaddingSide::Right)?;
        let mut capture = Capture::new(points.iter().map(HookRows::point));
        model.hooked().forward_until(&batch, last, &mut capture)?;
        for (point, values) in points.iter().zip(&mut values) {
            let x = point.gather(capture.get(point.point())?)?.to_dtype(DType::F32)?;
            values.reserve_exact(if values.is_empty() { tokens * point.width() } else { 0 });
            for (row, ids) in part.iter().enumerate() {
                let of_row: Tensor = x.get(row)?.narrow(0, 0, ids.len())?;
                values.extend(of_row.flatten_all()?.to_vec1::<f32>()?);
            }
        }
    }
    Ok(values)
}

fn keep(mut values: Vec<f32>, width: usize, keep: &[bool]) -> Vec<f32> {
    let (mut value, width) = (0, width.max(1));
    values.retain(|_| {
        let of_token = value / width;
        value += 1;
        keep.get(of_token).copied().unwrap_or(false)
    });
    values.shrink_to_fit();
    values
}

/// Which tokens count, and how many do not for which reason.
fn kept(
    model: &LanguageModel,
    place: &Place,
    rows: &[Vec<u32>],
    x: &[f32],
    options: &PreflightOptions,
) -> Result<(Vec<bool>, ExclusionCounts)> {
    let filter = match model.tokenizer() {
        Some(_) => options.filter.clone(),
        None => options.filter.clone().with_special(SpecialTokenPolicy::Keep).with_ids(options.bos),
    };
    let filter = filter.resolve(model.tokenizer())?;
    let width = x.len() / rows.iter().map(Vec::len).sum::<usize>().max(1);
    let norms: Vec<f64> = x.chunks_exact(width.max(1)).map(stats::norm).collect();
    let mut excluded = ExclusionCounts::default();
    let mut keep = Vec::new();
    for (number, row) in (0..).zip(rows) {
        let positions = place.positions.map(|slice| kept_positions(slice, row.len()));
        for ((pos, column), &id) in (0..).zip(0..).zip(row) {
            let other = positions.as_ref().is_some_and(|kept| !kept[column]);
            let exclusion = match column == 0 && row.len() > 1 || other {
                true => Some(Exclusion::Position),
                false => filter.exclusion(TokenPos { row: number, pos }, id, false, || norms[keep.len()] as f32),
            };
            exclusion.into_iter().for_each(|exclusion| excluded.count(exclusion));
            keep.push(exclusion.is_none());
        }
    }
    let of_kept: Vec<f64> = norms.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(n, _)| *n).collect();
    let limit = OUTLIER * stats::median(&of_kept);
    for (norm, keep) in norms.iter().zip(&mut keep) {
        if *keep && *norm > limit {
            *keep = false;
            excluded.count(Exclusion::Norm);
        }
    }
    Ok((keep, excluded))
}
