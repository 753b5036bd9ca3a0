//! What is measured on the sample.

use super::reason::{Check, Finding, Severity};
use super::sample::Sample;
use super::{PreflightOptions, PreflightSae, Result, loss, stats};
use activation_store::ExclusionCounts;
use model_hooks::LanguageModel;
use sae_core::{Normalization, SparseFeatures};
use serde::Serialize;

/// What an SAE made of a model's activations on the sample. `x` is what goes in, `y` what the reconstruction `y_hat` is held against: `x`
/// itself, of a transcoder the values that it is to write.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Measurements {
    /// Tokens that count.
    pub tokens: usize,
    /// Tokens of the sample that do not, by reason: `position` has the first tokens of rows and those outside the SAE's positions, `norm` those of
    /// more than ten times the median norm.
    pub excluded: ExclusionCounts,
    /// Mean of `|x|`.
    pub norm: f64,
    /// Mean of `|x|`, over `sqrt(d_in)`.
    pub norm_over_sqrt_d: f64,
    /// Median of `|mean over d(x)| sqrt(d) / |x|`: 0 for a centered residual stream.
    pub mean_share: f64,
    /// The same of `b_dec`; `None` where it is zero.
    pub b_dec_mean_share: Option<f64>,
    /// Features that fire on a token.
    pub l0: f64,
    /// `1 - sum |y - y_hat|^2 / sum |y - mean y|^2`.
    pub variance_explained: f64,
    /// Mean of `cos(y, y_hat)`.
    pub cosine: f64,
    /// Mean of `|y_hat| / |y|`.
    pub norm_ratio: f64,
    /// The factor that brings all of `y_hat` nearest to `y`: `sum y . y_hat / sum |y_hat|^2`.
    pub best_scale: f64,
    /// `cos(b_dec, mean y)`; `None` where either is (nearly) zero.
    pub b_dec_cosine: Option<f64>,
    /// Share of features that never fire on the sample.
    pub dead: f64,
    /// Of the features that should have fired at least ten times by their frequencies in training, the share that never did.
    pub dead_but_frequent: Option<f64>,
    /// Rank correlation of training frequencies and counts on the sample, over features that should have fired at least once.
    pub frequency_correlation: Option<f64>,
    /// The model's loss on some of the tokens, in nats.
    pub loss: Option<f64>,
    /// The same with the tokens of each row shuffled.
    pub loss_shuffled: Option<f64>,
}

/// Features that are to have fired so often by their training frequency are missed when they do not at all.
const FREQUENT: f64 = 10.0;
/// Fewer frequent features than this say nothing.
const ENOUGH_FEATURES: usize = 20;

/// The measures, or a reason why there are none.
pub(super) fn measure(
    model: &LanguageModel,
    subject: &PreflightSae<'_>,
    sample: &Sample,
    options: &PreflightOptions,
) -> Result<Result<Measurements, Finding>> {
    let (d_in, d_out) = (subject.coder().d_in(), subject.coder().d_out());
    let tokens = sample.x.len() / d_in;
    let not_finite = |what: &str| {
        let change = "Look at the weights of the model and the SAE: one of them is broken, or overflows.";
        Finding::new(Severity::Fail, Check::Finite, "finite values", format!("{what} that are not"), change)
    };
    if tokens == 0 {
        let change = "Give more tokens: the sample has none but first and special ones.";
        return Ok(Err(Finding::new(Severity::Fail, Check::Positions, "tokens to measure on", "none", change)));
    }
    if sample.x.iter().chain(sample.y()).any(|x| !x.is_finite()) {
        return Ok(Err(not_finite("activations")));
    }
    let norms: Vec<f64> = sample.x.chunks_exact(d_in).map(stats::norm).collect();
    let norm = norms.iter().sum::<f64>() / tokens as f64;
    let shares: Vec<f64> = sample.x.chunks_exact(d_in).map(stats::mean_share).collect();
    let mut out = Measurements {
        tokens,
        excluded: sample.excluded,
        norm,
        norm_over_sqrt_d: norm / (d_in as f64).sqrt(),
        mean_share: stats::median(&shares),
        ..Measurements::default()
    };
    let mut sums = Sums::new(sample.y(), d_out, subject.coder().d_sae());
    let at_once = at_once(subject, options.memory_bytes);
    for (x, y) in sample.x.chunks(at_once * d_in).zip(sample.y().chunks(at_once * d_out)) {
        let (features, y_hat) = subject.run(x)?;
        if features.value().iter().chain(&y_hat).any(|x| !x.is_finite()) {
            return Ok(Err(not_finite("codes or reconstructions")));
        }
        sums.add(&features, y, &y_hat);
    }
    sums.finish(&mut out);
    bias(&mut out, subject, sample.y(), d_out);
    frequencies(&mut out, subject, &sums.counts);
    if options.loss
        && let Some((plain, shuffled)) = loss::losses(model, &sample.rows, options.thresholds.text)?
    {
        (out.loss, out.loss_shuffled) = (Some(plain), Some(shuffled));
    }
    Ok(Ok(out))
}

/// Tokens that are encoded and decoded at once: codes (8 bytes an active feature; of a wrong pairing all may be), input and reconstruction in a quarter of the memory.
pub(super) fn at_once(subject: &PreflightSae<'_>, memory_bytes: u64) -> usize {
    let coder = subject.coder();
    let each = 8 * coder.d_sae() as u64 + 8 * (coder.d_in() + coder.d_out()) as u64;
    usize::try_from(memory_bytes / 4 / each.max(1)).unwrap_or(usize::MAX).clamp(1, MOST_AT_ONCE)
}

/// Larger parts are no faster.
const MOST_AT_ONCE: usize = 1 << 16;

/// What is summed up over the tokens, part by part.
struct Sums {
    width: usize,
    variance: stats::Variance,
    ratio: f64,
    cosine: f64,
    dot: f64,
    squares: f64,
    /// How often each feature fires.
    counts: Vec<f64>,
}

impl Sums {
    fn new(y: &[f32], width: usize, d_sae: usize) -> Self {
        let variance = stats::Variance::around(stats::mean_row(y, width));
        Self { width, variance, ratio: 0.0, cosine: 0.0, dot: 0.0, squares: 0.0, counts: vec![0.0; d_sae] }
    }

    fn add(&mut self, features: &SparseFeatures, y: &[f32], y_hat: &[f32]) {
        self.variance.add(y, y_hat);
        for (y, y_hat) in y.chunks_exact(self.width).zip(y_hat.chunks_exact(self.width)) {
            let (of_y, of_y_hat) = (stats::norm(y), stats::norm(y_hat));
            self.ratio += if of_y > 0.0 { of_y_hat / of_y } else { 1.0 };
            self.cosine += stats::cosine(y, y_hat);
            self.dot += stats::dot(y, y_hat);
            self.squares += of_y_hat * of_y_hat;
        }
        for (&j, &value) in features.index().iter().zip(features.value()) {
            // A sparse code's features are below d_sae, which its constructor checks.
            self.counts[j as usize] += f64::from(u8::from(value != 0.0));
        }
    }

    fn finish(&self, out: &mut Measurements) {
        let tokens = out.tokens as f64;
        out.l0 = self.counts.iter().sum::<f64>() / tokens;
        out.variance_explained = self.variance.explained();
        (out.norm_ratio, out.cosine) = (self.ratio / tokens, self.cosine / tokens);
        out.best_scale = if self.squares > 0.0 { self.dot / self.squares } else { 0.0 };
    }
}

/// `b_dec` lies in the space of normalized vectors; where normalization is per token it is not held against anything.
fn bias(out: &mut Measurements, subject: &PreflightSae<'_>, y: &[f32], width: usize) {
    let Some(b_dec) = subject.b_dec().filter(|b| stats::norm(b) > 0.0) else { return };
    out.b_dec_mean_share = Some(stats::mean_share(&b_dec));
    if !matches!(subject.normalization(), Normalization::None | Normalization::ExpectedAverageOnlyIn) {
        return;
    }
    let mean = stats::mean_row(y, width);
    let typical = y.chunks_exact(width).map(stats::norm).sum::<f64>() / out.tokens as f64;
    // A mean of nothing but noise has no direction.
    if stats::norm(&mean) > 0.1 * typical {
        out.b_dec_cosine = Some(stats::cosine(&b_dec, &mean));
    }
}

fn frequencies(out: &mut Measurements, subject: &PreflightSae<'_>, counts: &[f64]) {
    let tokens = out.tokens;
    out.dead = counts.iter().filter(|n| **n == 0.0).count() as f64 / counts.len().max(1) as f64;
    let Some(sparsity) = subject.sparsity() else { return };
    let due: Vec<f64> = sparsity.iter().map(|log| 10f64.powf(f64::from(*log)) * tokens as f64).collect();
    let frequent: Vec<f64> = due.iter().zip(counts).filter(|(due, _)| **due >= FREQUENT).map(|(_, n)| *n).collect();
    if frequent.len() >= ENOUGH_FEATURES {
        let silent = frequent.iter().filter(|n| **n == 0.0).count();
        out.dead_but_frequent = Some(silent as f64 / frequent.len() as f64);
    }
    let (due, fired): (Vec<f64>, Vec<f64>) = due.iter().zip(counts).filter(|(due, _)| **due >= 1.0).unzip();
    if due.len() >= ENOUGH_FEATURES {
        out.frequency_correlation = Some(stats::rank_correlation(&due, &fired));
    }
}
