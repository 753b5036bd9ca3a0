//! The configurations of published models are read as what those models are.

use super::{Family, gemma::Gemma, gemma2::Gemma2, gemma3::Gemma3, llama::Llama, mistral::Mistral, olmo2::Olmo2};
use super::{gpt_neo::GptNeo, gpt_neox::GptNeoX, gptj::GptJ, phi3::Phi3};
use super::{qwen2::Qwen2, qwen3::Qwen3};
use crate::config::Config;
use crate::ops::NormKind;
use crate::{ModelShape, Site};

/// The configuration of a published model, from `tests/data/published`.
macro_rules! published {
    ($name:literal) => {
        $crate::config::Config::of(
            &serde_json::from_str(include_str!(concat!("../../tests/data/published/", $name, ".json"))).unwrap(),
        )
    };
}
pub(super) use published;

/// `[d_model, layers, heads, kv_heads, d_head, d_mlp, d_vocab, n_ctx]`, the RMS norms' epsilon, and whether the unembedding is tied.
#[track_caller]
fn check<F: Family>(config: &Config, sizes: [usize; 8], eps: f64, tied: bool) -> F {
    let family = check_sizes::<F>(config, sizes);
    assert_eq!((family.norm().kind, family.norm().eps), (NormKind::Rms, eps));
    assert_eq!(family.spares("lm_head.weight"), tied);
    family
}

#[track_caller]
fn check_sizes<F: Family>(config: &Config, sizes: [usize; 8]) -> F {
    let family = F::parse(config).unwrap();
    let &ModelShape { d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, d_vocab, n_ctx, .. } = family.shape();
    assert_eq!([d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, d_vocab, n_ctx], sizes);
    family
}

#[test]
fn gemma() {
    check::<Gemma>(&published!("gemma-2b"), [2048, 18, 8, 1, 256, 16384, 256_000, 8192], 1e-6, true);
    let gemma2: Gemma2 = check(&published!("gemma-2-2b"), [2304, 26, 8, 4, 256, 9216, 256_000, 8192], 1e-6, true);
    assert_eq!(gemma2.logit_softcap(), Some(30.0));
    check::<Gemma3>(&published!("gemma-3-270m"), [640, 18, 4, 1, 256, 2048, 262_144, 32_768], 1e-6, true);
    let sees: Gemma3 = check(&published!("gemma-3-4b-pt"), [2560, 34, 8, 4, 256, 10_240, 262_208, 131_072], 1e-6, true);
    assert!(sees.spares("vision_tower.vision_model.embeddings.position_embedding.weight"));
    assert!(sees.spares("multi_modal_projector.mm_soft_emb_norm.weight"));
}

#[test]
fn qwen() {
    check::<Qwen2>(&published!("Qwen2.5-7B"), [3584, 28, 28, 4, 128, 18_944, 152_064, 131_072], 1e-6, false);
    check::<Qwen3>(&published!("Qwen3-0.6B"), [1024, 28, 16, 8, 128, 3072, 151_936, 40_960], 1e-6, true);
}

#[test]
fn mistral_and_olmo() {
    check::<Mistral>(&published!("Mistral-7B-v0.1"), [4096, 32, 32, 8, 128, 14_336, 32_000, 32_768], 1e-5, false);
    check::<Olmo2>(&published!("OLMo-2-0425-1B"), [2048, 16, 16, 16, 128, 8192, 100_352, 4096], 1e-6, false);
}

/// Distilled models are what they were distilled into: a Llama 3.1 and a Qwen 2.5.
#[test]
fn deepseek_r1_distilled() {
    let llama = published!("DeepSeek-R1-Distill-Llama-8B");
    check::<Llama>(&llama, [4096, 32, 32, 8, 128, 14_336, 128_256, 131_072], 1e-5, false);
    let qwen = published!("DeepSeek-R1-Distill-Qwen-1.5B");
    check::<Qwen2>(&qwen, [1536, 28, 12, 2, 128, 8960, 151_936, 131_072], 1e-6, false);
}

#[test]
fn pythia() {
    let model = check_sizes::<GptNeoX>(&published!("pythia-70m-deduped"), [512, 6, 8, 8, 64, 2048, 50_304, 2048]);
    assert_eq!((model.rope.d_rotary, model.rope.theta), (16, 10_000.0));
    assert!(!model.has(Site::ResidMid) && !model.spares("embed_out.weight"));
    assert!(model.spares("layers.5.attention.masked_bias") && !model.spares("layers.5.attention.dense.bias"));
}

#[test]
fn gpt_j() {
    let model = check_sizes::<GptJ>(&published!("gpt-j-6b"), [4096, 28, 16, 16, 256, 16_384, 50_400, 2048]);
    assert!(model.spares("h.0.attn.bias") && !model.spares("lm_head.bias") && !model.spares("lm_head.weight"));
}

#[test]
fn gpt_neo_and_tiny_stories() {
    let model = check_sizes::<GptNeo>(&published!("gpt-neo-125m"), [768, 12, 12, 12, 64, 3072, 50_257, 2048]);
    assert_eq!(model.windows, [None, Some(256)].repeat(6));
    assert!(model.spares("h.3.attn.attention.bias") && !model.spares("h.3.attn.attention.out_proj.bias"));
    check_sizes::<GptNeo>(&published!("TinyStories-33M"), [768, 4, 16, 16, 48, 3072, 50_257, 2048]);
}

/// LongRoPE files with factors of our own in the place of the published ones.
#[test]
fn phi() {
    let sizes = |n_ctx| [3072, 32, 32, 32, 96, 8192, 32_064, n_ctx];
    check::<Phi3>(&published!("Phi-3-mini-4k-instruct"), sizes(4096), 1e-5, false);
    check::<Phi3>(&published!("Phi-3-mini-128k-instruct"), sizes(131_072), 1e-5, false);
    let sizes = [3072, 32, 24, 8, 128, 8192, 200_064, 131_072];
    check::<Phi3>(&published!("Phi-4-mini-instruct"), sizes, 1e-5, true);
}
