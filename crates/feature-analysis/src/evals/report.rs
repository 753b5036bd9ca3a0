//! What an evaluation found, as numbers, JSON and a table.

use super::features::FeatureMetrics;
use super::metric::{Formula, Needs};
use super::run::State;
use super::{EvalOptions, Interval, Metric, metrics};
use crate::Result;
use crate::plot::{Align, Table, grouped};
use activation_store::ExclusionCounts;
use sae_hooks::CoderHooks;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// A metric's value.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// Which metric.
    pub metric: &'static Metric,
    /// Its value over all counted tokens; NaN where it is not defined (a score of nothing lost, say).
    pub value: f64,
    /// Its bootstrap interval, if it has one.
    pub interval: Option<Interval>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvalCounts {
    /// Rows of tokens.
    pub rows: u64,
    /// Their tokens, excluded ones among them.
    pub tokens: u64,
    /// Tokens that count.
    pub counted: u64,
    /// Tokens that the filter excluded, by reason.
    pub excluded: ExclusionCounts,
    /// Tokens that count and are followed by another in their row: what losses are means over.
    pub predictions: u64,
    /// Documents with a token that counts, and rows of which no document is known: what is drawn for the intervals.
    pub units: u64,
    /// Those of them that are rows.
    pub rows_among_units: u64,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evaluation {
    /// Every metric that was asked for, in the order of [`metrics`].
    pub metrics: Vec<Measured>,
    /// What is known of each feature.
    pub features: FeatureMetrics,
    /// How much was looked at.
    pub counts: EvalCounts,
    hooks: CoderHooks,
    options: EvalOptions,
    context_size: usize,
    about: Vec<(String, String)>,
}

impl Evaluation {
    pub(super) fn of(state: State, options: &EvalOptions, hooks: CoderHooks) -> Self {
        let asked = |needs: Needs| match needs {
            Needs::Nothing => true,
            Needs::Sae => options.downstream,
            Needs::Zero => options.zero(),
            Needs::Mean => options.mean(),
        };
        let metrics: Vec<&'static Metric> = metrics().iter().filter(|metric| asked(metric.needs)).collect();
        let total = state.units.total();
        let value = |metric: &Metric| match metric.formula {
            Formula::Sums(of) => of(&total),
            Formula::Batches(of) => of(&state.batches),
            Formula::Features(of) => of(&state.features),
        };
        let intervals = options.bootstrap.intervals(&state.units.sums, &metrics);
        let measured = |(metric, interval): (&'static Metric, Option<Interval>)| {
            let interval = interval.filter(|_| matches!(metric.formula, Formula::Sums(_)));
            Measured { metric, value: value(metric), interval }
        };
        let metrics = metrics.into_iter().zip(intervals).map(measured).collect();
        let counts = EvalCounts {
            rows: state.rows,
            tokens: state.tokens,
            counted: state.counted,
            excluded: state.excluded,
            predictions: state.predictions,
            units: state.units.sums.len() as u64,
            rows_among_units: state.units.rows_among as u64,
        };
        let (context_size, options) = (state.context_size, options.clone());
        let features = state.features.finish(None);
        Self { metrics, features, counts, hooks, options, context_size, about: Vec::new() }
    }

    /// Adds what is known of where it comes from: model, SAE, text. Kept in the JSON under `about`.
    #[must_use]
    pub fn about(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.about.push((name.into(), value.into()));
        self
    }

    /// A metric by its key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Measured> {
        self.metrics.iter().find(|measured| measured.metric.key() == key)
    }

    /// The value of a metric by its key; `None` for a key that no metric has, and for a metric that was not asked for. A metric that was asked for but is not
    /// defined here is NaN.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<f64> {
        self.get(key).map(|measured| measured.value)
    }

    /// What was looked at, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let EvalCounts { rows, counted, excluded, units, rows_among_units, .. } = self.counts;
        let units = match (units - rows_among_units, rows_among_units) {
            (documents, 0) => format!("{} documents", grouped(documents)),
            (0, _) => "documents not known".to_owned(),
            (documents, rows) => format!("{} documents, {} rows of none", grouped(documents), grouped(rows)),
        };
        format!("{} tokens in {} rows, {units}; {excluded}", grouped(counted), grouped(rows))
    }

    /// The metrics with their intervals, for reading.
    #[must_use]
    pub fn table(&self) -> Table {
        let interval = format!("{} % interval", 100.0 * self.options.bootstrap.level);
        let columns = [
            ("metric", Align::Left),
            ("value", Align::Right),
            (interval.as_str(), Align::Right),
            ("definition", Align::Left),
        ];
        let mut table = Table::new(columns);
        for Measured { metric, value, interval } in &self.metrics {
            let interval = interval.map_or(String::new(), |i| format!("{} – {}", number(i.low), number(i.high)));
            table.row([metric.key().to_owned(), number(*value), interval, metric.definition().to_owned()]);
        }
        table
    }

    /// As JSON, with SAELens' groups and keys under `metrics` and `feature_metrics`; beside them `intervals`, `about`, and the settings as `eval_cfg`.
    /// What is not defined is null.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (mut values, mut intervals) = (Map::new(), Map::new());
        let place = |groups: &mut Map<String, Value>, metric: &Metric, value: Value| {
            groups.entry(metric.group()).or_insert_with(|| json!({}))[metric.key()] = value;
        };
        for Measured { metric, value, interval } in &self.metrics {
            place(&mut values, metric, json!(value));
            if let Some(Interval { low, high }) = interval {
                place(&mut intervals, metric, json!([low, high]));
            }
        }
        let counts = &self.counts;
        values.insert(
            "token_stats".into(),
            json!({
                "total_tokens_eval_reconstruction": if self.options.downstream { counts.tokens } else { 0 },
                "total_tokens_eval_sparsity_variance": counts.tokens,
                "tokens_counted": counts.counted,
                "tokens_excluded": counts.excluded,
                "predictions_counted": counts.predictions,
                "rows": counts.rows,
                "resampled_units": counts.units,
                "resampled_units_that_are_rows": counts.rows_among_units,
            }),
        );
        let about: Map<String, Value> = self.about.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        json!({
            "about": about,
            "eval_cfg": self.settings(),
            "metrics": values,
            "intervals": intervals,
            "feature_metrics": self.feature_metrics(),
        })
    }

    fn settings(&self) -> Value {
        let EvalOptions { batch_size_prompts, filter, spare_excluded, bootstrap, .. } = &self.options;
        let name = |hook: model_hooks::HookSelector| hook.point.to_string();
        json!({
            "hook_name": name(self.hooks.input),
            "hook_name_out": name(self.hooks.output),
            "hook_head_index": self.hooks.input.head,
            "context_size": self.context_size,
            "batch_size_prompts": batch_size_prompts,
            "filter": filter,
            "ablation_spares_excluded_tokens": spare_excluded,
            "bootstrap": { "resamples": bootstrap.resamples, "seed": bootstrap.seed, "level": bootstrap.level },
            "library_version": env!("CARGO_PKG_VERSION"),
        })
    }

    fn feature_metrics(&self) -> Value {
        let features = &self.features;
        let mut all = json!({
            "feature_density": features.feature_density,
            "consistent_activation_heuristic": features.consistent_activation_heuristic,
        });
        if let Some(weights) = &features.weights {
            all["encoder_bias"] = json!(weights.encoder_bias);
            all["encoder_norm"] = json!(weights.encoder_norm);
            all["encoder_decoder_cosine_sim"] = json!(weights.encoder_decoder_cosine_sim);
        }
        all
    }

    /// Writes the JSON to a file, whole or not at all.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = self.to_json().to_string();
        let io = |source| tensor_files::Error::Io { path: path.to_path_buf(), source };
        Ok(tensor_files::write_atomically(path, |file| file.write_all(text.as_bytes()).map_err(io))?)
    }
}

/// Five digits, or a dash for what is not defined.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let whole = value.abs().log10().floor().max(0.0) as usize;
    format!("{value:.*}", 5_usize.saturating_sub(whole).max(1))
}
