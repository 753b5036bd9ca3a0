//! LongRoPE against transformers, at a text above the original context and below it (`tests/golden/phi3_longrope`).

mod common;

use common::{Golden, Pieces, assert_close, assert_same_bits, engines, folder, refused, tolerance};
use model_hooks::{LoadOptions, NoTap, Processing, TokenBatch, load};
use serde_json::{Value, json};
use tensor_files::SafetensorsFile;

fn case(name: &str) -> Pieces {
    let configs = std::fs::read(folder("phi3_longrope").join("configs.json")).unwrap();
    let configs: Value = serde_json::from_slice(&configs).unwrap();
    let changes = configs["cases"][name].as_object().unwrap().clone();
    changes.into_iter().fold(Pieces::of("phi3_partial"), |pieces, (key, value)| pieces.with(&key, value))
}

/// The case with a key of its scaling changed.
fn with_scaling(name: &str, scaling: &str, key: &str, value: Value) -> Pieces {
    let mut pieces = case(name);
    pieces.config[scaling][key] = value;
    pieces
}

#[test]
fn logits_equal_transformers() {
    let golden = SafetensorsFile::open(folder("phi3_longrope").join("golden.safetensors")).unwrap();
    let tokens = Golden::open("phi3_partial").tokens();
    for engine in engines() {
        for name in ["short", "long", "factor", "stretch"] {
            let written = case(name).write();
            let model = load(written.path(), &LoadOptions::new(Processing::None).engine(engine)).unwrap();
            let logits = model.hooked().forward(&tokens, &mut NoTap).unwrap();
            let expected = golden.load(&format!("{name}.logits")).unwrap();
            assert_close(&format!("{name} on {engine}"), &logits, &expected, tolerance(engine, 1e-4));
        }
    }
}

#[test]
fn old_spellings_mean_the_same() {
    let tokens = Golden::open("phi3_partial").tokens();
    let logits = |pieces: Pieces| pieces.load(Processing::None).unwrap().hooked().forward(&tokens, &mut NoTap).unwrap();
    let long = logits(case("long"));
    assert_same_bits("type", &logits(case("old")), &long);
    for name in ["su", "yarn"] {
        assert_same_bits(name, &logits(with_scaling("old", "rope_scaling", "type", name.into())), &long);
    }
}

/// Which factors are used depends on the length of the text alone, and not on what ran before.
#[test]
fn short_and_long_texts_in_turn() {
    let model = case("long").load(Processing::None).unwrap();
    let tokens: Vec<u32> = Golden::open("phi3_partial").tokens().rows().next().unwrap().to_vec();
    let run = |pos: usize| {
        let logits = model.hooked().forward(&TokenBatch::new(&[&tokens[..pos]]).unwrap(), &mut NoTap).unwrap();
        logits.narrow(1, 0, 16).unwrap()
    };
    let (short, long) = (run(16), run(24));
    assert!(common::error(&long, &short) > 1e-2, "the first 16 positions of a longer text are turned otherwise");
    assert_same_bits("short again", &run(16), &short);
    assert_same_bits("just above", &run(17), &long);
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |key, value| with_scaling("long", "rope_parameters", key, value);
    refused(&with("rope_type", json!("llama3")), &["rope_parameters.rope_type", "llama3", "longrope"]);
    for key in ["short_factor", "long_factor"] {
        for value in [json!([1, 2, 3]), json!([1, 2, 3, 0]), json!([1, 2, 3, -1]), json!([1, 2, 3, "4"]), json!(4)] {
            refused(&with(key, value), &[key, "list"]);
        }
        refused(&with(key, Value::Null), &[key, "4 positive numbers"]);
    }
    refused(&with("original_max_position_embeddings", json!(17)), &["original_max_position_embeddings", "16"]);
    refused(&with("factor", json!(0)), &["rope_parameters.factor"]);
    refused(&with("attention_factor", json!(-1)), &["rope_parameters.attention_factor"]);
    let one = with("original_max_position_embeddings", json!(1)).with("original_max_position_embeddings", 1);
    refused(&one, &["original_max_position_embeddings", "at least 2"]);
    let none = with("original_max_position_embeddings", Value::Null).without("original_max_position_embeddings");
    refused(&none, &["original_max_position_embeddings", "missing"]);
}
