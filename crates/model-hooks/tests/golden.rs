//! The forward passes against TransformerLens 3.9 and transformers on small seeded models (`tests/golden/README.md`).

mod common;

use common::tolerances::{MODELS as BOUNDS, MODELS_RMS};
use common::{Golden, MODELS, assert_close, engines, error, folder, model_on, rms_error, tolerance};
use model_hooks::{Capture, Engine, HookPoint, NoTap, Processing, Site, next_token_loss, next_token_loss_per_token};
use std::collections::BTreeSet;

const TOLERANCE: f64 = BOUNDS.f32;

fn on_every_engine() -> impl Iterator<Item = (&'static str, Engine)> {
    engines().flat_map(|engine| MODELS.map(|name| (name, engine)))
}

/// Every hook point of TransformerLens, in its order, with its shape and values, in both numeric modes.
#[test]
fn every_point_equals_transformer_lens() {
    for (name, engine) in on_every_engine() {
        let golden = Golden::open(name);
        let tolerance = tolerance(engine, TOLERANCE);
        for (mode, processing) in [("raw", Processing::None), ("proc", Processing::TransformerLens)] {
            let model = model_on(name, processing, engine);
            let mut capture = Capture::all();
            let logits = model.hooked().forward(&golden.tokens(), &mut capture).unwrap();
            let (mut worst, mut rms) = ((0.0, HookPoint::Embed), 0.0);
            let fired: Vec<String> = capture.iter().map(|(point, _)| point.to_string()).collect();
            let mut expected = golden.order();
            expected.push("logits".into());
            assert_eq!(fired, expected, "{name} {mode}");
            let points = model.hooked().hook_points().iter();
            // TransformerLens fires these behind flags.
            let points = points.filter(|point| !point.site().is_some_and(Site::is_input_copy));
            let listed: Vec<String> = points.map(ToString::to_string).collect();
            assert_eq!(listed, expected, "{name} {mode}");
            for (point, value) in capture.iter().filter(|(point, _)| !golden.leaves_out(*point)) {
                let what = format!("{name} {mode} {point}, {engine}");
                let mut expected = golden.tensor(&format!("{mode}.{point}"));
                if matches!(point.site(), Some(Site::QNormNormalized | Site::KNormNormalized)) {
                    // A norm over all heads shows them side by side there, and one by one here.
                    expected = expected.reshape(value.dims()).unwrap();
                }
                let found = error(value, &expected);
                worst = if found > worst.0 { (found, point) } else { worst };
                assert_close(&what, value, &expected, tolerance);
                rms = rms_error(value, &expected).max(rms);
            }
            assert!(rms < MODELS_RMS, "{name} {mode}, {engine}: {rms}");
            println!(
                "{name} {mode}, {engine}: worst error {:.1e} of the rms, at {}; worst rms {rms:.1e}",
                worst.0, worst.1
            );
            assert_close(name, &logits, &golden.tensor(&format!("{mode}.logits")), tolerance);
        }
    }
}

#[test]
fn raw_weights_give_hugging_faces_numbers() {
    for (name, engine) in on_every_engine() {
        let (golden, model) = (Golden::open(name), model_on(name, Processing::None, engine));
        let tolerance = tolerance(engine, TOLERANCE);
        let mut capture = Capture::all();
        let logits = model.hooked().forward(&golden.tokens(), &mut capture).unwrap();
        for layer in 0..model.shape().n_layers as u16 {
            let pre = golden.tensor(&match layer {
                0 => "hf.resid_pre.0".into(),
                _ => format!("hf.resid_post.{}", layer - 1),
            });
            let at = |site| capture.get(HookPoint::Block { layer, site }).unwrap();
            assert_close("resid_pre", at(Site::ResidPre), &pre, tolerance);
            let post = golden.tensor(&format!("hf.resid_post.{layer}"));
            assert_close("resid_post", at(Site::ResidPost), &post, tolerance);
        }
        assert_close("logits", &logits, &golden.tensor("hf.logits"), tolerance);
        let loss = next_token_loss(&logits, &golden.tokens()).unwrap();
        let expected = f64::from(golden.tensor("hf.loss").to_vec1::<f32>().unwrap()[0]);
        assert!((loss - expected).abs() < tolerance / 10.0 * expected, "{name}: {loss} {expected}");
    }
}

/// A checkpoint with a nested configuration and a vision tower, whose global layer has stretched angles.
#[test]
fn the_text_model_of_a_gemma_3_that_sees() {
    let golden = Golden::open("gemma3_multimodal");
    for engine in engines() {
        let model = model_on("gemma3_multimodal", Processing::None, engine);
        let mut capture = Capture::all();
        let logits = model.hooked().forward(&golden.tokens(), &mut capture).unwrap();
        for (point, name) in [("hook_embed", "hf.resid_pre.0"), ("blocks.0.hook_resid_post", "hf.resid_post.0")] {
            let value = capture.get(point.parse().unwrap()).unwrap();
            assert_close(name, value, &golden.tensor(name), tolerance(engine, TOLERANCE));
        }
        assert_close("logits", &logits, &golden.tensor("hf.logits"), tolerance(engine, TOLERANCE));
    }
}

/// Processing leaves predictions alone, so both modes have the same losses.
#[test]
fn losses_per_token_equal_transformer_lens() {
    for (name, engine) in on_every_engine() {
        let golden = Golden::open(name);
        for (mode, processing) in [("raw", Processing::None), ("proc", Processing::TransformerLens)] {
            let logits = model_on(name, processing, engine).hooked().forward(&golden.tokens(), &mut NoTap).unwrap();
            let losses = next_token_loss_per_token(&logits, &golden.tokens()).unwrap();
            assert_close(name, &losses, &golden.tensor(&format!("{mode}.loss_per_token")), tolerance(engine, 1e-5));
        }
    }
}

/// The names in the golden files are all that TransformerLens has: nothing is missing from our families' lists.
#[test]
fn no_golden_point_is_unknown() {
    for name in MODELS {
        let names: BTreeSet<String> = Golden::open(name).order().into_iter().collect();
        for name in &names {
            assert_eq!(name.parse::<HookPoint>().unwrap().to_string(), *name);
        }
        assert!(folder(name).join("config.json").is_file());
    }
}
