//! Against SAELens' own `run_evals`, and against an oracle in f64 that also knows what SAELens does not compute (`tests/golden/evals`).

use crate::tolerances::{METRICS, SCORES};
use crate::toy::{at, plain};
use activation_store::{HookSelector, TokenFilter, TokenRow};
use feature_analysis::evals::{Bootstrap, EvalOptions, Evaluation, FeatureWeights};
use model_hooks::{Arithmetic, Engine, HookPoint, LanguageModel, LoadOptions, Precision, Processing, load};
use sae_core::{Sae, SaeParts};
use sae_hooks::CoderHooks;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tensor_files::SafetensorsFile;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

static EXPECTED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&std::fs::read_to_string(golden("evals/expected.json")).unwrap()).unwrap());

/// The output hook is `None` for an SAE.
const SAES: [(&str, &str, Option<&str>); 4] = [
    ("standard", "blocks.1.hook_resid_pre", None),
    ("topk", "blocks.1.hook_mlp_out", None),
    ("jumprelu", "blocks.2.attn.hook_z", None),
    ("transcoder", "blocks.2.ln2.hook_normalized", Some("blocks.2.hook_mlp_out")),
];

fn model(engine: Engine) -> LanguageModel {
    let folder = golden("../../../model-hooks/tests/golden/gpt2");
    load(&folder, &LoadOptions::new(Processing::TransformerLens).engine(engine)).unwrap()
}

fn sae(name: &str, engine: Engine) -> Sae {
    let folder = golden("../../../sae-hooks/tests/golden/splice/saes").join(name);
    if name != "transcoder" {
        return Sae::load_with(folder, &sae_core::LoadOptions { engine, ..Default::default() }).unwrap();
    }
    // Its equations are those of a ReLU SAE.
    let file = SafetensorsFile::open(folder.join("sae_weights.safetensors")).unwrap();
    let vector = |key: &str| file.load_f32(key).unwrap().to_vec1().unwrap();
    let matrix = |key: &str| file.load_f32(key).unwrap();
    Sae::on(engine, SaeParts::new(matrix("W_enc"), vector("b_enc"), matrix("W_dec"), vector("b_dec"))).unwrap()
}

/// The prompts, each a row of its own of no known document.
fn rows() -> Vec<TokenRow> {
    let tokens = SafetensorsFile::open(golden("evals/tokens.safetensors")).unwrap().load("tokens").unwrap();
    let tokens = tokens.to_dtype(candle_core::DType::I64).unwrap().to_vec2::<i64>().unwrap();
    let row = |(row, ids): (u64, Vec<i64>)| TokenRow {
        row,
        origin: vec![None; ids.len()],
        tokens: ids.into_iter().map(|id| id as u32).collect(),
    };
    (0..).zip(tokens).map(row).collect()
}

fn options(case: &str) -> EvalOptions {
    let excluded = EXPECTED["excluded_tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
    EvalOptions {
        batch_size_prompts: EXPECTED["prompts_in_a_batch"].as_u64().unwrap() as usize,
        filter: if case == "all" { TokenFilter::everything() } else { TokenFilter::everything().with_ids(excluded) },
        ..plain()
    }
}

fn hooks(input: &str, output: Option<&str>) -> CoderHooks {
    let input: HookPoint = input.parse().unwrap();
    match output {
        None => CoderHooks::sae(HookSelector::from(input)),
        Some(output) => CoderHooks::transcoder(input, output.parse().unwrap()),
    }
}

/// Tolerances relative to the value: of sums, and of scores and divergences.
fn tolerances(engine: Engine) -> (f64, f64) {
    (METRICS.on(engine), SCORES.on(engine))
}

/// Our key for the oracle's; `None` for what is not computed here.
fn our_key(theirs: &str) -> Option<&str> {
    match theirs {
        "dictionary_learning_frac_variance_explained" => Some("frac_variance_explained"),
        "sparsify_fvu" => Some("fvu"),
        // Averages over batches, other losses, and cosines of all pairs of features.
        _ if theirs.ends_with("_by_batch") || theirs.starts_with("dictionary_learning") => None,
        "average_max_encoder_cosine_sim" | "average_max_decoder_cosine_sim" => None,
        _ => Some(theirs),
    }
}

fn check(found: &Evaluation, key: &str, theirs: &Value, engine: Engine, what: &str) {
    let (sums, differences) = tolerances(engine);
    let tolerance = if key.contains("kl_div") || key.contains("score") { differences } else { sums };
    let (ours, theirs) = (found.value(key).unwrap(), theirs.as_f64().unwrap());
    assert!((ours - theirs).abs() <= tolerance * theirs.abs(), "{what} {key}: {ours}, golden {theirs}");
}

#[test]
fn every_metric_on_every_engine() {
    let exact = |arithmetic: &Arithmetic| arithmetic.precision() != Precision::Bf16;
    let engines = std::iter::once(Engine::Reference).chain(Arithmetic::available().filter(exact).map(Engine::Kernels));
    let features = SafetensorsFile::open(golden("evals/features.safetensors")).unwrap();
    let rows = rows();
    for engine in engines {
        let model = model(engine);
        for (name, input, output) in SAES {
            let sae = sae(name, engine);
            for case in ["all", "excluding"] {
                let what = format!("{name} {case} {engine}");
                let found = at(&model, &sae, hooks(input, output), &rows, &options(case)).unwrap();
                let mut checked = 0;
                for (theirs, value) in EXPECTED["oracle"][name][case].as_object().unwrap() {
                    let Some(key) = our_key(theirs) else { continue };
                    check(&found, key, value, engine, &what);
                    checked += 1;
                }
                assert_eq!(checked, 29, "{what}");
                if output.is_none() {
                    saelens(&found, &EXPECTED["saelens"][name][case], engine, &what);
                }
                per_feature(&found, &sae, &features, &format!("oracle.{name}.{case}"));
            }
        }
    }
}

/// What SAELens returned, by its groups and keys.
fn saelens(found: &Evaluation, theirs: &Value, engine: Engine, what: &str) {
    let mut checked = 0;
    for (group, metrics) in theirs.as_object().unwrap() {
        for (key, value) in metrics.as_object().unwrap() {
            let ours = &found.to_json()["metrics"][group][key];
            assert!(ours.is_number(), "{what}: no {group}/{key}");
            match group.as_str() {
                "token_stats" => assert_eq!(ours, value, "{what} {key}"),
                _ => check(found, key, value, engine, what),
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 19, "{what}");
}

fn per_feature(found: &Evaluation, sae: &Sae, features: &SafetensorsFile, prefix: &str) {
    let theirs = |key: &str| -> Vec<f32> {
        // Not `load_f32`: NaN says that a feature never fired.
        let values = features.load(&format!("{prefix}.{key}")).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        values.flatten_all().unwrap().to_vec1().unwrap()
    };
    let same = |key: &str, ours: &[f64], tolerance: f64| {
        let theirs = theirs(key);
        assert_eq!(ours.len(), theirs.len());
        for (feature, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let near = (ours - f64::from(theirs)).abs() <= tolerance || (ours.is_nan() && theirs.is_nan());
            assert!(near, "{prefix} {key} of feature {feature}: {ours}, golden {theirs}");
        }
    };
    same("feature_density", &found.features.feature_density, 1e-6);
    same("consistent_activation_heuristic", &found.features.consistent_activation_heuristic, 1e-5);
    let weights = FeatureWeights::of(sae).unwrap();
    same("encoder_bias", &weights.encoder_bias, 1e-6);
    same("encoder_norm", &weights.encoder_norm, 1e-5);
    same("encoder_decoder_cosine_sim", &weights.encoder_decoder_cosine_sim, 1e-5);
}

/// Intervals of losses and scores from the oracle's mean of each prompt (all are equally long) and our draws.
#[test]
fn intervals_from_the_oracles_prompts() {
    let engine = Engine::default();
    let bootstrap = Bootstrap { resamples: 200, seed: 4, level: 0.8 };
    for (name, input, output) in SAES {
        let options = EvalOptions { bootstrap, ..options("all") };
        let found = at(&model(engine), &sae(name, engine), hooks(input, output), &rows(), &options).unwrap();
        let prompts = |key: &str| -> Vec<f64> {
            let list = EXPECTED["per_prompt"][name]["all"][key].as_array().unwrap();
            list.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let [plain, with_sae, zero, kl] =
            ["ce_loss_without_sae", "ce_loss_with_sae", "ce_loss_with_ablation", "kl_div_with_sae"].map(prompts);
        let resample = |i: u32| {
            let times = bootstrap.draw(i, plain.len());
            let mean = |v: &[f64]| v.iter().zip(&times).map(|(v, t)| v * f64::from(*t)).sum::<f64>() / v.len() as f64;
            let (plain, with_sae, zero) = (mean(&plain), mean(&with_sae), mean(&zero));
            [with_sae, (zero - with_sae) / (zero - plain), mean(&kl)]
        };
        let resamples: Vec<_> = (0..bootstrap.resamples).map(resample).collect();
        for (i, key) in ["ce_loss_with_sae", "ce_loss_score", "kl_div_with_sae"].into_iter().enumerate() {
            let mut values: Vec<f64> = resamples.iter().map(|r| r[i]).collect();
            values.sort_unstable_by(f64::total_cmp);
            let quantile = |q: f64| {
                let place = q * (values.len() - 1) as f64;
                let below = place as usize;
                values[below] + (values[below + 1] - values[below]) * (place - below as f64)
            };
            let interval = found.get(key).unwrap().interval.unwrap();
            for (ours, right) in [(interval.low, quantile(0.1)), (interval.high, quantile(0.9))] {
                assert!((ours - right).abs() <= SCORES.f32 * right.abs(), "{name} {key}: {ours}, golden {right}");
            }
        }
    }
}
