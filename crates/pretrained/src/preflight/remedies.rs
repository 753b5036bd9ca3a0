//! What would help: the SAE is tried on changed inputs, and on the model's other hook points, and what explains much more is named.

use super::measure::Measured;
use super::reason::{Check, Level, Reason};
use super::sample::Sample;
use super::statics::{self, Place};
use super::{PreflightOptions, Result, Subject, stats};
use model_hooks::{HookPoint, LanguageModel};
use sae_core::Normalisation;

/// Tokens that changes are tried on, at most.
const TRIED: usize = 512;
/// A code of up to so many times the features counts as equally sparse.
const SAME_L0: f64 = 1.05;
/// At another hook point up to so many times.
const LIKE_L0: f64 = 1.5;
/// Factors of the input that are tried beside those that the norm suggests.
const FACTORS: [f64; 6] = [0.1, 0.25, 0.5, 2.0, 4.0, 10.0];

/// What came of a trial.
#[derive(Clone, Copy)]
struct Outcome {
    variance: f64,
    l0: f64,
}

struct Trial<'a> {
    subject: &'a Subject<'a>,
    x: &'a [f32],
    d_in: usize,
}

impl Trial<'_> {
    /// What comes of it when each row goes in as `change` makes it, and comes out as `back` makes it of the row's own numbers.
    fn explained<P>(&self, change: impl Fn(&mut [f32]) -> P, back: impl Fn(&P, &mut [f32])) -> Result<Outcome> {
        let mut changed = self.x.to_vec();
        let kept: Vec<P> = changed.chunks_exact_mut(self.d_in).map(change).collect();
        let (features, mut y_hat) = self.subject.run(&changed)?;
        y_hat.chunks_exact_mut(self.d_in).zip(&kept).for_each(|(row, kept)| back(kept, row));
        let variance = stats::variance_explained(self.x, &y_hat, self.d_in);
        let variance = if variance.is_finite() { variance } else { f64::NEG_INFINITY };
        Ok(Outcome { variance, l0: features.nnz() as f64 / kept.len().max(1) as f64 })
    }

    fn scaled(&self, factor: f64) -> Result<Outcome> {
        let by = |row: &mut [f32], c: f64| row.iter_mut().for_each(|x| *x = (f64::from(*x) * c) as f32);
        self.explained(|row| by(row, factor), |(), row| by(row, 1.0 / factor))
    }

    /// Against the centred input: centring is a change of the model, not of the SAE.
    fn centred(&self) -> Result<Outcome> {
        let mut x = self.x.to_vec();
        x.chunks_exact_mut(self.d_in).for_each(|row| _ = centre(row));
        Trial { subject: self.subject, x: &x, d_in: self.d_in }.explained(|_| (), |(), _| ())
    }

    fn standardised(&self) -> Result<Outcome> {
        let change = |row: &mut [f32]| {
            let mean = centre(row);
            let deviation = (stats::dot(row, row) / (row.len() as f64 - 1.0).max(1.0)).sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / deviation) as f32);
            (mean, deviation)
        };
        let back = |&(mean, deviation): &(f64, f64), row: &mut [f32]| {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) * deviation + mean) as f32);
        };
        self.explained(change, back)
    }

    fn rescaled(&self) -> Result<Outcome> {
        let change = |row: &mut [f32]| {
            let norm = stats::norm(row).max(1e-12) / (row.len() as f64).sqrt();
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            norm
        };
        self.explained(change, |norm, row| row.iter_mut().for_each(|x| *x = (f64::from(*x) * norm) as f32))
    }

    fn shifted(&self, b_dec: &[f32]) -> Result<Outcome> {
        self.explained(|row| row.iter_mut().zip(b_dec).for_each(|(x, b)| *x -= b), |(), _| ())
    }
}

fn centre(row: &mut [f32]) -> f64 {
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
    mean
}

/// Tries them all; the best is a reason if it explains enough more.
pub(super) fn look(
    model: &LanguageModel,
    subject: &Subject<'_>,
    place: &Place,
    sample: &Sample,
    measured: &Measured,
    options: &PreflightOptions,
) -> Result<Option<Reason>> {
    let (d_in, t) = (subject.coder().d_in(), &options.thresholds);
    let x = &sample.x[..sample.x.len().min(TRIED * d_in)];
    let trial = Trial { subject, x, d_in };
    let now = trial.explained(|_| (), |(), _| ())?;
    let mut found = of_inputs(&trial, subject, place, measured)?;
    found.extend(of_places(model, subject, place, sample)?);
    found.extend(of_heads(model, subject, place, sample)?);
    // More features explain more, so that a small gain counts only where it is not bought with them.
    let gain = |found: &Found| {
        let gain = found.0.variance - now.variance.max(0.0);
        let bought = found.0.l0 > now.l0 * SAME_L0;
        let elsewhere = found.3 && gain > t.place_warns && found.0.l0 < now.l0 * LIKE_L0;
        if gain > t.remedy_fails || !bought || elsewhere { gain } else { 0.0 }
    };
    let Some(best) = found.into_iter().max_by(|a, b| gain(a).total_cmp(&gain(b))) else { return Ok(None) };
    let level = match gain(&best) {
        gain if gain > t.remedy_fails => Level::Fail,
        gain if gain > t.remedy_warns => Level::Warn,
        _ => return Ok(None),
    };
    let (outcome, what, change, _) = best;
    let found = format!(
        "{what} would have {:.3} of its variance explained by {:.1} features a token, and this has {:.3} by {:.1}",
        outcome.variance, outcome.l0, now.variance, now.l0
    );
    Ok(Some(Reason::new(level, Check::Remedy, "nothing that does much better", found, change)))
}

/// What came of it, what was tried, what to change, and whether it is another hook point.
type Found = (Outcome, String, String, bool);

fn of_inputs(trial: &Trial<'_>, subject: &Subject<'_>, place: &Place, measured: &Measured) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    if !subject.normalisation().is_per_token() {
        let suggested = measured.norm_over_sqrt_d;
        for factor in FACTORS.into_iter().chain([suggested, 1.0 / suggested]).filter(|f| f.is_finite() && *f > 0.0) {
            let change = format!(
                "Check the norm factor (lost, or applied twice): `sae.fold_norm_factor({factor:.4})` would come near."
            );
            found.push((trial.scaled(factor)?, format!("the input times {factor:.3}"), change, false));
        }
        let change = "Set `normalize_activations` to `layer_norm`: the SAE reads normalised vectors.";
        found.push((trial.standardised()?, "layer-normed input".into(), change.into(), false));
        let change =
            "Set `normalize_activations` to `constant_norm_rescale`: the SAE reads vectors of norm sqrt(d_in).";
        found.push((trial.rescaled()?, "every vector at norm sqrt(d_in)".into(), change.into(), false));
    }
    if place.centrable && subject.normalisation() != Normalisation::LayerNorm {
        let change = "Load the model with `ProcessingSteps::center_writing_weights`.";
        found.push((trial.centred()?, "a centred residual stream".into(), change.into(), false));
    }
    if let Some(sae) = subject.sae()
        && sae.input_shift().is_none()
    {
        let change = "Set `apply_b_dec_to_input`: the SAE reads the input less b_dec.";
        found.push((trial.shifted(sae.b_dec())?, "b_dec subtracted from the input".into(), change.into(), false));
    }
    Ok(found)
}

/// Places that are tried in place of the SAE's own: those of the residual stream and what is written to it.
const PLACES_AT_MOST: usize = 128;

fn of_places(model: &LanguageModel, subject: &Subject<'_>, place: &Place, sample: &Sample) -> Result<Vec<Found>> {
    if !statics::is_written(place.read.point()) {
        return Ok(Vec::new());
    }
    let others = |p: &&HookPoint| {
        **p != place.read.point()
            && p.head_axis().is_none()
            && statics::is_written(**p)
            && !p.site().is_some_and(|s| s.is_input_copy())
    };
    let points: Vec<HookPoint> =
        model.hooked().hook_points().iter().filter(others).copied().take(PLACES_AT_MOST).collect();
    let d_in = subject.coder().d_in();
    let mut found = Vec::new();
    for (point, values) in points.iter().zip(sample.at(model, &points)?) {
        let x = &values[..values.len().min(TRIED * d_in)];
        let explained = Trial { subject, x, d_in }.explained(|_| (), |(), _| ())?;
        let change = format!("Read the SAE at `{point}`, if that is where it was trained, and correct its metadata.");
        found.push((explained, format!("the activations of `{point}`"), change, true));
    }
    Ok(found)
}

/// The other heads of the point, of an SAE on one.
fn of_heads(model: &LanguageModel, subject: &Subject<'_>, place: &Place, sample: &Sample) -> Result<Vec<Found>> {
    let Some(own) = place.read.head() else { return Ok(Vec::new()) };
    let d_in = subject.coder().d_in();
    let values = sample.at(model, &[place.read.point()])?.swap_remove(0);
    let tokens = sample.x.len() / d_in;
    let width = values.len() / tokens.max(1);
    let mut found = Vec::new();
    for head in (0..width / d_in).filter(|head| *head != own).take(PLACES_AT_MOST) {
        let x: Vec<f32> =
            values.chunks_exact(width).take(TRIED).flat_map(|row| row[head * d_in..][..d_in].iter().copied()).collect();
        let explained = Trial { subject, x: &x, d_in }.explained(|_| (), |(), _| ())?;
        let change = format!("Set `hook_head_index` to {head}, if that is the head that it was trained on.");
        found.push((explained, format!("head {head}"), change, true));
    }
    Ok(found)
}
