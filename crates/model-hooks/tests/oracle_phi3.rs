//! candle-transformers' Phi-3 as an independent implementation: its logits at the last position. It has no windows, and its LongRoPE
//! multiplies by the factors where transformers divides, so neither is compared here (`golden.rs`, `longrope.rs`).

mod common;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_transformers::models::phi3::{Config, Model};
use common::{Golden, Pieces, assert_close};
use model_hooks::{NoTap, Processing};
use serde_json::Value;

#[test]
fn the_last_position_equals_candle_transformers() {
    for name in ["phi3", "phi3_partial"] {
        for tied in [false, true] {
            let pieces = Pieces::of(name).with("tie_word_embeddings", tied).with("sliding_window", Value::Null);
            let pieces = pieces.map(|n, x| (!tied || n != "lm_head.weight").then_some((n, x)));
            let rope = &pieces.config["rope_parameters"];
            let mut keys = pieces.config.clone();
            keys["rope_theta"] = rope["rope_theta"].clone();
            keys["partial_rotary_factor"] = rope["partial_rotary_factor"].clone();
            let config: Config = serde_json::from_value(keys).unwrap();
            let weights = pieces.tensors.iter().cloned().collect();
            let mut oracle = Model::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).unwrap();
            let tokens = Golden::open(name).tokens();
            let expected = oracle.forward(&tokens.to_tensor(&Device::Cpu).unwrap(), 0).unwrap();
            let logits = pieces.load(Processing::None).unwrap().hooked().forward(&tokens, &mut NoTap).unwrap();
            let last = logits.narrow(1, tokens.pos() - 1, 1).unwrap();
            assert_close(name, &last, &expected, 1e-4);
        }
    }
}
