//! From measures to reasons: where each limit is applied.

use super::measure::Measurements;
use super::reason::{Check, Finding, Severity};
use super::statics::Place;
use super::{PreflightOptions, PreflightSae};
use sae_core::Normalization;

pub(super) fn judge(
    subject: &PreflightSae<'_>,
    place: &Place,
    measured: &Measurements,
    options: &PreflightOptions,
    out: &mut Vec<Finding>,
) {
    out.extend(centering(place, measured, options));
    out.extend(norm(subject, measured, options));
    out.extend(l0(subject, measured, options));
    out.extend(variance(measured, options));
    out.extend(scale(measured, options));
    out.extend(bias(measured, options));
    out.extend(frequencies(measured, options));
    out.extend(text(measured, options));
    if measured.dead > 0.0 {
        let found = format!("{:.1} % of the features never fire on {} tokens", 100.0 * measured.dead, measured.tokens);
        let change = "Nothing to change: rare features need more text.";
        out.push(Finding::new(Severity::Note, Check::Dead, "few on so small a sample", found, change));
    }
}

/// A residual stream is centered to rounding, or not at all.
fn centering(place: &Place, measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    if !place.centrable {
        return None;
    }
    let limit = options.thresholds.centered;
    let centered = measured.mean_share <= limit;
    let of_b_dec = measured.b_dec_mean_share.filter(|_| !place.is_transcoder());
    let found = format!("a mean over d_model of {:.1e} of the norm", measured.mean_share);
    match (place.centered, centered) {
        (Some(true), false) => {
            let change = "Load the model with `ProcessingSteps::center_writing_weights` (TransformerLens' default).";
            let expected = format!("at most {limit}: a centered residual stream");
            Some(Finding::new(Severity::Fail, Check::Centering, expected, found, change))
        }
        // SAELens writes `false`, its default, also for SAEs of models that were handed to it processed: what b_dec learned tells them apart.
        (Some(false), true) if of_b_dec.is_some_and(|share| share > 10.0 * limit) => {
            let change = "Load the model without `ProcessingSteps::center_writing_weights`.";
            let share = of_b_dec.unwrap_or_default();
            let expected = format!("an un-centered stream: b_dec's own mean is {share:.1e} of its norm");
            Some(Finding::new(Severity::Fail, Check::Centering, expected, found, change))
        }
        _ => None,
    }
}

/// An SAE whose norm factor is not folded reads vectors of mean norm `sqrt(d_in)`, and refuses to encode before the factor is known.
fn norm(subject: &PreflightSae<'_>, measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let (ratio, limit) = (measured.norm_over_sqrt_d, options.thresholds.norm_factor);
    let expects = subject.normalization() == Normalization::ExpectedAverageOnlyIn;
    expects.then(|| {
        let factor = if ratio > 0.0 { 1.0 / ratio } else { 1.0 };
        if within(ratio, limit) {
            let change = "Give the factor, 1 for activations as they are: `sae.fold_norm_factor(1.0)`.";
            let expected = "a norm factor that is folded: without one the SAE does not encode";
            return Finding::new(Severity::Fail, Check::Norm, expected, format!("{ratio:.2} of sqrt(d_in)"), change);
        }
        let change = format!("Fold the release's norm factor, about {factor:.4}: `sae.fold_norm_factor({factor:.4})`.");
        let expected = "a mean norm of sqrt(d_in): `expected_average_only_in` is not folded";
        let found = format!("{ratio:.2} of that");
        Finding::new(Severity::Fail, Check::Norm, expected, found, change)
    })
}

fn l0(subject: &PreflightSae<'_>, measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let (l0, t) = (measured.l0, &options.thresholds);
    let found = format!("{l0:.1} features fire on a token");
    let released = options.l0().map(|l0| (l0, "the release"));
    let known = released.or_else(|| subject.trained_l0().map(|l0| (l0, "the frequencies in training")));
    if let Some((expected, source)) = known.filter(|(expected, _)| *expected > 0.0) {
        let ratio = l0 / expected;
        let level = match ratio {
            r if !within(r, t.l0_fails) => Severity::Fail,
            r if !within(r, t.l0_warns) => Severity::Warn,
            _ => return None,
        };
        let change = if ratio > 1.0 {
            "Check the activation function (a TopK loaded as ReLU, thresholds lost), the norm factor and the hook point."
        } else {
            "Check the hook point, the norm factor, the model and its processing."
        };
        return Some(Finding::new(level, Check::L0, format!("about {expected:.1} ({source})"), found, change));
    }
    let limit = t.density * subject.coder().d_sae() as f64;
    if l0 > limit {
        let change =
            "Check the activation function: TopK or thresholds may be lost (`activation_fn`, `k`, `threshold`).";
        return Some(Finding::new(
            Severity::Fail,
            Check::L0,
            format!("a sparse code, below {limit:.0}"),
            found,
            change,
        ));
    }
    let nothing = l0 < 0.01 && subject.k().is_none();
    nothing.then(|| {
        let change = "Check the hook point, the norm factor, the model and its processing: the SAE is silent here.";
        Finding::new(Severity::Fail, Check::L0, "features that fire", found, change)
    })
}

fn variance(measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let (is, t) = (measured.variance_explained, &options.thresholds);
    let (level, expected) = match options.variance_explained().filter(|expected| *expected > 0.0) {
        Some(expected) => {
            let level = match 1.0 - is / expected {
                missing if missing > t.variance_fails => Severity::Fail,
                // Of an SAE that explains nearly all, a tenth of the variance is a lot.
                _ if expected - is > 0.1 && (1.0 - is) > t.unexplained_fails * (1.0 - expected) => Severity::Fail,
                missing if missing > t.variance_warns => Severity::Warn,
                _ => return None,
            };
            (level, format!("about {expected:.3} (the release)"))
        }
        None if is < t.variance_least => (Severity::Fail, format!("at least {}", t.variance_least)),
        None => return None,
    };
    let change = if level == Severity::Warn {
        "Text far from the training text explains it; else check the processing, the hook point and the norm factor."
    } else {
        "Check model, hook point, processing, normalization and text: this is not what the SAE was trained on."
    };
    Some(Finding::new(level, Check::VarianceExplained, expected, format!("{is:.3}"), change))
}

fn scale(measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let limit = options.thresholds.scale;
    (!within(measured.best_scale, limit)).then(|| {
        let found = format!("the reconstruction is nearest when it is multiplied by {:.2}", measured.best_scale);
        let change = "Check the norm factor: it is lost, or was applied twice, or W_dec is of another scale.";
        Finding::new(Severity::Warn, Check::Scale, format!("1, within a factor of {limit}"), found, change)
    })
}

fn bias(measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let limit = options.thresholds.mean_cosine;
    measured.b_dec_cosine.filter(|cosine| *cosine < limit).map(|cosine| {
        let found = format!("a cosine of {cosine:.2} between b_dec and the mean activation");
        let change = "Check the model, the hook point and the sign of b_dec.";
        Finding::new(Severity::Warn, Check::MeanActivation, format!("at least {limit}"), found, change)
    })
}

fn frequencies(measured: &Measurements, options: &PreflightOptions) -> Vec<Finding> {
    let t = &options.thresholds;
    let change = "Check the model and the hook point: the SAE was trained on other activations of the same width.";
    let silent = measured.dead_but_frequent.filter(|silent| *silent > t.dead_but_frequent).map(|silent| {
        let found = format!("{:.0} % of the features frequent in training never fire", 100.0 * silent);
        Finding::new(
            Severity::Fail,
            Check::Dead,
            format!("at most {:.0} %", 100.0 * t.dead_but_frequent),
            found,
            change,
        )
    });
    let unlike = measured.frequency_correlation.filter(|rank| *rank < t.frequencies_warn).map(|rank| {
        let level = if rank < t.frequencies_fail { Severity::Fail } else { Severity::Warn };
        let found = format!("a rank correlation of {rank:.2} with the frequencies in training");
        Finding::new(level, Check::Frequencies, format!("at least {}", t.frequencies_warn), found, change)
    });
    silent.into_iter().chain(unlike).collect()
}

fn text(measured: &Measurements, options: &PreflightOptions) -> Option<Finding> {
    let (plain, shuffled) = (measured.loss?, measured.loss_shuffled?);
    let (gain, limit) = (shuffled - plain, options.thresholds.text);
    (gain < limit).then(|| {
        let found = format!("a loss of {plain:.2} nats, {shuffled:.2} when shuffled");
        let change = "Tokenize the text with this model's own tokenizer, and check that its weights are trained ones.";
        let expected = format!("at least {limit} nats less than on shuffled tokens");
        Finding::new(Severity::Fail, Check::Text, expected, found, change)
    })
}

/// A model under another name is no cause for worry where all that was measured is as it should be and there was much to hold it against.
pub(super) fn downgrade_name_mismatch(measured: &Measurements, options: &PreflightOptions, reasons: &mut [Finding]) {
    let clean = reasons.iter().all(|r| r.level <= Severity::Note || r.check == Check::ModelName);
    let held = options.variance_explained().is_some() || measured.frequency_correlation.is_some();
    if clean && held {
        for reason in reasons.iter_mut().filter(|r| r.check == Check::ModelName) {
            reason.level = Severity::Note;
            reason.change = "Nothing to change: what was measured is as the SAE expects.".into();
        }
    }
}

/// `1/factor <= ratio <= factor`.
pub(super) fn within(ratio: f64, factor: f64) -> bool {
    ratio * factor >= 1.0 && ratio <= factor
}
