//! Every architecture of GGUF: the small golden models, written as llama.cpp's converter writes them, are the same models as their folders,
//! to the last bit of every hook point.

mod common;
mod gguf_support;

use common::{Golden, assert_same_bits, engines, folder};
use gguf_support::Gguf;
use gguf_support::convert::Recipe;
use model_hooks::gguf::Value;
use model_hooks::{Capture, Engine, LanguageModel, LoadOptions, NoTap, Processing, load};
use std::path::Path;

/// Architectures and golden folders.
const MODELS: [(&str, &str); 4] =
    [("gpt2", "gpt2"), ("gptneox", "neox_parallel"), ("gptneox", "neox_serial"), ("llama", "llama")];

fn open(path: &Path, processing: Processing, engine: Engine) -> LanguageModel {
    load(path, &LoadOptions::new(processing).engine(engine)).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_same_model(what: &str, a: &LanguageModel, b: &LanguageModel, golden: &str) {
    let tokens = Golden::open(golden).tokens();
    let (mut ours, mut theirs) = (Capture::all(), Capture::all());
    let logits = [(a, &mut ours), (b, &mut theirs)].map(|(model, tap)| model.hooked().forward(&tokens, tap).unwrap());
    assert_eq!(a.hooked().hook_points(), b.hooked().hook_points(), "{what}");
    assert_eq!(ours.iter().len(), theirs.iter().len(), "{what}");
    for (point, value) in ours.iter() {
        assert_same_bits(&format!("{what} {point}"), value, theirs.get(point).unwrap());
    }
    assert_same_bits(what, &logits[0], &logits[1]);
}

#[test]
fn a_file_is_the_folder_to_the_last_bit() {
    for (arch, name) in MODELS {
        let (_dir, path) = Recipe::of(arch).write(name).write();
        for processing in [Processing::None, Processing::TransformerLens] {
            for engine in engines() {
                let what = format!("{name} {processing:?} {engine:?}");
                let (file, same) = (open(&path, processing, engine), open(&folder(name), processing, engine));
                assert_same_model(&what, &file, &same, name);
            }
        }
    }
}

/// How far the logits of a file are from the folder's, in parts of their rms.
fn distance(gguf: &Gguf, golden: &str) -> f64 {
    let (_dir, path) = gguf.write();
    let tokens = Golden::open(golden).tokens();
    let [found, expected] = [path.as_path(), folder(golden).as_path()]
        .map(|path| open(path, Processing::None, Engine::default()).hooked().forward(&tokens, &mut NoTap).unwrap());
    common::error(&found, &expected)
}

#[track_caller]
fn refused(gguf: &Gguf, with: &str) {
    let (_dir, path) = gguf.write();
    let found = load(&path, &LoadOptions::default()).expect_err("it loaded").to_string();
    assert!(found.contains(with), "{found}");
}

#[test]
fn what_is_not_undone_would_show() {
    // The same tensors with the converter's step left out: shapes fit, the model is another one.
    let unsorted = Recipe { change: |_, _, rows| rows, ..*Recipe::of("gptneox") };
    assert!(distance(&unsorted.write("neox_parallel"), "neox_parallel") > 0.1);
}

#[test]
fn keys_decide_what_the_tensors_mean() {
    let neox = Recipe::of("gptneox").write("neox_parallel");
    let changed = |key: &str, value| distance(&neox.clone().entry(key, value), "neox_parallel");
    assert!(changed("gptneox.use_parallel_residual", Value::Bool(false)) > 1e-2);
    assert!(changed("gptneox.rope.dimension_count", Value::Unsigned(16)) > 1e-2);
    assert!(changed("gptneox.rope.freq_base", Value::F32(100.0)) > 1e-3);
    assert!(changed("gptneox.rope.scale_linear", Value::F32(4.0)) > 1e-3);
    assert!(changed("gptneox.attention.layer_norm_epsilon", Value::F32(0.5)) > 1e-2);
}

#[test]
fn an_output_matrix_beside_gpt2s_embedding_is_the_unembedding() {
    let gguf = Recipe::of("gpt2").write("gpt2");
    let embedding = common::Pieces::of("gpt2").tensors.into_iter().find(|(name, _)| name.contains("wte")).unwrap().1;
    let again = gguf.clone().tensor("output.weight", &[384, 64], &common::values(&embedding));
    assert!(distance(&again, "gpt2") < 1e-6);
    let other = gguf.tensor("output.weight", &[384, 64], &vec![0.25; 384 * 64]);
    assert!(distance(&other, "gpt2") > 0.1);
}
