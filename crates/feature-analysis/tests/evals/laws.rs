//! What must hold on a real model.

use crate::toy::plain;
use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions, TokenRow};
use feature_analysis::evals::{EvalOptions, Evaluation, evaluate, evaluate_store};
use model_hooks::{HookPoint, LanguageModel, LoadOptions, Processing, load};
use sae_core::{Sae, SparseCoder};
use sae_hooks::CoderHooks;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub static DEMO: LazyLock<LanguageModel> =
    LazyLock::new(|| load(&root("assets/demo/lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap());
static SAE: LazyLock<Sae> = LazyLock::new(|| Sae::load(root("assets/demo/sae")).unwrap());

pub fn demo() -> LanguageModel {
    DEMO.clone()
}

/// The demo's last documents, which are short.
static TEXT: LazyLock<PathBuf> = LazyLock::new(|| {
    let all = std::fs::read_to_string(root("assets/demo/text.jsonl")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evals.jsonl");
    std::fs::write(&path, lines[lines.len() - 60..].join("\n")).unwrap();
    path
});

fn store() -> ActivationStore {
    let text = Documents::open(&[TEXT.as_path()], DocumentOptions::default()).unwrap();
    let options = StoreOptions { context_size: Some(32), ..StoreOptions::default() };
    ActivationStore::from_sae(&DEMO, &*SAE, text, options).unwrap()
}

fn few(forward_rows: usize) -> EvalOptions {
    EvalOptions { rows: Some(20), batch_size_prompts: 8, forward_rows: Some(forward_rows), ..EvalOptions::default() }
}

fn run(forward_rows: usize) -> Evaluation {
    evaluate_store(&*SAE, &mut store(), &few(forward_rows), &mut |_| ()).unwrap()
}

#[test]
fn results_do_not_depend_on_rows_in_a_forward_pass_or_threads() {
    let right = run(8).to_json().to_string();
    for forward_rows in [1, 3] {
        assert_eq!(run(forward_rows).to_json().to_string(), right, "{forward_rows} rows");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| run(8)).to_json().to_string(), right, "one thread");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    assert_eq!(pool.install(|| run(3)).to_json().to_string(), right, "five threads");
}

pub fn rows() -> Vec<TokenRow> {
    store().get_batch_tokens().unwrap().unwrap().rows.into_iter().take(3).collect()
}

#[test]
fn without_a_run_of_the_model_the_rest_is_the_same() {
    let all = run(8);
    let some = evaluate_store(&*SAE, &mut store(), &EvalOptions { downstream: false, ..few(8) }, &mut |_| ()).unwrap();
    assert!(some.get("ce_loss_with_sae").is_none() && some.get("kl_div_score").is_none());
    for measured in &some.metrics {
        let key = measured.metric.key();
        assert_eq!(Some(measured.value), all.get(key).map(|m| m.value), "{key}");
        assert_eq!(measured.interval, all.get(key).unwrap().interval, "{key}");
    }
    let zero =
        evaluate_store(&*SAE, &mut store(), &EvalOptions { mean_ablation: false, ..few(8) }, &mut |_| ()).unwrap();
    assert_eq!(zero.value("ce_loss_score").unwrap(), all.value("ce_loss_score").unwrap());
    assert!(zero.get("ce_loss_score_mean_ablation").is_none() && all.get("ce_loss_score_mean_ablation").is_some());
}

#[test]
fn the_report_says_what_was_looked_at() {
    let mut phases = Vec::new();
    let found =
        evaluate_store(&*SAE, &mut store(), &few(8), &mut |p| phases.push((p.phase, p.rows_done, p.rows))).unwrap();
    use feature_analysis::evals::EvalPhase::{Intervals, Mean, Runs};
    let expected = [(Mean, 8), (Mean, 16), (Mean, 20), (Runs, 8), (Runs, 16), (Runs, 20), (Intervals, 20)];
    assert_eq!(phases, expected.map(|(phase, done)| (phase, done, Some(20))));
    assert_eq!((found.counts.rows, found.counts.tokens), (20, 640));
    assert!(found.counts.counted < 640 && found.counts.predictions < found.counts.counted);
    let table = found.table().to_string();
    assert!(table.contains("ce_loss_score ") && table.contains("95 % interval") && table.contains("E|e|^2"), "{table}");

    let found = found.about("model", "demo");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evaluation.json");
    found.write_json(&path).unwrap();
    let json = found.to_json();
    let (written, right) = (std::fs::read_to_string(&path).unwrap(), json.to_string());
    assert!(written == right, "the file is the JSON");
    assert_eq!(json["about"]["model"], "demo");
    assert_eq!(json["metrics"]["sparsity"]["l0"].as_f64().unwrap(), found.value("l0").unwrap());
    let interval = found.get("l0").unwrap().interval.unwrap();
    assert_eq!(json["intervals"]["sparsity"]["l0"], serde_json::json!([interval.low, interval.high]));
    assert_eq!(json["metrics"]["token_stats"]["total_tokens_eval_reconstruction"], 640);
    assert_eq!(json["feature_metrics"]["encoder_norm"].as_array().unwrap().len(), SAE.d_sae());
    assert_eq!(json["eval_cfg"]["hook_name"], "blocks.2.hook_resid_pre");

    // The weights' metrics, against their definitions.
    let weights = found.features.weights.unwrap();
    let column = SAE.w_enc_t().unwrap().get(7).unwrap().to_vec1::<f32>().unwrap();
    let row = SAE.w_dec().get(7).unwrap().to_vec1::<f32>().unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let norm = dot(&column, &column).sqrt();
    assert!((weights.encoder_norm[7] - norm).abs() < 1e-5);
    let cosine = dot(&column, &row) / (norm * dot(&row, &row).sqrt());
    assert!((weights.encoder_decoder_cosine_sim[7] - cosine).abs() < 1e-5);
    assert_eq!(weights.encoder_bias[7], f64::from(SAE.b_enc()[7]));
}

#[test]
fn fewer_rows_than_asked_for_are_what_there_is() {
    let rows = rows();
    let options = EvalOptions { rows: Some(1_000_000), ..plain() };
    let mut of = rows.iter().cloned().map(Ok);
    let hooks = CoderHooks::sae("blocks.2.hook_resid_pre".parse::<HookPoint>().unwrap());
    let found = evaluate(&DEMO, &*SAE, hooks, &mut of, &options, &mut |_| ()).unwrap();
    assert_eq!(found.counts.rows, 3);
}
