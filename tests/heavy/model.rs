//! Hooks, logits, losses and processed weights.

use crate::support::{Golden, close, floats, parse, within};
use crate::{golden, json, load_model};
use candle_core::{Device, IndexOp, Tensor};
use model_hooks::{
    Capture, HookPoint, LanguageModel, Processing, TokenBatch, next_token_loss, next_token_loss_per_token,
};

/// Of the output's rms, after twelve layers.
const TOLERANCE: f64 = 1e-4;

#[test]
#[ignore = "needs SAESCOPE_GPT2_RANDOM and SAESCOPE_GOLDENS"]
fn raw_weights_give_the_hooks_logits_and_losses_of_transformer_lens() {
    outputs_agree(Processing::None, "no_processing.safetensors");
}

#[test]
#[ignore = "needs SAESCOPE_GPT2_RANDOM and SAESCOPE_GOLDENS"]
fn processed_weights_give_the_hooks_logits_and_losses_of_transformer_lens() {
    outputs_agree(Processing::TransformerLens, "processed.safetensors");
}

fn outputs_agree(processing: Processing, file: &str) {
    let (model, golden, meta) = (load_model(processing), golden(file), json("meta.json"));
    let tokens = golden.tokens("tokens");
    let names: Vec<String> = parse(&meta["hooks"]);
    let points: Vec<HookPoint> = names.iter().map(|name| name.parse().expect("a TransformerLens name")).collect();
    let mut capture = Capture::new(points.iter().copied());
    let logits = model.hooked().forward(&tokens, &mut capture).expect("the forward runs");
    for (name, &point) in names.iter().zip(&points) {
        let ours = capture.get(point).expect("captured");
        assert_eq!(ours.dims(), golden.tensor(name).dims(), "shape of {name}");
        within(&format!("{file} {name}"), &floats(ours), &golden.floats(name), TOLERANCE);
    }
    logits_agree(&logits, &golden, &meta["logit_positions"], file);
    let loss = next_token_loss_per_token(&logits, &tokens).expect("a loss");
    within(&format!("{file} loss per token"), &floats(&loss), &golden.floats("loss_per_token"), TOLERANCE);
    let mean = next_token_loss(&logits, &tokens).expect("a loss");
    close(&format!("{file} loss"), mean, f64::from(golden.floats("loss")[0]), 1e-6);
}

fn logits_agree(logits: &Tensor, golden: &Golden, positions: &serde_json::Value, file: &str) {
    let positions: Vec<u32> = parse(positions);
    let index = Tensor::new(positions, &Device::Cpu).expect("an index");
    let at = logits.index_select(&index, 1).expect("these positions");
    within(&format!("{file} logits"), &floats(&at), &golden.floats("logits_at_positions"), TOLERANCE);

    let (ids, values) = (golden.ints("top20_ids"), golden.floats("top20_values"));
    let (_, pos, _) = logits.dims3().expect("[batch, pos, d_vocab]");
    let rms = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
    for (row, (ids, values)) in ids.chunks(20).zip(values.chunks(20)).enumerate() {
        let ours = floats(&logits.i((row / pos, row % pos)).expect("one position"));
        let mut order: Vec<usize> = (0..ours.len()).collect();
        order.sort_by(|&a, &b| ours[b].total_cmp(&ours[a]));
        for (rank, (&id, &value)) in ids.iter().zip(values).enumerate() {
            let mine = ours[order[rank]];
            assert!((mine - value).abs() <= 1e-4 * rms, "row {row} rank {rank}: {mine} and {value}");
            // Two tokens may change places only where their logits are as near as the tolerance.
            assert!((ours[id as usize] - value).abs() <= 1e-4 * rms, "row {row}: token {id} fell from rank {rank}");
        }
    }
    println!("| {file} top 20 of {} positions | equal | ties within 1e-4 |", ids.len() / 20);
}

#[test]
#[ignore = "needs SAESCOPE_GPT2_RANDOM and SAESCOPE_GOLDENS"]
fn the_processed_weights_have_the_sums_of_transformer_lens() {
    let (model, stats) = (load_model(Processing::TransformerLens), json("processed_weights_stats.json"));
    let check = |name: &str, ours: &[f32]| {
        let of = |f: fn(f64) -> f64| ours.iter().map(|&x| f(f64::from(x))).sum::<f64>();
        let (sum, squares) = (of(|x| x), of(|x| x * x));
        let want = |key: &str| stats[name][key].as_f64().expect("a number");
        close(&format!("{name} sum of squares"), squares, want("sumsq"), 1e-6);
        // The sums are nearly zero (that is what centering does), so they are measured against the entries' size.
        let noise = (sum - want("sum")).abs() / (squares * ours.len() as f64).sqrt();
        println!("| {name} sum | {noise:.1e} | 1e-6 |");
        assert!(noise <= 1e-6, "{name}: sum {sum}, expected {}", want("sum"));
    };
    let (w_e, w_pos) = embeddings(&model);
    check("embed.W_E", &w_e);
    check("pos_embed.W_pos", &w_pos);
    let hooked = model.hooked();
    let w_u = hooked.w_u_columns(0, model.shape().d_vocab).expect("all columns");
    check("unembed.W_U", &floats(&w_u));
    // The final norm of a zero residual is zero, which leaves the bias.
    let zero = Tensor::zeros(model.shape().d_model, candle_core::DType::F32, &Device::Cpu).expect("zeros");
    check("unembed.b_U", &floats(&hooked.unembed(&zero.unsqueeze(0).expect("a row")).expect("logits")));
}

/// `W_E` and `W_pos`, read through their hook points.
fn embeddings(model: &LanguageModel) -> (Vec<f32>, Vec<f32>) {
    let shape = model.shape();
    let (embed, pos_embed): (HookPoint, HookPoint) =
        ("hook_embed".parse().expect("a name"), "hook_pos_embed".parse().expect("a name"));
    let (mut w_e, mut w_pos) = (Vec::new(), Vec::new());
    let ids: Vec<u32> = (0..u32::try_from(shape.d_vocab).expect("small")).collect();
    for row in ids.chunks(shape.n_ctx) {
        let mut capture = Capture::new([embed, pos_embed]);
        let tokens = TokenBatch::new(&[row]).expect("a row");
        model.hooked().forward_until(&tokens, pos_embed, &mut capture).expect("embeddings");
        w_e.extend(floats(capture.get(embed).expect("captured")));
        if w_pos.is_empty() {
            w_pos = floats(capture.get(pos_embed).expect("captured"));
        }
    }
    (w_e, w_pos)
}
