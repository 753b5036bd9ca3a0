//! Effects of features on a logit difference: finite differences, the sum rule, small contributions, per-token norms, refusals.

#[path = "splice/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the splice")]
mod support;

use activation_store::TokenFilter;
use model_hooks::{Engine, HookedModel, NoTap, TokenBatch, gradients};
use sae_core::{Normalization, Sae, SaeParts, SparseCoder};
use sae_hooks::{Attribution, FeatureEdit, HookedSae, LogitDifference, SaeHookPoint, SaeSite, Splice, direct_effects};
use support::*;

fn one_row(model: &dyn HookedModel) -> TokenBatch {
    TokenBatch::new(&[tokens(model).rows().next().unwrap()]).unwrap()
}

fn difference() -> LogitDifference {
    LogitDifference::new([4, 9], [11])
}

fn metric(logits: &candle_core::Tensor) -> f64 {
    let rows = logits.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    let last = rows.last().unwrap();
    f64::from(last[4] + last[9]) / 2.0 - f64::from(last[11])
}

const HOOK: &str = "blocks.0.hook_resid_post";

fn normed(model: &dyn HookedModel, normalization: Normalization) -> Sae {
    let d = model.shape().d_model;
    let rng = &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(5);
    let (enc, dec) = (normal(rng, 0.2, &[d, 64]), normal(rng, 0.2, &[64, d]));
    let bias = |n: usize| (0..n).map(|i| (i % 5) as f32 * 0.05).collect::<Vec<_>>();
    Sae::on(Engine::Reference, SaeParts { normalization, ..SaeParts::new(enc, bias(64), dec, bias(d)) }).unwrap()
}

fn each_sae(check: impl Fn(&str, &dyn HookedModel, &TokenBatch, &Sae, &Attribution)) {
    for name in ["gpt2", "llama"] {
        let model = model_on(name, Engine::Reference);
        let (model, tokens) = (model.hooked(), one_row(model.hooked()));
        for norm in [Normalization::None, Normalization::ConstantNormRescale, Normalization::LayerNorm] {
            let sae = normed(model, norm);
            let found = direct_effects(model, &tokens, &HookedSae::new(at(HOOK), &sae), &difference()).unwrap();
            assert!(found.rows.len() > 20, "{name}: {} rows", found.rows.len());
            check(&format!("{name}, {norm:?}"), model, &tokens, &sae, &found);
        }
    }
}

/// Central differences of the spliced model, whose features are scaled by 1 +- eps: no gradient is computed there.
#[test]
fn direct_effects_are_finite_differences() {
    each_sae(|name, model, tokens, sae, found| {
        let largest = found.rows[0].direct.abs();
        for row in found.rows.iter().take(8) {
            let scaled = |factor: f32| {
                let edit = FeatureEdit::scale([row.feature], factor).positions(row.pos..=row.pos);
                let at_hook = HookedSae::new(at(HOOK), sae).error_term(true);
                let mut splice = Splice::new(model).with(at_hook).unwrap().edit(at(HOOK), edit).unwrap();
                metric(&model.forward(tokens, &mut splice).unwrap())
            };
            let eps = 0.02f32;
            let slope = (scaled(1.0 + eps) - scaled(1.0 - eps)) / (2.0 * f64::from(eps));
            assert!((slope - row.direct).abs() < 0.01 * largest, "{name}: {row:?}, difference quotient {slope}");
        }
    });
}

#[test]
fn features_bias_and_error_add_up_to_gradient_times_value() {
    each_sae(|name, model, tokens, _, found| {
        let last = tokens.pos() - 1;
        let direct = gradients(model, tokens, &[at(HOOK)], |logits| {
            let pick = |id: u32| logits.narrow(1, last, 1)?.narrow(2, id as usize, 1)?.sum_all();
            Ok((((pick(4)? + pick(9)?)? * 0.5)? - pick(11)?)?)
        });
        let total: f32 = flat(&direct.unwrap().attribution(at(HOOK)).unwrap()).iter().sum();
        let sum = found.rows.iter().map(|row| row.direct).sum::<f64>() + found.bias + found.error;
        let size = found.rows.iter().map(|row| row.direct.abs()).sum::<f64>();
        assert!((sum - f64::from(total)).abs() < 1e-4 * size, "{name}: {sum} against {total}");
    });
}

/// What a skip connection carries is no error of the transcoder: a splice with the error term holds it fixed beside the features.
#[test]
fn a_skip_connection_is_not_counted_as_error() {
    let model = model_on("gpt2", Engine::Reference);
    let (model, tokens) = (model.hooked(), one_row(model.hooked()));
    let d = model.shape().d_model;
    let rng = &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(8);
    let (enc, dec, skip) = (normal(rng, 0.2, &[d, 64]), normal(rng, 0.2, &[64, d]), normal(rng, 0.1, &[d, d]));
    let (read, write) = (at("blocks.1.hook_resid_mid"), at("blocks.1.hook_mlp_out"));
    let mut parts = SaeParts::new(enc, vec![0.05; 64], dec, vec![0.1; d]);
    (parts.w_skip, parts.transcoder) = (Some(skip), true);
    let transcoder = Sae::on(Engine::Reference, parts).unwrap();
    let place = HookedSae::between(read, write, &transcoder).error_term(true);
    let found = direct_effects(model, &tokens, &place, &difference()).unwrap();

    let last = tokens.pos() - 1;
    let gradient = gradients(model, &tokens, &[read, write], |logits| {
        let pick = |id: u32| logits.narrow(1, last, 1)?.narrow(2, id as usize, 1)?.sum_all();
        Ok((((pick(4)? + pick(9)?)? * 0.5)? - pick(11)?)?)
    })
    .unwrap();
    let (x, g) = (gradient.value(read).unwrap(), gradient.gradient(write).unwrap());
    let along = |y: &candle_core::Tensor| f64::from(flat(&(y * g).unwrap()).iter().sum::<f32>());
    let skip = along(&transcoder.skip(x).unwrap().unwrap());
    // The error that the splice adds back: what decode and skip together miss.
    let mut splice =
        Splice::new(model).with(place).unwrap().capture([SaeHookPoint::new(write, SaeSite::Error)]).unwrap();
    model.forward(&tokens, &mut splice).unwrap();
    let error = along(&splice.captured().tensor(SaeHookPoint::new(write, SaeSite::Error)).unwrap());
    let size = found.rows.iter().map(|row| row.direct.abs()).sum::<f64>();
    assert!(skip.abs() > 1e-2 * size, "the skip connection must show: {skip} of {size}");
    assert!((found.skip - skip).abs() < 1e-4 * size, "{} {skip}", found.skip);
    assert!((found.error - error).abs() < 1e-4 * size, "{} {error}", found.error);
    let sum = found.rows.iter().map(|row| row.direct).sum::<f64>() + found.bias + found.skip + found.error;
    let total = along(gradient.value(write).unwrap());
    assert!((sum - total).abs() < 1e-4 * size, "{sum} {total}");
}

/// Exact effects are those of ablations in whole runs; the smaller the contribution, the nearer the direct effect comes.
#[test]
fn exact_effects_on_every_engine() {
    for name in ["gpt2", "llama"] {
        let reference = model_on(name, Engine::Reference);
        let tokens = one_row(reference.hooked());
        let full = normed(reference.hooked(), Normalization::None);
        let d = reference.hooked().shape().d_model;
        // Decoder rows a hundredth as long: the error term carries the rest, and each feature is a small step.
        let rng = &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(5);
        let (enc, dec) = (normal(rng, 0.2, &[d, 64]), normal(rng, 0.002, &[64, d]));
        let small = Sae::on(Engine::Reference, SaeParts::new(enc, vec![0.0; 64], dec, vec![0.0; d])).unwrap();
        let place = HookedSae::new(at(HOOK), &small);
        let mut found = direct_effects(reference.hooked(), &tokens, &place, &difference()).unwrap();
        let mut told = 0;
        found.measure(reference.hooked(), &place, 5, &mut |done| told = done).unwrap();
        assert_eq!((told, found.rows.iter().filter(|row| row.exact.is_some()).count()), (5, 5));
        for row in &found.rows[..5] {
            let exact = row.exact.unwrap();
            assert!((exact - row.direct).abs() < 0.05 * found.rows[0].direct.abs(), "{name}: {row:?}");
        }

        let place = HookedSae::new(at(HOOK), &full);
        let found = direct_effects(reference.hooked(), &tokens, &place, &difference()).unwrap();
        for engine in engines() {
            let model = model_on(name, engine);
            let model = model.hooked();
            let plain = model.forward(&tokens, &mut NoTap).unwrap();
            let size = flat(&plain).iter().map(|x| f64::from(x * x)).sum::<f64>() / plain.elem_count() as f64;
            let (mut measured, feature) = (found.clone(), found.rows[0].feature);
            measured.measure_features(model, &place, &[feature], &mut |_| {}).unwrap();
            for row in measured.rows.iter().filter(|row| row.feature == feature) {
                let edit = FeatureEdit::ablate([feature]).positions(row.pos..=row.pos);
                let with = HookedSae::new(at(HOOK), &full).error_term(true);
                let mut splice = Splice::new(model).with(with).unwrap().edit(at(HOOK), edit).unwrap();
                let change = metric(&plain) - metric(&model.forward(&tokens, &mut splice).unwrap());
                let apart = (row.exact.unwrap() - change).abs();
                assert!(apart < 4.0 * tolerance(engine) * size.sqrt(), "{name}, {engine}: {row:?} against {change}");
            }
            assert!(measured.rows.iter().all(|row| row.exact.is_some() == (row.feature == feature)));
        }
    }
}

#[test]
fn what_is_refused() {
    let model = model_on("gpt2", Engine::Reference);
    let (model, row) = (model.hooked(), one_row(model.hooked()));
    let sae = normed(model, Normalization::None);
    let place = HookedSae::new(at(HOOK), &sae);
    let refused =
        |tokens: &TokenBatch, metric: LogitDifference| refusal(direct_effects(model, tokens, &place, &metric));
    assert!(refused(&row, LogitDifference::new([], [1])).contains("`answer` is none"));
    assert!(refused(&row, LogitDifference::new([1], [])).contains("`wrong` is none"));
    assert!(refused(&row, LogitDifference::new([1], [1_000_000])).contains("vocabulary"));
    let outside = LogitDifference { position: Some(row.pos()), ..difference() };
    assert!(refused(&row, outside).contains("`position`"));
    assert!(refused(&tokens(model), difference()).contains("one prompt"));
    let mut found = direct_effects(model, &row, &place, &difference()).unwrap();
    let far = sae.d_sae() as u32;
    assert!(refusal(found.measure_features(model, &place, &[far], &mut |_| {})).contains("outside this SAE"));
    let kernels = model_on("gpt2", Engine::default());
    let refusal = refusal(direct_effects(kernels.hooked(), &row, &place, &difference()));
    assert!(refusal.contains("gradient"), "{refusal}");
}

/// Nothing is attributed where the original value passes by.
#[test]
fn excluded_tokens_have_no_effects() {
    let model = model_on("gpt2", Engine::Reference);
    let (model, row) = (model.hooked(), one_row(model.hooked()));
    let sae = normed(model, Normalization::None);
    let token = row.ids()[2];
    let all = direct_effects(model, &row, &HookedSae::new(at(HOOK), &sae), &difference()).unwrap();
    let without = HookedSae::new(at(HOOK), &sae).filter(&TokenFilter::everything().with_ids([token]), None).unwrap();
    let some = direct_effects(model, &row, &without, &difference()).unwrap();
    let kept: Vec<_> = all.rows.iter().filter(|row| row.token != token).cloned().collect();
    assert!(kept.len() < all.rows.len());
    assert_eq!(some.rows, kept);
}
