//! The blockwise projection against the whole matrix, sorted; SAEs inside attention and MLP through the weights between them and the stream.

use candle_core::{Device, Tensor};
use feature_analysis::{Error, LensOptions, TopBottomTokens, logit_lens, project_directions, project_directions_on};
use model_hooks::{Engine, LanguageModel, LoadOptions, Processing, load};
use proptest::prelude::*;
use sae_core::{Sae, SaeMetadata, SaeParts};
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;
use tensor_kernels::{MatrixRef, Operand, PackedMatrix};

fn project(directions: &Tensor, w_u: &Tensor, options: &LensOptions) -> Result<Vec<TopBottomTokens>, Error> {
    let rows = |r: std::ops::Range<usize>| Ok(directions.narrow(0, r.start, r.len())?);
    let columns = |start, len| Ok(w_u.narrow(1, start, len)?.contiguous()?);
    project_directions(directions.dim(0)?, w_u.dim(1)?, rows, columns, options)
}

fn options(top: usize, bottom: usize, block_features: usize, block_tokens: usize) -> LensOptions {
    let mut options = LensOptions::default();
    (options.top, options.bottom, options.block_features, options.block_tokens) =
        (top, bottom, block_features, block_tokens);
    options
}

#[test]
fn by_hand_with_ties() {
    let directions = Tensor::new(&[[1f32, 0.], [0., -1.]], &Device::Cpu).unwrap();
    let w_u = Tensor::new(&[[2f32, 5., 5., -1., 2.], [0., 1., 0., 3., 1.]], &Device::Cpu).unwrap();
    let got = project(&directions, &w_u, &options(3, 2, 1, 2)).unwrap();
    assert_eq!(got[0].top, [(1, 5.0), (2, 5.0), (0, 2.0)], "equal values: lower token id first");
    assert_eq!(got[0].bottom, [(3, -1.0), (0, 2.0)]);
    assert_eq!(got[1].top, [(0, 0.0), (2, 0.0), (1, -1.0)]);
    assert_eq!(got[1].bottom, [(3, -3.0), (1, -1.0)]);
}

#[test]
fn refusals() {
    let one = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
    let w_u = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
    assert!(project(&one, &w_u, &options(1, 1, 8, 8)).unwrap_err().to_string().contains("NaN at row 0, column 0"));
    let wide = Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu).unwrap();
    let message = project(&wide, &w_u, &options(1, 1, 8, 8)).unwrap_err().to_string();
    assert_eq!(message, "the directions' width is 3, but d_model is 2; they must be equal");
    assert!(project(&w_u, &w_u, &options(1, 1, 0, 8)).unwrap_err().to_string().contains("block_features"));
}

proptest! {
    #[test]
    fn blocks_do_not_matter(
        n in 1usize..7, d in 1usize..5, vocab in 1usize..40, top in 0usize..6, bottom in 0usize..6,
        block_features in 1usize..8, block_tokens in 1usize..45, seed in any::<u32>(),
    ) {
        // Small integers: products are exact in any order, and ties are common.
        let mut state = seed;
        let mut small = |count: usize| -> Vec<f32> {
            (0..count).map(|_| { state = state.wrapping_mul(1664525).wrapping_add(1013904223); ((state >> 24) % 5) as f32 - 2.0 }).collect()
        };
        let a = Tensor::from_vec(small(n * d), (n, d), &Device::Cpu).unwrap();
        let b = Tensor::from_vec(small(d * vocab), (d, vocab), &Device::Cpu).unwrap();
        let options = options(top, bottom, block_features, block_tokens);
        let got = project(&a, &b, &options).unwrap();
        let flat: Vec<f32> = b.flatten_all().unwrap().to_vec1().unwrap();
        let plain = MatrixRef::row_major(&flat, d, vocab).unwrap();
        let packed = PackedMatrix::pack(options.arithmetic, plain).unwrap();
        for w_u in [Operand::Plain(plain), Operand::Packed(&packed)] {
            let rows = |r: std::ops::Range<usize>| Ok(a.narrow(0, r.start, r.len())?);
            prop_assert_eq!(&project_directions_on(n, rows, w_u, &options).unwrap(), &got);
        }
        for (row, got) in a.matmul(&b).unwrap().to_vec2::<f32>().unwrap().into_iter().zip(got) {
            let mut all: Vec<(u32, f32)> = row.into_iter().enumerate().map(|(i, v)| (i as u32, v)).collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
            prop_assert_eq!(&got.top[..], &all[..top.min(vocab)]);
            all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then(a.0.cmp(&b.0)));
            prop_assert_eq!(&got.bottom[..], &all[..bottom.min(vocab)]);
        }
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model-hooks/tests/golden").join(name)
}

fn model(name: &str) -> LanguageModel {
    load(&golden(name), &LoadOptions::new(Processing::None).engine(Engine::Reference)).unwrap()
}

/// Numbers between -1 and 1 that differ.
fn numbers(rows: usize, width: usize) -> Tensor {
    let values = (0..rows * width).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
}

/// Five features whose decoder rows write at a hook point.
fn sae_at(hook: &str, head: Option<usize>, out: Option<&str>, [d_in, d_out]: [usize; 2]) -> Sae {
    let w_enc = Tensor::zeros((d_in, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut parts = SaeParts::new(w_enc, vec![0.0; 5], numbers(5, d_out), vec![0.0; d_out]);
    parts.transcoder = out.is_some();
    parts.metadata = SaeMetadata {
        hook_name: Some(hook.into()),
        hook_name_out: out.map(Into::into),
        hook_head_index: head,
        ..SaeMetadata::default()
    };
    Sae::on(Engine::Reference, parts).unwrap()
}

/// The lens of all five features is `directions W_U`.
#[track_caller]
fn assert_lens(model: &LanguageModel, sae: &Sae, directions: &Tensor) {
    let w_u = model.hooked().w_u_columns(0, model.shape().d_vocab).unwrap().contiguous().unwrap();
    let expected = project(directions, &w_u, &options(6, 4, 2, 100)).unwrap();
    let lens = logit_lens(model, sae, None, &options(6, 4, 2, 100)).unwrap();
    for (found, expected) in lens.features.iter().zip(&expected) {
        let (found, expected) = ([&found.tokens.top, &found.tokens.bottom], [&expected.top, &expected.bottom]);
        for (found, expected) in found.into_iter().zip(expected) {
            let ids = |list: &[(u32, f32)]| list.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            assert_eq!(ids(found), ids(expected));
            assert!(found.iter().zip(expected).all(|(a, b)| (a.1 - b.1).abs() < 1e-4 * b.1.abs().max(1.0)));
        }
    }
}

/// `n_heads d_head` is `d_model` in both models: the widths do not show where the SAE is.
#[test]
fn an_sae_inside_attention_or_the_mlp_is_projected_through_the_weights_after_it() {
    let weight = |name: &str, tensor: &str| {
        SafetensorsFile::open(golden(name).join("model.safetensors")).unwrap().load(tensor).unwrap()
    };
    let times = |rows: &Tensor, w: &Tensor| rows.matmul(&w.contiguous().unwrap()).unwrap();
    let llama = model("llama");
    let w_o = weight("llama", "model.layers.1.self_attn.o_proj.weight").t().unwrap();
    let z = "blocks.1.attn.hook_z";
    assert_lens(&llama, &sae_at(z, None, None, [64, 64]), &times(&numbers(5, 64), &w_o));
    let head = w_o.narrow(0, 3 * 16, 16).unwrap();
    assert_lens(&llama, &sae_at(z, Some(3), None, [16, 16]), &times(&numbers(5, 16), &head));
    let w_out = weight("llama", "model.layers.1.mlp.down_proj.weight").t().unwrap();
    let post = "blocks.1.mlp.hook_post";
    assert_lens(&llama, &sae_at(post, None, None, [160, 160]), &times(&numbers(5, 160), &w_out));
    let gpt2 = model("gpt2");
    let w_out = weight("gpt2", "transformer.h.0.mlp.c_proj.weight");
    let pre = "blocks.0.mlp.hook_pre";
    assert_lens(&gpt2, &sae_at(pre, None, None, [256, 256]), &times(&numbers(5, 256), &w_out));

    // On the stream, and of a transcoder what it writes, whatever it reads.
    assert_lens(&llama, &sae_at("blocks.1.hook_resid_pre", None, None, [64, 64]), &numbers(5, 64));
    assert_lens(&llama, &sae_at("model.layers.1.mlp", None, None, [64, 64]), &numbers(5, 64));
    let out = Some("blocks.1.hook_mlp_out");
    assert_lens(&llama, &sae_at("blocks.1.ln2.hook_normalized", None, out, [64, 64]), &numbers(5, 64));
    assert_lens(&llama, &sae_at("blocks.1.mlp.hook_in", None, out, [64, 64]), &numbers(5, 64));
}

#[test]
fn there_is_no_lens_where_nothing_is_written_to_the_stream() {
    let (llama, gemma2) = (model("llama"), model("gemma2"));
    let lens = |model: &LanguageModel, sae: &Sae| logit_lens(model, sae, None, &LensOptions::default());
    let refused =
        |model: &LanguageModel, hook: &str, width: usize| match lens(model, &sae_at(hook, None, None, [width; 2])) {
            Err(Error::Model(error)) if matches!(*error, model_hooks::Error::NotWritten { .. }) => error.to_string(),
            found => panic!("{hook}: {found:?}"),
        };
    assert!(refused(&llama, "blocks.1.hook_mlp_in", 64).contains("hook_mlp_in"));
    assert!(refused(&llama, "blocks.1.attn.hook_q", 64).contains("does not write"));
    refused(&llama, "blocks.1.ln1.hook_normalized", 64);
    refused(&llama, "blocks.1.mlp.hook_pre", 160);
    assert!(refused(&gemma2, "blocks.1.attn.hook_z", 128).contains("norm"));
    let wide = lens(&llama, &sae_at("blocks.1.attn.hook_z", Some(0), None, [64, 64])).unwrap_err();
    assert!(matches!(wide, Error::SizeMismatch { left_size: 64, right_size: 16, .. }), "{wide}");
    // Where nothing says where it writes, the caller must.
    let mut parts = SaeParts::new(numbers(64, 5), vec![0.0; 5], numbers(5, 64), vec![0.0; 64]);
    parts.metadata = SaeMetadata::default();
    let nameless = Sae::on(Engine::Reference, parts).unwrap();
    assert!(lens(&llama, &nameless).unwrap_err().to_string().contains("hook_name"));
    let at: model_hooks::HookSelector = "blocks.1.attn.hook_z".parse().unwrap();
    let told = logit_lens(&llama, &nameless, None, &LensOptions { at: Some(at), ..LensOptions::default() }).unwrap();
    assert_eq!(told.at, at);
}
