//! Numbers that can be checked on paper.

use crate::toy::{Map, at, near, on_toy, plain, row_of, rows, toy};
use activation_store::TokenFilter;
use candle_core::{Device, Tensor};
use feature_analysis::evals::{EvalOptions, metrics};
use sae_core::{Activation, Sae, SaeParts};
use sae_hooks::CoderHooks;

const EXACT: f64 = 1e-9;

/// Reconstructs `[2, 0]` as `[2, 1]` and `[0, 4]` as `[0, 3]`.
fn by_hand() -> Map<impl Fn(&[f32]) -> Vec<f32>> {
    Map(2, |x: &[f32]| if x[0] == 2.0 { vec![2.0, 1.0] } else { vec![0.0, 3.0] })
}

#[test]
fn two_tokens() {
    let model = toy(&[&[2.0, 0.0], &[0.0, 4.0]]);
    let found = on_toy(&model, &by_hand(), &rows(&[&[0, 1]]), &plain()).unwrap();
    let is = |key: &str, right: f64| near(&found, key, right, EXACT);
    // e = [0, -1], [0, 1]; x - mean = [1, -2], [-1, 2].
    is("mse", 1.0);
    is("explained_variance", 0.8);
    is("explained_variance_legacy", 0.8);
    is("frac_variance_explained", 0.8);
    is("fvu", 0.2);
    is("cossim", (2.0 / 5_f64.sqrt() + 1.0) / 2.0);
    is("l2_norm_in", 3.0);
    is("l2_norm_out", (5_f64.sqrt() + 3.0) / 2.0);
    is("l2_ratio", (5_f64.sqrt() / 2.0 + 0.75) / 2.0);
    is("relative_reconstruction_bias", (5.0 + 9.0) / (4.0 + 12.0));
    is("relative_reconstruction_bias_pooled", 14.0 / 16.0);
    is("l0", 1.0);
    is("l1", 3.0);
    is("dead_share", 0.0);
    is("freq_over_10_percent", 1.0);
    is("normalized_freq_over_1_percent", 1.0);
    assert_eq!(found.features.feature_density, [0.5, 0.5]);
    assert_eq!(found.features.consistent_activation_heuristic, [1.0, 1.0]);

    // One prediction, token 1 after token 0. Logits: plain [2, 0, 2], with the coder [2, 1, 3], zeros, mean [1, 2, 3].
    let loss = |logits: [f64; 3]| logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[1];
    let near = |key: &str, right: f64| near(&found, key, right, 1e-6);
    near("ce_loss_without_sae", loss([2.0, 0.0, 2.0]));
    near("ce_loss_with_sae", loss([2.0, 1.0, 3.0]));
    near("ce_loss_with_ablation", 3_f64.ln());
    near("ce_loss_with_mean_ablation", loss([1.0, 2.0, 3.0]));
    near("ce_loss_added", loss([2.0, 1.0, 3.0]) - loss([2.0, 0.0, 2.0]));
    let kl = |p: [f64; 3], q: [f64; 3]| {
        let log = |l: [f64; 3]| l.map(|v| v - l.iter().map(|l| l.exp()).sum::<f64>().ln());
        std::iter::zip(log(p), log(q)).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    };
    let plain = [[2.0, 0.0, 2.0], [0.0, 4.0, 4.0]];
    let mean_kl = |other: [[f64; 3]; 2]| (kl(plain[0], other[0]) + kl(plain[1], other[1])) / 2.0;
    let (sae, zero) = (mean_kl([[2.0, 1.0, 3.0], [0.0, 3.0, 3.0]]), mean_kl([[0.0; 3]; 2]));
    near("kl_div_with_sae", sae);
    near("kl_div_with_ablation", zero);
    near("kl_div_with_mean_ablation", mean_kl([[1.0, 2.0, 3.0]; 2]));
    near("kl_div_score", (zero - sae) / zero);
    let ce = |key: &str| found.value(key).unwrap();
    near("ce_loss_score", (3_f64.ln() - ce("ce_loss_with_sae")) / (3_f64.ln() - ce("ce_loss_without_sae")));
    assert_eq!(found.metrics.len(), metrics().len(), "every metric is there");
}

#[test]
fn a_perfect_coder_a_coder_that_knows_the_mean_and_a_constant_error() {
    let model = toy(&[&[2.0, 0.0], &[0.0, 4.0]]);
    let rows = rows(&[&[0, 1, 0], &[1, 1, 0]]);
    let perfect = on_toy(&model, &Map(2, |x: &[f32]| x.to_vec()), &rows, &plain()).unwrap();
    for (key, right) in [
        ("explained_variance", 1.0),
        ("explained_variance_legacy", 1.0),
        ("frac_variance_explained", 1.0),
        ("fvu", 0.0),
        ("mse", 0.0),
        ("cossim", 1.0),
        ("l2_ratio", 1.0),
        ("relative_reconstruction_bias", 1.0),
        ("kl_div_with_sae", 0.0),
        ("kl_div_score", 1.0),
        ("ce_loss_added", 0.0),
        ("ce_loss_score", 1.0),
        ("ce_loss_score_mean_ablation", 1.0),
    ] {
        near(&perfect, key, right, EXACT);
    }
    // The mean of three times [2, 0] and three times [0, 4].
    let mean = on_toy(&model, &Map(2, |_: &[f32]| vec![1.0, 2.0]), &rows, &plain()).unwrap();
    for key in
        ["explained_variance", "frac_variance_explained", "kl_div_score_mean_ablation", "ce_loss_score_mean_ablation"]
    {
        near(&mean, key, 0.0, EXACT);
    }
    assert_eq!(mean.value("ce_loss_with_sae").unwrap(), mean.value("ce_loss_with_mean_ablation").unwrap());
    let shifted = on_toy(&model, &Map(2, |x: &[f32]| vec![x[0] + 1.0, x[1]]), &rows, &plain()).unwrap();
    near(&shifted, "frac_variance_explained", 1.0, EXACT);
    near(&shifted, "explained_variance", 0.8, EXACT);
    near(&shifted, "fvu", 0.2, EXACT);
}

#[test]
fn without_variance_saelens_rule_holds() {
    let model = toy(&[&[1.5, 2.5]]);
    let rows = rows(&[&[0, 0, 0]]);
    let right = on_toy(&model, &Map(2, |x: &[f32]| x.to_vec()), &rows, &plain()).unwrap();
    near(&right, "explained_variance", 1.0, 0.0);
    near(&right, "explained_variance_legacy", 1.0, 0.0);
    let wrong = on_toy(&model, &Map(2, |_: &[f32]| vec![0.0, 0.0]), &rows, &plain()).unwrap();
    near(&wrong, "explained_variance", 0.0, 0.0);
    near(&wrong, "explained_variance_legacy", 0.0, 0.0);
    near(&wrong, "cossim", 0.0, 0.0);
    assert!(wrong.value("fvu").unwrap().is_infinite() && wrong.value("frac_variance_explained").unwrap().is_nan());
    let json = wrong.to_json();
    let quality = &json["metrics"]["reconstruction_quality"];
    assert!(quality["fvu"].is_null() && quality["explained_variance"] == 0.0, "{quality}");
}

#[test]
fn excluded_tokens_pass_and_do_not_count() {
    let model = toy(&[&[2.0, 0.0], &[0.0, 4.0], &[50.0, -20.0]]);
    let rows = [row_of(0, 0, &[2, 0, 1]), row_of(1, 1, &[1, 2, 0])];
    let options = EvalOptions { filter: TokenFilter::everything().with_ids([2]), ..plain() };
    let found = on_toy(&model, &by_hand(), &rows, &options).unwrap();
    assert_eq!((found.counts.tokens, found.counts.counted, found.counts.predictions), (6, 4, 2));
    // Two of each token: the numbers of two tokens.
    for (key, right) in [("explained_variance", 0.8), ("mse", 1.0), ("l0", 1.0), ("l1", 3.0), ("l2_norm_in", 3.0)] {
        near(&found, key, right, EXACT);
    }
    // Predictions of token 1 after 0 and of token 2 after 1: masked by the token that predicts.
    let log_sum = |logits: [f64; 3]| logits.iter().map(|l| l.exp()).sum::<f64>().ln();
    let with_sae = (log_sum([2.0, 1.0, 3.0]) - 1.0 + log_sum([0.0, 3.0, 3.0]) - 3.0) / 2.0;
    near(&found, "ce_loss_with_sae", with_sae, 1e-6);
    // The mean is of the tokens that count, and stands at all.
    let mean = (log_sum([1.0, 2.0, 3.0]) - 2.0 + log_sum([1.0, 2.0, 3.0]) - 3.0) / 2.0;
    near(&found, "ce_loss_with_mean_ablation", mean, 1e-6);
    assert_eq!(found.features.feature_density, [0.5, 0.5]);
    assert_eq!(found.features.consistent_activation_heuristic, [1.0, 1.0]);
}

#[test]
fn a_batch_is_what_two_metrics_are_means_over_and_no_other_is() {
    let vectors: Vec<Vec<f32>> = (0..12_u8).map(|i| vec![f32::from(i * i % 7) - 2.0, f32::from(i % 5), 1.0]).collect();
    let model = toy(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let rows: Vec<_> = (0..6).map(|r| row_of(r, r, &[r as u32, r as u32 + 3, r as u32 + 5, r as u32 + 6])).collect();
    let coder = Map(3, |x: &[f32]| x.iter().map(|x| (0.8 * x).floor()).collect());
    let of =
        |batch: usize| on_toy(&model, &coder, &rows, &EvalOptions { batch_size_prompts: batch, ..plain() }).unwrap();
    let (whole, parts) = (of(6), of(2));
    for (a, b) in whole.metrics.iter().zip(&parts.metrics) {
        let key = a.metric.key();
        match matches!(key, "explained_variance_legacy" | "relative_reconstruction_bias") {
            true => assert!((a.value - b.value).abs() > 1e-4, "{key}"),
            false => assert_eq!(a.value.to_bits(), b.value.to_bits(), "{key}"),
        }
    }
    assert_eq!(
        whole.value("relative_reconstruction_bias").unwrap(),
        whole.value("relative_reconstruction_bias_pooled").unwrap()
    );
    // The mean over batches of each batch's own value.
    let one = |i: usize| on_toy(&model, &coder, &rows[2 * i..2 * i + 2], &plain()).unwrap();
    let mean = (0..3).map(|i| one(i).value("relative_reconstruction_bias").unwrap()).sum::<f64>() / 3.0;
    near(&parts, "relative_reconstruction_bias", mean, EXACT);
    let mean = (0..3).map(|i| one(i).value("explained_variance_legacy").unwrap()).sum::<f64>() / 3.0;
    near(&parts, "explained_variance_legacy", mean, EXACT);
}

/// `W_dec = [I; -I]`: a ReLU SAE that keeps everything.
fn identity(d: usize, scale: f32) -> Sae {
    let eye = Tensor::eye(d, candle_core::DType::F32, &Device::Cpu).unwrap();
    let w_dec = Tensor::cat(&[&eye, &eye.neg().unwrap()], 0).unwrap();
    let w_enc = (w_dec.t().unwrap().contiguous().unwrap() * f64::from(scale)).unwrap();
    let w_dec = (w_dec / f64::from(scale)).unwrap();
    Sae::new(SaeParts::new(w_enc, vec![0.0; 2 * d], w_dec, vec![0.0; d])).unwrap()
}

#[test]
fn an_identity_sae_explains_everything() {
    let model = crate::laws::demo();
    let d = model.shape().d_model;
    let rows: Vec<_> = (0..3).map(|r| row_of(r, r, &[17, 400 + r as u32, 23, 999, 5, 77])).collect();
    for scale in [1.0, 3.0] {
        let sae = identity(d, scale);
        let hooks = CoderHooks::sae("blocks.1.hook_resid_pre".parse::<model_hooks::HookPoint>().unwrap());
        let found = at(&model, &sae, hooks, &rows, &plain()).unwrap();
        near(&found, "explained_variance", 1.0, 1e-7);
        near(&found, "explained_variance_legacy", 1.0, 1e-6);
        near(&found, "mse", 0.0, 1e-5);
        near(&found, "l0", d as f64, 0.0);
        near(&found, "ce_loss_added", 0.0, 1e-4);
        near(&found, "kl_div_with_sae", 0.0, 1e-5);
    }
}

#[test]
fn top_k_has_an_l0_of_k() {
    let d = 6;
    let w = Tensor::eye(d, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut parts = SaeParts::new(w.clone(), vec![0.0; d], w, vec![0.0; d]);
    parts.activation = Activation::TopK { k: 2, rescale_by_decoder_norm: false };
    let model = toy(&[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[6.0, 1.0, 5.0, 1.0, 0.5, 0.1]]);
    let found = on_toy(&model, &Sae::new(parts).unwrap(), &rows(&[&[0, 1, 1]]), &plain()).unwrap();
    near(&found, "l0", 2.0, 0.0);
    near(&found, "l1", 11.0, EXACT);
    near(&found, "dead_share", 2.0 / 6.0, EXACT);
    assert_eq!(found.features.feature_density, [2.0 / 3.0, 0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0, 1.0 / 3.0]);
    assert!(found.features.consistent_activation_heuristic[1].is_nan());
    assert_eq!(found.features.consistent_activation_heuristic[0], 2.0);
}
