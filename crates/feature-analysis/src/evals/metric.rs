//! The metrics: their names, their definitions, and how each is computed from sums.

use super::features::FeatureCounts;
use super::sums::{Sums, Term};

/// Whose definition a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// SAELens' `evals`, under the same group and key.
    SaeLens,
    /// SAEBench's core evaluation.
    SaeBench,
    /// dictionary_learning's `evaluate`, over all tokens at once.
    DictionaryLearning,
    /// sparsify's training loss, over all tokens at once.
    Sparsify,
    /// This project's.
    Own,
}

/// What a metric asks of an evaluation to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Sae,
    Zero,
    Mean,
}

/// How a metric is computed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Formula {
    /// From sums over tokens: such a metric has an interval.
    Sums(fn(&Sums) -> f64),
    /// From each batch's sums.
    Batches(fn(&[BatchSums]) -> f64),
    /// From the features' counts.
    Features(fn(&FeatureCounts) -> f64),
}

/// Sums of one batch of `batch_size_prompts` rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSums {
    pub(super) square_out: f64,
    pub(super) dot: f64,
}

/// A number that an evaluation gives.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    group: &'static str,
    key: &'static str,
    definition: &'static str,
    origin: Origin,
    pub(super) needs: Needs,
    pub(super) formula: Formula,
}

impl Metric {
    /// Its group in SAELens' JSON.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Its key, different from every other's.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What it is, as a formula: `x` the activation, `e = x - x_hat` the error, `E` the mean over counted tokens.
    #[must_use]
    pub fn definition(&self) -> &'static str {
        self.definition
    }

    /// Whose definition it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// Every metric, in the order of tables.
#[must_use]
pub fn metrics() -> &'static [Metric] {
    METRICS
}

const BEHAVIOR: &str = "model_behavior_preservation";
const PERFORMANCE: &str = "model_performance_preservation";
const QUALITY: &str = "reconstruction_quality";
const SHRINKAGE: &str = "shrinkage";
const SPARSITY: &str = "sparsity";

const fn saelens(
    group: &'static str,
    key: &'static str,
    needs: Needs,
    sums: fn(&Sums) -> f64,
    definition: &'static str,
) -> Metric {
    Metric { group, key, definition, origin: Origin::SaeLens, needs, formula: Formula::Sums(sums) }
}

const fn by(origin: Origin, metric: Metric) -> Metric {
    Metric { origin, ..metric }
}

const fn of_features(
    key: &'static str,
    origin: Origin,
    count: fn(&FeatureCounts) -> f64,
    definition: &'static str,
) -> Metric {
    Metric { group: SPARSITY, key, definition, origin, needs: Needs::Nothing, formula: Formula::Features(count) }
}

static METRICS: &[Metric] = &[
    saelens(BEHAVIOR, "kl_div_with_sae", Needs::Sae, |s| s.mean(Term::KlSae), "E KL(plain || with the SAE)"),
    saelens(
        BEHAVIOR,
        "kl_div_with_ablation",
        Needs::Zero,
        |s| s.mean(Term::KlZero),
        "E KL(plain || zeros at the hook)",
    ),
    saelens(BEHAVIOR, "kl_div_score", Needs::Zero, |s| kl_score(s, Term::KlZero), "(KL_zero - KL_sae) / KL_zero"),
    by(
        Origin::Own,
        saelens(
            BEHAVIOR,
            "kl_div_with_mean_ablation",
            Needs::Mean,
            |s| s.mean(Term::KlMean),
            "E KL(plain || mean at the hook)",
        ),
    ),
    by(
        Origin::Own,
        saelens(
            BEHAVIOR,
            "kl_div_score_mean_ablation",
            Needs::Mean,
            |s| kl_score(s, Term::KlMean),
            "(KL_mean - KL_sae) / KL_mean",
        ),
    ),
    saelens(PERFORMANCE, "ce_loss_without_sae", Needs::Sae, |s| s.loss(Term::LossPlain), "mean next-token loss, nats"),
    saelens(PERFORMANCE, "ce_loss_with_sae", Needs::Sae, |s| s.loss(Term::LossSae), "the same with the SAE"),
    saelens(
        PERFORMANCE,
        "ce_loss_with_ablation",
        Needs::Zero,
        |s| s.loss(Term::LossZero),
        "the same with zeros at the hook",
    ),
    saelens(
        PERFORMANCE,
        "ce_loss_score",
        Needs::Zero,
        |s| ce_score(s, Term::LossZero),
        "(CE_zero - CE_sae) / (CE_zero - CE_plain)",
    ),
    by(
        Origin::Own,
        saelens(
            PERFORMANCE,
            "ce_loss_with_mean_ablation",
            Needs::Mean,
            |s| s.loss(Term::LossMean),
            "the same with the mean at the hook",
        ),
    ),
    by(
        Origin::Own,
        saelens(
            PERFORMANCE,
            "ce_loss_score_mean_ablation",
            Needs::Mean,
            |s| ce_score(s, Term::LossMean),
            "(CE_mean - CE_sae) / (CE_mean - CE_plain)",
        ),
    ),
    by(
        Origin::Own,
        saelens(
            PERFORMANCE,
            "ce_loss_added",
            Needs::Sae,
            |s| s.loss(Term::LossSae) - s.loss(Term::LossPlain),
            "CE_sae - CE_plain",
        ),
    ),
    saelens(QUALITY, "explained_variance", Needs::Nothing, explained_variance, "1 - E|e|^2 / (E|x|^2 - |E x|^2)"),
    saelens(
        QUALITY,
        "explained_variance_legacy",
        Needs::Nothing,
        |s| s.mean(Term::LegacyVariance),
        "E(1 - |e|^2 / |x - mean of the batch|^2)",
    ),
    by(
        Origin::DictionaryLearning,
        saelens(
            QUALITY,
            "frac_variance_explained",
            Needs::Nothing,
            |s| 1.0 - s.variance_of_error() / s.variance_in(),
            "1 - sum_d var(e_d) / sum_d var(x_d)",
        ),
    ),
    by(
        Origin::Sparsify,
        saelens(
            QUALITY,
            "fvu",
            Needs::Nothing,
            |s| s.terms[Term::SquareError] / s.variance_in(),
            "sum|e|^2 / sum|x - E x|^2",
        ),
    ),
    saelens(QUALITY, "mse", Needs::Nothing, |s| s.mean(Term::SquareError), "E|e|^2"),
    saelens(QUALITY, "cossim", Needs::Nothing, |s| s.mean(Term::Cosine), "E cos(x, x_hat)"),
    saelens(SHRINKAGE, "l2_norm_in", Needs::Nothing, |s| s.mean(Term::NormIn), "E|x|"),
    saelens(SHRINKAGE, "l2_norm_out", Needs::Nothing, |s| s.mean(Term::NormOut), "E|x_hat|"),
    saelens(SHRINKAGE, "l2_ratio", Needs::Nothing, |s| s.mean(Term::NormRatio), "E(|x_hat| / |x|)"),
    Metric {
        group: SHRINKAGE,
        key: "relative_reconstruction_bias",
        definition: "mean over batches of E|x_hat|^2 / E(x . x_hat)",
        origin: Origin::SaeLens,
        needs: Needs::Nothing,
        formula: Formula::Batches(|batches| {
            batches.iter().map(|b| b.square_out / b.dot).sum::<f64>() / batches.len() as f64
        }),
    },
    by(
        Origin::Own,
        saelens(
            SHRINKAGE,
            "relative_reconstruction_bias_pooled",
            Needs::Nothing,
            |s| s.mean(Term::SquareOut) / s.mean(Term::Dot),
            "E|x_hat|^2 / E(x . x_hat), all tokens",
        ),
    ),
    saelens(SPARSITY, "l0", Needs::Nothing, |s| s.mean(Term::L0), "E number of features that are not 0"),
    saelens(SPARSITY, "l1", Needs::Nothing, |s| s.mean(Term::L1), "E sum of |feature|"),
    of_features(
        "dead_share",
        Origin::Own,
        |f| f.share(|density| density == 0.0),
        "share of features that never fired here",
    ),
    of_features(
        "frac_alive",
        Origin::SaeBench,
        |f| f.share(|density| density > 0.0),
        "share of features that fired here",
    ),
    of_features(
        "freq_over_1_percent",
        Origin::SaeBench,
        |f| f.share(|density| density > 0.01),
        "share of features with density > 1 %",
    ),
    of_features(
        "freq_over_10_percent",
        Origin::SaeBench,
        |f| f.share(|density| density > 0.1),
        "share of features with density > 10 %",
    ),
    of_features(
        "normalized_freq_over_1_percent",
        Origin::SaeBench,
        |f| f.mass_over(0.01),
        "their share of all firings",
    ),
    of_features(
        "normalized_freq_over_10_percent",
        Origin::SaeBench,
        |f| f.mass_over(0.1),
        "their share of all firings",
    ),
];

fn kl_score(s: &Sums, ablated: Term) -> f64 {
    (s.mean(ablated) - s.mean(Term::KlSae)) / s.mean(ablated)
}

fn ce_score(s: &Sums, ablated: Term) -> f64 {
    (s.loss(ablated) - s.loss(Term::LossSae)) / (s.loss(ablated) - s.loss(Term::LossPlain))
}

/// As SAELens computes it, and with its rule where there is no variance to explain: 1 for a perfect reconstruction, else 0.
fn explained_variance(s: &Sums) -> f64 {
    const NONE: f64 = 1e-10;
    let (mse, variance) = (s.mean(Term::SquareError), s.variance_in() / s.terms[Term::Token]);
    match variance < NONE {
        true if mse < NONE => 1.0,
        true => 0.0,
        false => 1.0 - mse / variance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once() {
        let keys: std::collections::BTreeSet<_> = METRICS.iter().map(|m| m.key).collect();
        assert_eq!(keys.len(), METRICS.len());
    }
}
