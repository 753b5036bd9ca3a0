//! What a splice refuses, and that it does so before anything runs.

use super::support::*;
use candle_core::{Tensor, Var};
use model_hooks::{Engine, ForwardPass, HookPoint, Start, TokenBatch};
use sae_core::{SaeMetadata, SparseFeatures};
use sae_hooks::{FeatureEdit, HookedSae, SaeHookPoint, SaeSite, Splice};

fn contains(message: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn what_does_not_fit_is_refused_while_building() {
    let model = model_on("gpt2", Engine::Reference);
    let model = model.hooked();
    let (d_model, shape) = (model.shape().d_model, model.shape());
    let new = |hook: &str, width| Splice::new(model).sae(at(hook), Identity(width));
    contains(
        &refusal(new("blocks.9.hook_resid_pre", d_model)),
        &["no hook point `blocks.9.hook_resid_pre`", "nearest"],
    );
    contains(&refusal(new("blocks.0.attn.hook_rot_q", d_model)), &["blocks.0.attn.hook_rot_q", "nearest"]);
    contains(&refusal(new("blocks.0.hook_resid_pre", d_model + 1)), &["d_in is 65", "hook_resid_pre", "width 64"]);
    contains(&refusal(new("blocks.0.mlp.hook_post", d_model)), &["d_in is 64", &format!("width {}", shape.d_mlp)]);
    contains(&refusal(new("blocks.0.attn.hook_z", shape.d_head)), &["HookedSae::head"]);
    contains(&refusal(new("blocks.0.attn.hook_pattern", d_model)), &["hook_pattern", "not vectors"]);
    let twice = new("blocks.0.hook_mlp_out", d_model).unwrap();
    contains(
        &refusal(twice.sae(at("blocks.0.hook_mlp_out"), Identity(d_model))),
        &["two SAEs", "blocks.0.hook_mlp_out"],
    );
    let between = |input: &str, output: &str, coder: Plain| {
        Splice::new(model).with(HookedSae::between(at(input), at(output), coder))
    };
    let back = between("blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out", Plain::new(1, d_model, 8, d_model));
    contains(&refusal(back), &["comes before the input hook `blocks.1.hook_resid_pre`"]);
    let narrow = between("blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", Plain::new(1, d_model, 8, 7));
    contains(&refusal(narrow), &["d_out is 7", "hook_mlp_out", "width 64"]);
    let head =
        |head| Splice::new(model).with(HookedSae::new(at("blocks.0.attn.hook_z"), Identity(shape.d_head)).head(head));
    contains(&refusal(head(shape.n_heads)), &["no head", &format!("it has {}", shape.n_heads)]);
    let headless = HookedSae::new(at("blocks.0.hook_mlp_out"), Identity(d_model)).head(0);
    contains(&refusal(Splice::new(model).with(headless)), &["no head 0", "it has 0"]);
}

#[test]
fn edits_and_captures_of_what_is_not_there_are_refused_while_building() {
    let model = model_on("gpt2", Engine::Reference);
    let (hook, other) = (at("blocks.0.hook_mlp_out"), at("blocks.1.hook_mlp_out"));
    let splice = || Splice::new(model.hooked()).sae(hook, Identity(64)).unwrap();
    contains(
        &refusal(splice().edit(other, FeatureEdit::ablate([1]))),
        &["no SAE writes `blocks.1.hook_mlp_out`", "write: blocks.0.hook_mlp_out"],
    );
    contains(&refusal(Splice::new(model.hooked()).edit_codes(hook, |_, codes| Ok(codes))), &["SAEs write: nothing"]);
    contains(&refusal(splice().edit(hook, FeatureEdit::ablate([3, 64, 5]))), &["feature 64", "0..64"]);
    contains(&refusal(splice().edit(hook, FeatureEdit::clamp([1], f32::NAN))), &["NaN", "finite"]);
    contains(&refusal(splice().capture([SaeHookPoint::new(other, SaeSite::Input)])), &["no SAE writes"]);
    let error = SaeHookPoint::new(hook, SaeSite::Error);
    contains(&refusal(splice().capture([error])), &["blocks.0.hook_mlp_out.hook_sae_error", "without its error term"]);
    contains(&refusal(splice().edit_tensor(error, |_, x| Ok(x))), &["without its error term"]);
    assert!(!splice().sae_points().contains(&error));
    let post = SaeHookPoint::new(hook, SaeSite::ActsPost);
    contains(&refusal(splice().edit_tensor(post, |_, x| Ok(x))), &["edit_codes"]);
    contains(&refusal(splice().edit_tensor(SaeHookPoint::new(hook, SaeSite::ActsPre), |_, x| Ok(x))), &["captured"]);
    contains(&refusal(splice().captured().codes(hook)), &["hook_sae_acts_post", "held: nothing"]);
}

/// The reason behind the model's "tap at ..".
fn reason(error: &model_hooks::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[test]
fn edits_keep_the_shape() {
    let model = model_on("gpt2", Engine::Reference);
    let (hook, tokens) = (at("blocks.0.hook_mlp_out"), tokens(model.hooked()));
    let splice = || Splice::new(model.hooked()).sae(hook, Identity(64)).unwrap();
    let run = |mut splice: Splice<'_>| reason(&model.hooked().forward(&tokens, &mut splice).unwrap_err());
    let point = SaeHookPoint::new(hook, SaeSite::Recons);
    let message = run(splice().edit_tensor(point, |_, x| Ok(x.narrow(1, 0, 1)?)).unwrap());
    contains(&message, &["blocks.0.hook_mlp_out.hook_sae_recons", "[2, 1, 64]", "expected [2, 10, 64]"]);
    let message = run(splice()
        .edit_codes(hook, |_, mut codes| {
            codes.features = SparseFeatures::empty(64);
            Ok(codes)
        })
        .unwrap());
    contains(&message, &["hook_sae_acts_post"]);
    let message = run(splice().capture([SaeHookPoint::new(hook, SaeSite::ActsPre)]).unwrap());
    contains(&message, &["does not show its pre-activations"]);
}

/// A model's run that passes the points given, whether or not it has more.
fn pass(
    points: &[HookPoint],
    fired: &[HookPoint],
    splice: &mut Splice<'_>,
    tokens: &TokenBatch,
) -> model_hooks::Result<()> {
    let x = Tensor::ones((tokens.batch(), tokens.pos(), 64), candle_core::DType::F32, &candle_core::Device::Cpu)?;
    let end = ForwardPass::plan(points, tokens, None, None, splice)?.through(|at| {
        fired.iter().try_for_each(|point| at.tap(*point, x.clone()).map(drop))?;
        Ok(x.clone())
    });
    end.map(drop)
}

#[test]
fn a_transcoders_input_does_not_outlive_its_run() {
    let model = model_on("gpt2", Engine::Reference);
    let (input, output, tokens) = (at("blocks.0.hook_resid_mid"), at("blocks.0.hook_mlp_out"), tokens(model.hooked()));
    let points = [input, output];
    let mut splice = Splice::new(model.hooked()).with(HookedSae::between(input, output, Identity(64))).unwrap();
    pass(&points, &[input, output], &mut splice, &tokens).unwrap();
    // A model that breaks its word about its hook points.
    let message = reason(&pass(&points, &[output], &mut splice, &tokens).unwrap_err());
    contains(&message, &["has not seen its input `blocks.0.hook_resid_mid`"]);
    // With an SAE before it, a run that was broken off leaves nothing to the next.
    let early = at("blocks.0.hook_resid_pre");
    let points = [early, input, output];
    let mut splice = splice.sae(early, Identity(64)).unwrap();
    pass(&points, &[early, input], &mut splice, &tokens).unwrap();
    let message = reason(&pass(&points, &[early, output], &mut splice, &tokens).unwrap_err());
    contains(&message, &["has not seen its input"]);
    // A run that ends between the two hooks would never write.
    let error = model.hooked().forward_until(&tokens, input, &mut splice).unwrap_err();
    assert!(matches!(error, model_hooks::Error::PointAfterLast { .. }), "{error}");
}

#[test]
fn gradients_are_not_cut_in_silence() {
    let model = model_on("gpt2", Engine::Reference);
    let tokens = tokens(model.hooked());
    let resid = Var::from_tensor(&value(model.hooked(), &tokens, at("blocks.1.hook_resid_pre"))).unwrap();
    let start = Start::Residual { layer: 1, resid: resid.as_tensor() };
    let mut splice = Splice::new(model.hooked()).sae(at("blocks.1.hook_mlp_out"), Identity(64)).unwrap();
    let message = reason(&model.hooked().run(&tokens, start, None, &mut splice).unwrap_err());
    contains(&message, &["gradients", "blocks.1.hook_mlp_out"]);
}

#[test]
fn an_sae_finds_its_home_in_its_metadata() {
    let model = model_on("gpt2", Engine::Reference);
    let home = |metadata: SaeMetadata| {
        let sae = sae(Engine::Reference, 1, 64, 32).with_metadata(metadata);
        HookedSae::from_metadata(&sae).map(|at| format!("{at:?}"))
    };
    let named = || SaeMetadata { hook_name: Some("blocks.1.hook_mlp_out".into()), ..SaeMetadata::default() };
    contains(&home(named()).unwrap(), &["input: blocks.1.hook_mlp_out", "output: blocks.1.hook_mlp_out", "head: None"]);
    let mut transcoder = named();
    transcoder.hook_name_out = Some("blocks.1.hook_resid_post".into());
    contains(&home(transcoder).unwrap(), &["input: blocks.1.hook_mlp_out", "output: blocks.1.hook_resid_post"]);
    let mut bad = named();
    bad.hook_name_out = Some("blocks.1.hook_resid_pots".into());
    contains(&refusal(home(bad)), &["blocks.1.hook_resid_pots", "blocks.1.hook_resid_post"]);
    contains(&refusal(home(SaeMetadata::default())), &["hook_name"]);
    assert!(model.hooked().hook_points().contains(&at("blocks.1.hook_mlp_out")));
}
