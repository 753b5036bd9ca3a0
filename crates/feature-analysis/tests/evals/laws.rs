//! What must hold on a real model.

use crate::toy::{at, batch, plain};
use activation_store::{
    ActivationStore, DocumentOptions, Documents, Exclude, HookChoice, HookRows, StoreOptions, TokenRow,
};
use candle_core::{Device, Tensor};
use feature_analysis::evals::{EvalHooks, EvalOptions, Evaluation, evaluate, evaluate_store};
use feature_analysis::splice::{SaeAt, Splice};
use model_hooks::{
    Capture, Cx, Edit, HookPoint, LanguageModel, LoadOptions, NoTap, Predictions, Processing, Tap, edit_at, load,
};
use sae_core::{Activation, Sae, SaeParts, SparseCoder};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

static DEMO: LazyLock<LanguageModel> =
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
    ActivationStore::from_sae(&DEMO, &SAE, text, options).unwrap()
}

fn few(forward_rows: usize) -> EvalOptions {
    EvalOptions { rows: Some(20), batch_size_prompts: 8, forward_rows: Some(forward_rows), ..EvalOptions::default() }
}

fn run(forward_rows: usize) -> Evaluation {
    evaluate_store(&SAE, &mut store(), &few(forward_rows), &mut |_| ()).unwrap()
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

/// A random TopK SAE for a hook point.
fn random(hook: HookRows) -> Sae {
    let (width, d_sae) = (hook.width, 64);
    let number = |i: usize| (i as f32 * 0.7 + width as f32).sin() / (width as f32).sqrt();
    let w_dec = Tensor::from_vec((0..d_sae * width).map(number).collect(), (d_sae, width), &Device::Cpu).unwrap();
    let mut parts = SaeParts::new(w_dec.t().unwrap().contiguous().unwrap(), vec![0.1; d_sae], w_dec, vec![0.05; width]);
    parts.activation = Activation::TopK { k: 7, rescale_by_decoder_norm: false };
    Sae::new(parts).unwrap()
}

fn rows() -> Vec<TokenRow> {
    store().get_batch_tokens().unwrap().unwrap().rows.into_iter().take(3).collect()
}

/// The means over counted tokens, of a whole forward pass with an edit: losses masked by the predicting token, divergences.
fn whole_pass(rows: &[TokenRow], excluded: &[u32], tap: &mut dyn Tap) -> [f64; 2] {
    let tokens = batch(rows);
    let plain = Predictions::new(DEMO.hooked().forward(&tokens, &mut NoTap).unwrap()).unwrap();
    let run = Predictions::new(DEMO.hooked().forward(&tokens, tap).unwrap()).unwrap();
    let pos = tokens.pos();
    let (loss, kl) = (run.loss(&tokens).unwrap(), plain.kl(&run).unwrap());
    let counted = |i: &usize| !excluded.contains(&tokens.ids()[*i]);
    let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
    for i in (0..tokens.ids().len()).filter(counted) {
        if i % pos + 1 < pos {
            sums[0] += loss[i / pos * (pos - 1) + i % pos];
            counts[0] += 1.0;
        }
        sums[1] += kl[i];
        counts[1] += 1.0;
    }
    [sums[0] / counts[0], sums[1] / counts[1]]
}

/// Zeros, but the original where the token is this one.
fn spared(rows: &[TokenRow], token: u32, x: &Tensor) -> Tensor {
    let ids = rows.iter().flat_map(|row| row.tokens.clone());
    let keep: Vec<f32> = ids.map(|id| if id == token { 1.0 } else { 0.0 }).collect();
    let keep = Tensor::from_vec(keep, (x.dim(0).unwrap(), x.dim(1).unwrap(), 1), &Device::Cpu).unwrap();
    x.broadcast_mul(&keep).unwrap()
}

/// Every run goes on from the hook's block with values found in the plain run. That must be what a whole pass from the tokens gives with the SAE
/// spliced in: to the last bit, but for the order in which means are summed.
#[test]
fn runs_from_the_hook_are_whole_runs() {
    let bos = DEMO.tokenizer().unwrap().bos().unwrap();
    let rows = rows();
    assert!(rows.iter().all(|row| row.tokens[0] == bos));
    let choices = [
        ("hook_embed", None),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.2.hook_resid_pre", None),
        ("blocks.1.attn.hook_z", None),
        ("blocks.1.attn.hook_z", Some(2)),
        ("blocks.2.hook_attn_out", None),
        ("blocks.1.hook_resid_mid", None),
        ("blocks.3.mlp.hook_post", None),
        ("blocks.1.hook_mlp_out", None),
        ("blocks.1.hook_resid_post", None),
        ("blocks.3.hook_resid_post", None),
        ("ln_final.hook_normalized", None),
    ];
    for (name, head) in choices {
        let hook = HookRows::of(HookChoice { point: name.parse().unwrap(), head }, DEMO.shape()).unwrap();
        let sae = random(hook);
        let options = EvalOptions { exclude: Exclude::Ids(vec![bos]), ..plain() };
        let found = at(&DEMO, &sae, EvalHooks::sae(HookChoice { point: hook.point, head }), &rows, &options).unwrap();
        let check = |keys: [&str; 2], right: [f64; 2]| {
            for (key, right) in keys.into_iter().zip(right) {
                let value = found.value(key);
                assert!((value - right).abs() <= 1e-12 * right.abs(), "{name} {head:?} {key}: {value} {right}");
            }
        };
        let plain_loss = whole_pass(&rows, &[bos], &mut NoTap)[0];
        assert!((found.value("ce_loss_without_sae") - plain_loss).abs() < 1e-12);
        let mut splice = SaeAt::new(hook.point, &sae).exclude_tokens([bos]);
        if let Some(head) = head {
            splice = splice.head(head);
        }
        let mut with_sae = Splice::on(DEMO.hooked()).with(splice).unwrap();
        check(["ce_loss_with_sae", "kl_div_with_sae"], whole_pass(&rows, &[bos], &mut with_sae));
        let zero = Edit::zero(hook.point);
        let mut with_zeros = head.map_or(zero.clone(), |head| zero.head(head));
        check(["ce_loss_with_ablation", "kl_div_with_ablation"], whole_pass(&rows, &[bos], &mut with_zeros));
    }
}

#[test]
fn spared_tokens_keep_their_activation_under_ablation() {
    let bos = DEMO.tokenizer().unwrap().bos().unwrap();
    let (rows, point) = (rows(), "blocks.1.hook_resid_pre".parse::<HookPoint>().unwrap());
    let sae = random(HookRows::of(point.into(), DEMO.shape()).unwrap());
    let found = |spare_excluded| {
        let options = EvalOptions { exclude: Exclude::Ids(vec![bos]), spare_excluded, ..plain() };
        at(&DEMO, &sae, EvalHooks::sae(point), &rows, &options).unwrap()
    };
    let spare = |_: &Cx<'_>, x: Tensor| Ok(spared(&rows, bos, &x));
    let right = whole_pass(&rows, &[bos], &mut edit_at(point, spare));
    let (spared, all) = (found(true), found(false));
    assert!((spared.value("ce_loss_with_ablation") - right[0]).abs() < 1e-12);
    assert!((all.value("ce_loss_with_ablation") - right[0]).abs() > 1e-3, "BOS matters");
    assert_eq!(spared.value("ce_loss_with_sae"), all.value("ce_loss_with_sae"));
}

#[test]
fn a_transcoder_reads_at_one_place_and_is_measured_at_the_other() {
    let (input, output): (HookPoint, HookPoint) =
        ("blocks.2.ln2.hook_normalized".parse().unwrap(), "blocks.2.hook_mlp_out".parse().unwrap());
    let coder = random(HookRows::of(input.into(), DEMO.shape()).unwrap());
    let rows = rows();
    let found = at(&DEMO, &coder, EvalHooks::transcoder(input, output), &rows, &plain()).unwrap();
    let mut capture = Capture::of([input, output]);
    DEMO.hooked().forward(&batch(&rows), &mut capture).unwrap();
    let x_hat = coder.forward(capture.get(input).unwrap()).unwrap().x_hat;
    let error = (capture.get(output).unwrap() - &x_hat).unwrap().sqr().unwrap().sum(2).unwrap().flatten_all().unwrap();
    let mse = error.to_vec1::<f32>().unwrap().iter().map(|e| f64::from(*e)).sum::<f64>() / error.elem_count() as f64;
    assert!((found.value("mse") - mse).abs() < 1e-5 * mse);
    let right = whole_pass(&rows, &[], &mut Edit::patch(output, x_hat));
    assert!((found.value("ce_loss_with_sae") - right[0]).abs() < 1e-12);
    assert!((found.value("kl_div_with_sae") - right[1]).abs() < 1e-12);
}

#[test]
fn without_a_run_of_the_model_the_rest_is_the_same() {
    let all = run(8);
    let some = evaluate_store(&SAE, &mut store(), &EvalOptions { downstream: false, ..few(8) }, &mut |_| ()).unwrap();
    assert!(some.get("ce_loss_with_sae").is_none() && some.get("kl_div_score").is_none());
    for measured in &some.metrics {
        let key = measured.metric.key();
        assert_eq!(Some(measured.value), all.get(key).map(|m| m.value), "{key}");
        assert_eq!(measured.interval, all.get(key).unwrap().interval, "{key}");
    }
    let zero =
        evaluate_store(&SAE, &mut store(), &EvalOptions { mean_ablation: false, ..few(8) }, &mut |_| ()).unwrap();
    assert_eq!(zero.value("ce_loss_score"), all.value("ce_loss_score"));
    assert!(zero.get("ce_loss_score_mean_ablation").is_none() && all.get("ce_loss_score_mean_ablation").is_some());
}

#[test]
fn the_report_says_what_was_looked_at() {
    let mut phases = Vec::new();
    let found =
        evaluate_store(&SAE, &mut store(), &few(8), &mut |p| phases.push((p.phase, p.rows_done, p.rows))).unwrap();
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
    assert_eq!(json["metrics"]["sparsity"]["l0"].as_f64().unwrap(), found.value("l0"));
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
    let hooks = EvalHooks::sae("blocks.2.hook_resid_pre".parse::<HookPoint>().unwrap());
    let found = evaluate(&DEMO, &*SAE, hooks, &mut of, &options, &mut |_| ()).unwrap();
    assert_eq!(found.counts.rows, 3);
}
