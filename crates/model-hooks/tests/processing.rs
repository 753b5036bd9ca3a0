//! Each step of weight processing alone, and all of them in every combination: what they change, and what they must not.

mod common;

use candle_core::{D, Device, Tensor};
use common::{Golden, MODELS, Pieces, assert_close, assert_same_bits};
use model_hooks::{Capture, HookPoint, LanguageModel, NoTap, ProcessingSteps, Site};

fn steps(bits: u8) -> ProcessingSteps {
    let mut steps = ProcessingSteps::default();
    steps.fold_ln = bits & 1 != 0;
    steps.center_writing_weights = bits & 2 != 0;
    steps.center_unembed = bits & 4 != 0;
    steps.fold_value_biases = bits & 8 != 0;
    steps
}

/// The golden models, and a Llama with biases everywhere, so that grouped value biases are folded too.
fn pieces() -> Vec<(&'static str, Pieces)> {
    let mut all: Vec<_> = MODELS.into_iter().map(|name| (name, Pieces::of(name))).collect();
    all.push(("llama", with_biases()));
    all
}

fn with_biases() -> Pieces {
    let mut pieces = Pieces::of("llama").with("attention_bias", true).with("mlp_bias", true);
    for (name, x) in pieces.tensors.clone() {
        if name.ends_with("_proj.weight") {
            let bias = Tensor::randn(0f32, 0.5f32, x.dims()[0], &Device::Cpu).unwrap();
            pieces = pieces.plus(&name.replace(".weight", ".bias"), bias);
        }
    }
    pieces
}

fn log_probs(model: &LanguageModel, name: &str) -> Tensor {
    let logits = model.hooked().forward(&Golden::open(name).tokens(), &mut NoTap).unwrap();
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1).unwrap()).unwrap();
    let total = shifted.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap();
    shifted.broadcast_sub(&total).unwrap()
}

fn captured(model: &LanguageModel, name: &str, site: Site) -> Tensor {
    let point = HookPoint::Block { layer: 1, site };
    let mut capture = Capture::new([point]);
    model.hooked().forward_until(&Golden::open(name).tokens(), point, &mut capture).unwrap();
    capture.take(point).unwrap()
}

#[test]
fn no_combination_changes_the_predictions() {
    for (name, pieces) in pieces() {
        let plain = log_probs(&pieces.load(steps(0)).unwrap(), name);
        for bits in 1..16 {
            let processed = log_probs(&pieces.load(steps(bits)).unwrap(), name);
            assert_close(&format!("{name} {:?}", steps(bits)), &processed, &plain, 3e-5);
        }
    }
}

#[test]
fn centering_writing_weights_removes_the_mean_of_the_stream() {
    for (name, pieces) in pieces() {
        let (plain, centered) = (pieces.load(steps(0)).unwrap(), pieces.load(steps(2)).unwrap());
        for site in [Site::ResidPre, Site::AttnOut, Site::MlpOut, Site::ResidPost] {
            let (plain, centered) = (captured(&plain, name, site), captured(&centered, name, site));
            if pieces.config.get("rms_norm_eps").is_none() {
                let mean = plain.mean_keepdim(D::Minus1).unwrap();
                assert_close(name, &centered, &plain.broadcast_sub(&mean).unwrap(), 1e-5);
            } else {
                assert_same_bits("RMS models are left alone", &centered, &plain);
            }
        }
    }
}

#[test]
fn centering_the_unembedding_centers_logits_over_the_vocabulary() {
    for (name, pieces) in pieces() {
        let tokens = Golden::open(name).tokens();
        let logits = |bits| pieces.load(steps(bits)).unwrap().hooked().forward(&tokens, &mut NoTap).unwrap();
        let plain = logits(0);
        if pieces.config["final_logit_softcapping"].is_number() {
            assert_same_bits("a soft-cap does not let constants through", &logits(4), &plain);
            continue;
        }
        let mean = plain.mean_keepdim(D::Minus1).unwrap();
        assert_close(name, &logits(4), &plain.broadcast_sub(&mean).unwrap(), 1e-5);
    }
}

#[test]
fn folding_value_biases_moves_them_past_the_pattern() {
    for (name, pieces) in pieces() {
        let (plain, folded) = (pieces.load(steps(0)).unwrap(), pieces.load(steps(8)).unwrap());
        let out = |model: &_| captured(model, name, Site::AttnOut);
        assert_close(name, &out(&folded), &out(&plain), 1e-5);
        // v without its bias: the difference is the same at every position.
        let difference = (captured(&plain, name, Site::V) - captured(&folded, name, Site::V)).unwrap();
        let first = difference.narrow(1, 0, 1).unwrap().broadcast_as(difference.shape()).unwrap();
        let spread = (difference - &first).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(spread < 1e-4, "{name}: {spread}");
    }
}

/// TransformerLens folds none of OLMo 2's norms, the final one included.
#[test]
fn norms_behind_what_they_normalize_are_not_folded() {
    let tokens = Golden::open("olmo2").tokens();
    let points = |bits| {
        let mut all = Capture::all();
        Pieces::of("olmo2").load(steps(bits)).unwrap().hooked().forward(&tokens, &mut all).unwrap();
        all
    };
    let (plain, folded) = (points(0), points(1));
    plain.iter().for_each(|(point, x)| assert_same_bits("olmo2", folded.get(point).unwrap(), x));
}

#[test]
fn folding_norms_keeps_queries_and_activations() {
    for (name, pieces) in pieces() {
        let (plain, folded) = (pieces.load(steps(0)).unwrap(), pieces.load(steps(1)).unwrap());
        let has = |site: &Site| plain.hooked().hook_points().contains(&HookPoint::Block { layer: 1, site: *site });
        let sites = [Site::Ln1Normalized, Site::Q, Site::K, Site::V, Site::MlpPre, Site::MlpPost, Site::ResidPost];
        for site in sites.into_iter().filter(has) {
            assert_close(name, &captured(&folded, name, site), &captured(&plain, name, site), 3e-5);
        }
    }
}
