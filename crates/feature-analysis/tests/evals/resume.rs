//! Runs that go on from the hook are whole runs.

use crate::laws::{DEMO, root, rows};
use crate::toy::{at, batch, plain};
use activation_store::{HookRows, HookSelector, TokenFilter, TokenRow};
use candle_core::{Device, Tensor};
use feature_analysis::evals::EvalOptions;
use model_hooks::{
    Capture, Edit, HookPoint, LanguageModel, LoadOptions, NoTap, Predictions, Processing, Tap, TapContext, edit_at,
    load,
};
use sae_core::{Activation, Sae, SaeParts, SparseCoder};
use sae_hooks::{CoderHooks, HookedSae, Splice};

/// A random TopK SAE for a hook point.
fn random(hook: HookRows) -> Sae {
    let (width, d_sae) = (hook.width(), 64);
    let number = |i: usize| (i as f32 * 0.7 + width as f32).sin() / (width as f32).sqrt();
    let w_dec = Tensor::from_vec((0..d_sae * width).map(number).collect(), (d_sae, width), &Device::Cpu).unwrap();
    let mut parts = SaeParts::new(w_dec.t().unwrap().contiguous().unwrap(), vec![0.1; d_sae], w_dec, vec![0.05; width]);
    parts.activation = Activation::TopK { k: 7, rescale_by_decoder_norm: false };
    Sae::new(parts).unwrap()
}

/// The means over counted tokens, of a whole forward pass with an edit: losses masked by the predicting token, divergences.
fn whole_pass(model: &LanguageModel, rows: &[TokenRow], excluded: &[u32], tap: &mut dyn Tap) -> [f64; 2] {
    let tokens = batch(rows);
    let plain = Predictions::new(model.hooked().forward(&tokens, &mut NoTap).unwrap()).unwrap();
    let run = Predictions::new(model.hooked().forward(&tokens, tap).unwrap()).unwrap();
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
        resumes(&DEMO, name, head, &rows, bos);
    }
}

/// The same in every family, on rows longer than the windows of those that have one.
#[test]
fn runs_from_the_hook_are_whole_runs_in_every_family() {
    const FAMILIES: [&str; 14] = [
        "gpt2",
        "gpt_neo",
        "gptj",
        "llama",
        "neox_parallel",
        "neox_serial",
        "gemma1",
        "gemma2",
        "gemma3",
        "mistral_sliding",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
    ];
    for family in FAMILIES {
        let folder = root("crates/model-hooks/tests/golden").join(family);
        let model = load(&folder, &LoadOptions::new(Processing::None)).unwrap();
        let vocab = model.shape().d_vocab as u32;
        let tokens = |row: u32| (0..22).map(|i| (3 + i * (row + 5)) % vocab).collect::<Vec<_>>();
        let rows: Vec<_> = (0..2).map(|row| crate::toy::row_of(row.into(), row.into(), &tokens(row))).collect();
        for (name, head) in [
            ("blocks.1.hook_resid_pre", None),
            ("blocks.1.attn.hook_z", Some(1)),
            ("blocks.0.hook_mlp_out", None),
            ("blocks.0.hook_resid_post", None),
        ] {
            resumes(&model, name, head, &rows, 3);
        }
    }
}

fn resumes(model: &LanguageModel, name: &str, head: Option<usize>, rows: &[TokenRow], excluded: u32) {
    let hook = HookRows::resolve(HookSelector { point: name.parse().unwrap(), head }, model.shape()).unwrap();
    let sae = random(hook);
    let options = EvalOptions { filter: TokenFilter::everything().with_ids([excluded]), ..plain() };
    let found = at(model, &sae, CoderHooks::sae(hook.selector()), rows, &options).unwrap();
    let check = |keys: [&str; 2], right: [f64; 2]| {
        for (key, right) in keys.into_iter().zip(right) {
            let value = found.value(key).unwrap();
            let near = (value - right).abs() <= 1e-12 * right.abs();
            assert!(near, "{} {name} {head:?} {key}: {value} {right}", model.name());
        }
    };
    let plain_loss = whole_pass(model, rows, &[excluded], &mut NoTap)[0];
    assert!((found.value("ce_loss_without_sae").unwrap() - plain_loss).abs() < 1e-12);
    let mut splice =
        HookedSae::new(hook.point(), &sae).filter(&TokenFilter::everything().with_ids([excluded]), None).unwrap();
    if let Some(head) = head {
        splice = splice.head(head);
    }
    let mut with_sae = Splice::new(model.hooked()).with(splice).unwrap();
    check(["ce_loss_with_sae", "kl_div_with_sae"], whole_pass(model, rows, &[excluded], &mut with_sae));
    let zero = Edit::zero(hook.point());
    let mut with_zeros = head.map_or(zero.clone(), |head| zero.head(head));
    check(["ce_loss_with_ablation", "kl_div_with_ablation"], whole_pass(model, rows, &[excluded], &mut with_zeros));
}

#[test]
fn spared_tokens_keep_their_activation_under_ablation() {
    let bos = DEMO.tokenizer().unwrap().bos().unwrap();
    let (rows, point) = (rows(), "blocks.1.hook_resid_pre".parse::<HookPoint>().unwrap());
    let sae = random(HookRows::resolve(point, DEMO.shape()).unwrap());
    let found = |spare_excluded| {
        let options = EvalOptions { filter: TokenFilter::everything().with_ids([bos]), spare_excluded, ..plain() };
        at(&DEMO, &sae, CoderHooks::sae(point), &rows, &options).unwrap()
    };
    let spare = |_: &TapContext<'_>, x: Tensor| Ok(spared(&rows, bos, &x));
    let right = whole_pass(&DEMO, &rows, &[bos], &mut edit_at(point, spare));
    let (spared, all) = (found(true), found(false));
    assert!((spared.value("ce_loss_with_ablation").unwrap() - right[0]).abs() < 1e-12);
    assert!((all.value("ce_loss_with_ablation").unwrap() - right[0]).abs() > 1e-3, "BOS matters");
    assert_eq!(spared.value("ce_loss_with_sae").unwrap(), all.value("ce_loss_with_sae").unwrap());
}

#[test]
fn a_transcoder_reads_at_one_place_and_is_measured_at_the_other() {
    let (input, output): (HookPoint, HookPoint) =
        ("blocks.2.ln2.hook_normalized".parse().unwrap(), "blocks.2.hook_mlp_out".parse().unwrap());
    let coder = random(HookRows::resolve(input, DEMO.shape()).unwrap());
    let rows = rows();
    let found = at(&DEMO, &coder, CoderHooks::transcoder(input, output), &rows, &plain()).unwrap();
    let mut capture = Capture::new([input, output]);
    DEMO.hooked().forward(&batch(&rows), &mut capture).unwrap();
    let x_hat = coder.forward(capture.get(input).unwrap()).unwrap().x_hat;
    let error = (capture.get(output).unwrap() - &x_hat).unwrap().sqr().unwrap().sum(2).unwrap().flatten_all().unwrap();
    let mse = error.to_vec1::<f32>().unwrap().iter().map(|e| f64::from(*e)).sum::<f64>() / error.elem_count() as f64;
    assert!((found.value("mse").unwrap() - mse).abs() < 1e-5 * mse);
    let right = whole_pass(&DEMO, &rows, &[], &mut Edit::patch(output, x_hat));
    assert!((found.value("ce_loss_with_sae").unwrap() - right[0]).abs() < 1e-12);
    assert!((found.value("kl_div_with_sae").unwrap() - right[1]).abs() < 1e-12);
}
