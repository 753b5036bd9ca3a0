//! What would help: the SAE is tried on changed inputs, and on the model's other hook points, and what explains much more is named.

use super::measure::{Measurements, at_once};
use super::reason::{Check, Finding, Severity};
use super::sample::Sample;
use super::statics::{self, Place};
use super::{PreflightOptions, PreflightSae, Result, stats};
use model_hooks::{HookPoint, LanguageModel};
use sae_core::Normalization;

/// Tokens that the changes are judged by, at most.
const TRIED: usize = 512;
/// Tokens that all changes are tried on first.
const FEW: usize = 64;
/// The tokens of the first trial are spread evenly over this many, so that the model runs on these alone.
const FEW_AMONG: usize = 256;
/// So many of them, the best, are tried on all.
const BEST: usize = 4;
/// A code of up to so many times the features counts as equally sparse.
const SAME_L0: f64 = 1.05;
/// At another hook point up to so many times.
const LIKE_L0: f64 = 1.5;
/// Factors of the input that are tried beside those that the norm suggests.
const FACTORS: [f64; 6] = [0.1, 0.25, 0.5, 2.0, 4.0, 10.0];

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// The input times a factor.
    Scale(f64),
    LayerNorm,
    Rescale,
    Center,
    /// The input less `b_dec`.
    Shift,
    /// Another hook point.
    Point(HookPoint),
    /// Another head of the same hook point.
    Head(usize),
}

impl Change {
    /// Whether it is another place rather than another input.
    fn is_elsewhere(self) -> bool {
        matches!(self, Self::Point(_) | Self::Head(_))
    }

    /// What it is, and what to do about it.
    fn describe(self) -> (String, String) {
        let (what, change): (String, String) = match self {
            Self::Scale(factor) => (
                format!("the input times {factor:.3}"),
                format!(
                    "Check the norm factor (lost, or applied twice): `sae.fold_norm_factor({factor:.4})` would come near."
                ),
            ),
            Self::LayerNorm => (
                "layer-normed input".into(),
                "Set `normalize_activations` to `layer_norm`: the SAE reads normalized vectors.".into(),
            ),
            Self::Rescale => (
                "every vector at norm sqrt(d_in)".into(),
                "Set `normalize_activations` to `constant_norm_rescale`: the SAE reads vectors of norm sqrt(d_in)."
                    .into(),
            ),
            Self::Center => (
                "a centered residual stream".into(),
                "Load the model with `ProcessingSteps::center_writing_weights`.".into(),
            ),
            Self::Shift => (
                "b_dec subtracted from the input".into(),
                "Set `apply_b_dec_to_input`: the SAE reads the input less b_dec.".into(),
            ),
            Self::Point(point) => (
                format!("the activations of `{point}`"),
                format!("Read the SAE at `{point}`, if that is where it was trained, and correct its metadata."),
            ),
            Self::Head(head) => (
                format!("head {head}"),
                format!("Set `hook_head_index` to {head}, if that is the head that it was trained on."),
            ),
        };
        (what, change)
    }
}

/// What came of a trial.
#[derive(Clone, Copy)]
struct TrialResult {
    variance: f64,
    l0: f64,
}

struct Trial<'a> {
    subject: &'a PreflightSae<'a>,
    x: &'a [f32],
    d_in: usize,
    /// Tokens that are encoded at once.
    at_once: usize,
}

impl Trial<'_> {
    /// What comes of it when each row goes in as `change` makes it, and comes out as `back` makes it of the row's own numbers.
    fn explained<P>(&self, change: impl Fn(&mut [f32]) -> P, back: impl Fn(&P, &mut [f32])) -> Result<TrialResult> {
        let mut explained = stats::Variance::around(stats::mean_row(self.x, self.d_in));
        let (mut active, mut tokens) = (0, 0);
        for part in self.x.chunks(self.at_once * self.d_in) {
            let mut changed = part.to_vec();
            let kept: Vec<P> = changed.chunks_exact_mut(self.d_in).map(&change).collect();
            let (features, mut y_hat) = self.subject.run(&changed)?;
            y_hat.chunks_exact_mut(self.d_in).zip(&kept).for_each(|(row, kept)| back(kept, row));
            explained.add(part, &y_hat);
            active += features.nnz();
            tokens += kept.len();
        }
        let variance = explained.explained();
        let variance = if variance.is_finite() { variance } else { f64::NEG_INFINITY };
        Ok(TrialResult { variance, l0: active as f64 / tokens.max(1) as f64 })
    }

    fn scaled(&self, factor: f64) -> Result<TrialResult> {
        let by = |row: &mut [f32], c: f64| row.iter_mut().for_each(|x| *x = (f64::from(*x) * c) as f32);
        self.explained(|row| by(row, factor), |(), row| by(row, 1.0 / factor))
    }

    /// Against the centered input: centering is a change of the model, not of the SAE.
    fn centered(&self) -> Result<TrialResult> {
        let mut x = self.x.to_vec();
        x.chunks_exact_mut(self.d_in).for_each(|row| _ = center(row));
        Trial { subject: self.subject, x: &x, d_in: self.d_in, at_once: self.at_once }.explained(|_| (), |(), _| ())
    }

    fn standardized(&self) -> Result<TrialResult> {
        let change = |row: &mut [f32]| {
            let mean = center(row);
            let deviation = (stats::dot(row, row) / (row.len() as f64 - 1.0).max(1.0)).sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / deviation) as f32);
            (mean, deviation)
        };
        let back = |&(mean, deviation): &(f64, f64), row: &mut [f32]| {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) * deviation + mean) as f32);
        };
        self.explained(change, back)
    }

    fn rescaled(&self) -> Result<TrialResult> {
        let change = |row: &mut [f32]| {
            let norm = stats::norm(row).max(1e-12) / (row.len() as f64).sqrt();
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            norm
        };
        self.explained(change, |norm, row| row.iter_mut().for_each(|x| *x = (f64::from(*x) * norm) as f32))
    }

    fn shifted(&self, b_dec: &[f32]) -> Result<TrialResult> {
        self.explained(|row| row.iter_mut().zip(b_dec).for_each(|(x, b)| *x -= b), |(), _| ())
    }
}

fn center(row: &mut [f32]) -> f64 {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
    mean
}

/// Tries them all, first on a few tokens; the best on more is a reason if it explains enough more.
pub(super) fn look(
    model: &LanguageModel,
    subject: &PreflightSae<'_>,
    place: &Place,
    sample: &Sample,
    measured: &Measurements,
    options: &PreflightOptions,
) -> Result<Option<Finding>> {
    let (d_in, t) = (subject.coder().d_in(), &options.thresholds);
    let tokens = sample.x.len() / d_in;
    let of_sample = |(at_most, step): (usize, usize)| -> Vec<f32> {
        sample.x.chunks_exact(d_in).take(at_most).step_by(step).flat_map(|row| row.iter().copied()).collect()
    };
    let all = (TRIED, 1);
    let few = match tokens.min(FEW_AMONG) / FEW {
        0 | 1 => all,
        step => (FEW_AMONG, step),
    };
    let at_once = at_once(subject, options.memory_bytes);
    let look = Look { model, subject, place, sample, at_once };
    let mut changes = inputs(subject, place, measured);
    let work = (tokens.min(few.0) / few.1) as u64 * d_in as u64 * subject.coder().d_sae() as u64;
    let most = usize::try_from(options.remedy_work / work.max(1)).unwrap_or(usize::MAX).clamp(8, PLACES_AT_MOST);
    changes.extend(look.points(most).into_iter().map(Change::Point));
    changes.extend(look.heads(most).into_iter().map(Change::Head));
    let x = of_sample(few);
    let now = Trial { subject, x: &x, d_in, at_once }.explained(|_| (), |(), _| ())?;
    // More features explain more, so that a small gain counts only where it is not bought with them.
    let gain = |now: TrialResult, change: Change, outcome: TrialResult| {
        let gain = outcome.variance - now.variance.max(0.0);
        let bought = outcome.l0 > now.l0 * SAME_L0;
        let elsewhere = change.is_elsewhere() && gain > t.place_warns && outcome.l0 < now.l0 * LIKE_L0;
        if gain > t.remedy_fails || !bought || elsewhere { gain } else { 0.0 }
    };
    let mut tried = look.try_all(&changes, &x, few)?;
    tried.sort_by(|a, b| gain(now, b.0, b.1).total_cmp(&gain(now, a.0, a.1)));
    tried.truncate(BEST);
    let (now, tried) = if few == all {
        (now, tried)
    } else {
        let (x, best) = (of_sample(all), tried.into_iter().map(|(change, _)| change).collect::<Vec<_>>());
        (Trial { subject, x: &x, d_in, at_once }.explained(|_| (), |(), _| ())?, look.try_all(&best, &x, all)?)
    };
    let best = tried.into_iter().max_by(|a, b| gain(now, a.0, a.1).total_cmp(&gain(now, b.0, b.1)));
    let Some((change, outcome)) = best else { return Ok(None) };
    let level = match gain(now, change, outcome) {
        gain if gain > t.remedy_fails => Severity::Fail,
        gain if gain > t.remedy_warns => Severity::Warn,
        _ => return Ok(None),
    };
    let (what, change) = change.describe();
    let found = format!(
        "{what} would have {:.3} of its variance explained by {:.1} features a token, and this has {:.3} by {:.1}",
        outcome.variance, outcome.l0, now.variance, now.l0
    );
    Ok(Some(Finding::new(level, Check::Remedy, "nothing that does much better", found, change)))
}

/// The changes of the input that make sense.
fn inputs(subject: &PreflightSae<'_>, place: &Place, measured: &Measurements) -> Vec<Change> {
    let mut changes = Vec::new();
    if !subject.normalization().is_per_token() {
        let suggested = measured.norm_over_sqrt_d;
        let factors = FACTORS.into_iter().chain([suggested, 1.0 / suggested]);
        changes.extend(factors.filter(|f| f.is_finite() && *f > 0.0).map(Change::Scale));
        changes.extend([Change::LayerNorm, Change::Rescale]);
    }
    if place.centrable && subject.normalization() != Normalization::LayerNorm {
        changes.push(Change::Center);
    }
    if subject.sae().is_some_and(|sae| sae.input_shift().is_none()) {
        changes.push(Change::Shift);
    }
    changes
}

/// Places that are tried in place of the SAE's own: those of the residual stream and what is written to it.
const PLACES_AT_MOST: usize = 128;

/// What is looked at.
struct Look<'a> {
    model: &'a LanguageModel,
    subject: &'a PreflightSae<'a>,
    place: &'a Place,
    sample: &'a Sample,
    at_once: usize,
}

impl Look<'_> {
    /// The other hook points, the nearest in the order of execution first.
    fn points(&self, most: usize) -> Vec<HookPoint> {
        let read = self.place.read.point();
        if !statics::is_written(read) {
            return Vec::new();
        }
        let all = self.model.hooked().hook_points();
        let own = all.iter().position(|point| *point == read).unwrap_or(0);
        let others = |(_, p): &(usize, &HookPoint)| {
            **p != read
                && p.head_axis().is_none()
                && statics::is_written(**p)
                && !p.site().is_some_and(|s| s.is_input_copy())
        };
        let mut points: Vec<(usize, HookPoint)> =
            all.iter().enumerate().filter(others).map(|(i, point)| (i.abs_diff(own), *point)).collect();
        points.sort_by_key(|(distance, _)| *distance);
        points.into_iter().take(most).map(|(_, point)| point).collect()
    }

    /// The other heads of the point, of an SAE on one.
    fn heads(&self, most: usize) -> Vec<usize> {
        let Some(own) = self.place.read.head() else { return Vec::new() };
        let shape = self.model.shape();
        let heads = if self.place.read.point().axes().contains(&"kv_head") { shape.n_kv_heads } else { shape.n_heads };
        let mut heads: Vec<usize> = (0..heads).filter(|head| *head != own).collect();
        heads.sort_by_key(|head| head.abs_diff(own));
        heads.truncate(most);
        heads
    }

    /// Tries each change on every `step`th of the first `at_most` tokens (`tokens` is this pair); `x` holds their activations at the SAE's own place. The places
    /// are tried one after the other, and only the outcome of each is stored.
    fn try_all(&self, changes: &[Change], x: &[f32], tokens: (usize, usize)) -> Result<Vec<(Change, TrialResult)>> {
        let (subject, d_in, at_once) = (self.subject, self.subject.coder().d_in(), self.at_once);
        let own = Trial { subject, x, d_in, at_once };
        let mut found = Vec::with_capacity(changes.len());
        for &change in changes {
            let outcome = match change {
                Change::Scale(factor) => own.scaled(factor)?,
                Change::LayerNorm => own.standardized()?,
                Change::Rescale => own.rescaled()?,
                Change::Center => own.centered()?,
                Change::Shift => match subject.sae() {
                    Some(sae) => own.shifted(sae.b_dec())?,
                    None => continue,
                },
                Change::Point(_) | Change::Head(_) => continue,
            };
            found.push((change, outcome));
        }
        let points: Vec<HookPoint> =
            changes.iter().filter_map(|change| if let Change::Point(p) = change { Some(*p) } else { None }).collect();
        self.sample.visit(self.model, &points, tokens, |point, x| {
            let outcome = Trial { subject, x: &x, d_in, at_once }.explained(|_| (), |(), _| ())?;
            found.push((Change::Point(point), outcome));
            Ok(())
        })?;
        let heads: Vec<usize> =
            changes.iter().filter_map(|change| if let Change::Head(h) = change { Some(*h) } else { None }).collect();
        let points = if heads.is_empty() { Vec::new() } else { vec![self.place.read.point()] };
        self.sample.visit(self.model, &points, tokens, |_, all| {
            let lines = x.len() / d_in;
            for &head in &heads {
                let rows = all
                    .chunks_exact((all.len() / lines.max(1)).max(1))
                    .filter_map(|row| row.get(head * d_in..(head + 1) * d_in));
                let x: Vec<f32> = rows.flatten().copied().collect();
                found
                    .push((Change::Head(head), Trial { subject, x: &x, d_in, at_once }.explained(|_| (), |(), _| ())?));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
