//! The parts of the residual stream add up, in every family; TransformerLens' `ActivationCache` has the same parts.

mod common;

use candle_core::{Device, IndexOp, Tensor};
use common::{Golden, MODELS, assert_close, engines, folder, model, model_on, tolerance, values};
use model_hooks::{
    ActivationCache, Capture, Edit, Error, HookPoint, LanguageModel, NormSite, Processing, ResidualStack, Site,
    TokenBatch,
};
use tensor_files::SafetensorsFile;

fn each(check: impl Fn(&str, &LanguageModel, &TokenBatch, f64)) {
    for engine in engines() {
        for name in MODELS {
            for processing in [Processing::None, Processing::TransformerLens] {
                let what = format!("{name}, {processing:?}, {engine}");
                let model = model_on(name, processing, engine);
                check(&what, &model, &Golden::open(name).tokens(), tolerance(engine, 1e-4));
            }
        }
    }
}

#[test]
fn parts_add_up_to_the_stream() {
    each(|name, model, tokens, tolerance| {
        let (cache, _) = ActivationCache::run(model.hooked(), tokens, None).unwrap();
        let n_layers = model.shape().n_layers;
        let accumulated = cache.accumulated_resid(None, false).unwrap();
        assert_eq!(accumulated.labels().len(), n_layers + 1);
        for up_to in 1..=n_layers {
            let stream = accumulated.components().get(up_to).unwrap();
            let parts = cache.decompose_resid(Some(up_to)).unwrap();
            assert_close(&format!("{name}: parts up to {up_to}"), &parts.sum().unwrap(), &stream, tolerance);
            let full = cache.full_decomposition(Some(up_to)).unwrap();
            assert_close(&format!("{name}: heads up to {up_to}"), &full.sum().unwrap(), &stream, tolerance);
            let heads = cache.stack_head_results(Some(up_to)).unwrap();
            assert_eq!(heads.labels().len(), up_to * model.shape().n_heads);
            // What is beside the heads is a bias: the same in every token.
            let bias = full.get("bias").unwrap().unwrap();
            let first = bias.i((0..1, 0..1)).unwrap().broadcast_as(bias.shape()).unwrap();
            let worst = values(&(&bias - first).unwrap()).into_iter().fold(0f32, |a, b| a.max(b.abs()));
            let rms = values(&stream).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / stream.elem_count() as f64;
            assert!(f64::from(worst) < tolerance * rms.sqrt(), "{name}: the bias differs by {worst}");
        }
        let incl_mid = cache.accumulated_resid(Some(2), true).unwrap();
        let has_mid = model.hooked().hook_points().contains(&HookPoint::Block { layer: 0, site: Site::ResidMid });
        let expected: &[&str] =
            if has_mid { &["0_pre", "0_mid", "1_pre", "1_mid", "2_pre"] } else { &["0_pre", "1_pre", "2_pre"] };
        assert_eq!(incl_mid.labels(), expected);
    });
}

/// With norms after attention, each head's part is `result / scale * gain` with the gain of the weights, also where an edit has changed what
/// attention's output shows of it.
#[test]
fn heads_behind_a_norm_have_its_gain_whatever_is_edited() {
    for (name, plus) in [("gemma2", 1.0), ("gemma3", 1.0), ("olmo2", 0.0)] {
        for engine in engines() {
            let (model, tokens) = (model_on(name, Processing::None, engine), Golden::open(name).tokens());
            let point = |site| HookPoint::Block { layer: 0, site };
            let points = model.hooked().hook_points().iter().copied();
            let mut taps = (
                (Edit::zero(point(Site::AttnOut)).positions(3..), Edit::zero(point(Site::Ln1PostNormalized)).rows(0)),
                Capture::new(points.filter(|point| point.layer().is_none_or(|layer| layer == 0))),
            );
            model.hooked().forward(&tokens, &mut taps).unwrap();
            let [result, scale] =
                [Site::Result, Site::Ln1PostScale].map(|site| taps.1.get(point(site)).unwrap().clone());
            let heads = ActivationCache::new(model.hooked(), taps.1).stack_head_results(Some(1)).unwrap();
            let gain = SafetensorsFile::open(folder(name).join("model.safetensors")).unwrap();
            let prefix = if gain.contains("model.layers.0.post_attention_layernorm.weight") {
                "model"
            } else {
                "model.language_model"
            };
            let gain =
                (gain.load(&format!("{prefix}.layers.0.post_attention_layernorm.weight")).unwrap() + plus).unwrap();
            let expected = result.broadcast_div(&scale.unsqueeze(2).unwrap()).unwrap().broadcast_mul(&gain).unwrap();
            let expected = expected.permute((2, 0, 1, 3)).unwrap().contiguous().unwrap();
            let tolerance = tolerance(engine, 1e-5);
            assert_close(&format!("{name}, {engine}"), heads.components(), &expected, tolerance);
        }
    }
}

/// Contributions and biases are the logit, before a soft-cap.
#[test]
fn contributions_add_up_to_the_logits() {
    each(|name, model, tokens, tolerance| {
        let last = tokens.pos() - 1;
        let (cache, logits) = ActivationCache::run(model.hooked(), tokens, Some(last..last + 1)).unwrap();
        let logits = logits.narrow(1, last, 1).unwrap();
        let uncapped = |x: Tensor| match name.split(',').next() {
            // c artanh(x / c) with Gemma 2's cap of 30.
            Some("gemma2") => {
                let x = (x / 30.0).unwrap();
                let of = values(&x).into_iter().map(|x| 30.0 * x.atanh()).collect::<Vec<_>>();
                Tensor::from_vec(of, x.dims(), &Device::Cpu).unwrap()
            }
            _ => x,
        };
        let logits = uncapped(logits);
        let scale = values(&logits).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / logits.elem_count() as f64;
        for parts in [cache.full_decomposition(None).unwrap(), cache.decompose_resid(None).unwrap()] {
            for (token, against) in [(11u32, None), (11, Some(7u32))] {
                let against = against.map(|token| [token]);
                let against = against.as_ref().map(|tokens| &tokens[..]);
                let attrs = cache.logit_attrs(&parts, &[token], against).unwrap();
                assert_eq!(attrs.dims(), [parts.labels().len(), tokens.batch(), 1]);
                let bias = cache.logit_bias(&[token], against).unwrap();
                let found = values(&attrs.sum(0).unwrap().squeeze(1).unwrap().add(&bias).unwrap());
                let column = |token: u32| values(&logits.i((.., 0, token as usize)).unwrap());
                for (row, found) in found.into_iter().enumerate() {
                    let expected = column(token)[row] - against.map_or(0.0, |tokens| column(tokens[0])[row]);
                    let error = f64::from((found - expected).abs()) / scale.sqrt();
                    assert!(error < tolerance, "{name}: {found} for {expected}");
                }
            }
        }
    });
}

#[test]
fn transformer_lens_has_the_same_parts() {
    let file = SafetensorsFile::open(folder("cache").join("gpt2.safetensors")).unwrap();
    let meta = std::fs::read(folder("cache").join("gpt2.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    let golden = |name: &str| file.load(name).unwrap().unsqueeze(2).unwrap();
    let tokens = Golden::open("gpt2").tokens();
    for engine in engines() {
        let model = model_on("gpt2", Processing::TransformerLens, engine);
        let (cache, _) = ActivationCache::run(model.hooked(), &tokens, Some(23..24)).unwrap();
        let (full, tolerance) = (cache.full_decomposition(None).unwrap(), tolerance(engine, 1e-4));
        assert_eq!(serde_json::to_value(full.labels()).unwrap(), meta["labels"]);
        let close = |what: &str, found: &Tensor| {
            assert_close(&format!("{what} on {engine}"), found, &golden(what), tolerance);
        };
        close("full", full.components());
        close("heads", cache.stack_head_results(None).unwrap().components());
        close("normed", cache.apply_final_norm(&full).unwrap().components());
        close("attrs", &cache.logit_attrs(&full, &[11], Some(&[7])).unwrap());
        // One token for each row.
        let [first, second] = [[11, 3], [7, 5]];
        let by_row = cache.logit_attrs(&full, &first, Some(&second)).unwrap();
        let other = cache.logit_attrs(&full, &[3], Some(&[5])).unwrap();
        assert_close("row 0", &by_row.narrow(1, 0, 1).unwrap(), &golden("attrs").narrow(1, 0, 1).unwrap(), tolerance);
        assert_close("row 1", &by_row.narrow(1, 1, 1).unwrap(), &other.narrow(1, 1, 1).unwrap(), 1e-6);
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_an_error() {
    let (model, tokens) = (model("gpt2", Processing::None), Golden::open("gpt2").tokens());
    let (cache, _) = ActivationCache::run(model.hooked(), &tokens, Some(3..5)).unwrap();
    assert!(matches!(cache.decompose_resid(Some(4)), Err(Error::OutOfRange { found: 4, limit: 4, .. })));
    assert!(cache.stack_head_results(Some(0)).is_err());
    assert_eq!(cache.full_decomposition(Some(0)).unwrap().labels(), ["embed", "pos_embed"]);
    let parts = cache.decompose_resid(None).unwrap();
    assert!(matches!(cache.logit_attrs(&parts, &[384], None), Err(Error::OutOfRange { .. })));
    assert!(matches!(cache.logit_attrs(&parts, &[1, 2, 3], None), Err(Error::Shape { .. })));
    let (elsewhere, _) = ActivationCache::run(model.hooked(), &tokens, None).unwrap();
    assert!(matches!(elsewhere.apply_final_norm(&parts), Err(Error::Shape { .. })));
    let bare = ActivationCache::new(model.hooked(), Capture::all());
    assert!(matches!(bare.accumulated_resid(None, false), Err(Error::NotCaptured { .. })));
    assert!(bare.get(HookPoint::FinalNorm(NormSite::Scale)).is_err());
    assert!(ActivationCache::run(model.hooked(), &tokens, Some(23..25)).is_err());
    let two = parts.components().narrow(0, 0, 2).unwrap();
    assert!(ResidualStack::new(vec!["one".into()], two.clone()).is_err());
    assert_eq!(ResidualStack::new(vec!["a".into(), "b".into()], two).unwrap().labels(), ["a", "b"]);
}
