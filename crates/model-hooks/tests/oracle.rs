//! candle-transformers' Llama as an independent implementation: its logits at the last position.

mod common;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, Llama3RopeConfig, Llama3RopeType};
use common::{Golden, Pieces, assert_close};
use model_hooks::{NoTap, Processing};

fn oracle_config(config: &serde_json::Value) -> Config {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let rope = &config["rope_parameters"];
    let number = |key: &str| rope[key].as_f64().unwrap() as f32;
    Config {
        hidden_size: size("hidden_size"),
        intermediate_size: size("intermediate_size"),
        vocab_size: size("vocab_size"),
        num_hidden_layers: size("num_hidden_layers"),
        num_attention_heads: size("num_attention_heads"),
        num_key_value_heads: size("num_key_value_heads"),
        use_flash_attn: false,
        rms_norm_eps: config["rms_norm_eps"].as_f64().unwrap(),
        rope_theta: number("rope_theta"),
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: (rope["rope_type"] == "llama3").then(|| Llama3RopeConfig {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original_max_position_embeddings: rope["original_max_position_embeddings"].as_u64().unwrap() as usize,
            rope_type: Llama3RopeType::Llama3,
        }),
        max_position_embeddings: size("max_position_embeddings"),
        tie_word_embeddings: config["tie_word_embeddings"].as_bool().unwrap(),
    }
}

#[test]
fn the_last_position_equals_candle_transformers() {
    for name in ["llama", "llama3_rope"] {
        for tied in [false, true] {
            let pieces = Pieces::of(name).with("tie_word_embeddings", tied);
            let pieces = pieces.map(|n, x| (!tied || n != "lm_head.weight").then_some((n, x)));
            let config = oracle_config(&pieces.config);
            let weights = pieces.tensors.iter().cloned().collect();
            let oracle = Llama::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config).unwrap();
            let tokens = Golden::open(name).tokens();
            let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            let expected = oracle.forward(&tokens.to_tensor(&Device::Cpu).unwrap(), 0, &mut cache).unwrap();
            let logits = pieces.load(Processing::None).unwrap().hooked().forward(&tokens, &mut NoTap).unwrap();
            let last = logits.narrow(1, tokens.pos() - 1, 1).unwrap().squeeze(1).unwrap();
            assert_close(name, &last, &expected, 1e-4);
        }
    }
}
