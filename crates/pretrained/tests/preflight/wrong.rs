//! Mismatches made on purpose: each one takes a right pairing and breaks one thing.

use super::pairs::{self, CENTERED, RAW, Text, changed_model, home, map, relu, sae, told, with};
use model_hooks::{LanguageModel, TokenBatch};
use pretrained::preflight::Check;
use sae_core::{Normalization, Sae};
use std::sync::LazyLock;

/// A mismatch: what is wrong, the SAE that it is made of, and how.
pub struct Wrong {
    pub what: &'static str,
    pub name: &'static str,
    make: Make,
    /// A warning is enough: the pairing may be meant.
    pub warns: bool,
    /// The check that must be among the reasons, where one is made for this mismatch.
    pub check: Option<Check>,
}

enum Make {
    Sae(fn(Sae) -> Sae),
    Model(fn() -> &'static LanguageModel),
    Tokens(fn(&Text) -> TokenBatch),
}

/// A pairing.
pub struct Pairing {
    pub model: &'static LanguageModel,
    pub sae: Sae,
}

impl Wrong {
    pub fn pairing(&self) -> Pairing {
        let right = sae(self.name);
        let model = home(&right);
        match self.make {
            Make::Sae(change) => Pairing { model, sae: change(right) },
            Make::Model(of) => Pairing { model: of(), sae: right },
            Make::Tokens(_) => Pairing { model, sae: right },
        }
    }

    pub fn tokens(&self, text: &Text, pairing: &Pairing) -> TokenBatch {
        match self.make {
            Make::Tokens(of) => of(text),
            _ => text.for_sae(&pairing.sae),
        }
    }

    fn warns(self) -> Self {
        Self { warns: true, ..self }
    }

    fn by(self, check: Check) -> Self {
        Self { check: Some(check), ..self }
    }
}

fn sae_of(name: &'static str, what: &'static str, change: fn(Sae) -> Sae) -> Wrong {
    Wrong { what, name, make: Make::Sae(change), warns: false, check: None }
}

fn model_of(name: &'static str, what: &'static str, of: fn() -> &'static LanguageModel) -> Wrong {
    Wrong { what, name, make: Make::Model(of), warns: false, check: None }
}

fn tokens_of(name: &'static str, what: &'static str, of: fn(&Text) -> TokenBatch) -> Wrong {
    Wrong { what, name, make: Make::Tokens(of), warns: false, check: None }
}

fn at(sae: Sae, hook: &str) -> Sae {
    told(&sae, |m| m.hook_name = Some(hook.into()))
}

/// A fixed order of `n` things that is far from theirs: `i -> i * step + 13 mod n`, with a step that has no divisor in common with `n`.
fn place(i: usize, n: usize) -> usize {
    (i * 7919 + 13) % n
}

/// The same function in another basis: every vector of width `d_model` has its entries in another order.
static PERMUTED: LazyLock<LanguageModel> = LazyLock::new(|| {
    changed_model(|name, shape, values| {
        let d = 256;
        let rows = name.ends_with("c_attn.weight") || name.ends_with("c_fc.weight");
        let columns = name.contains("wte") || name.contains("wpe") || name.contains("ln_") || name.contains("c_proj");
        let old = values.to_vec();
        let width = *shape.last().unwrap();
        for (i, value) in values.iter_mut().enumerate() {
            let (row, column) = (i / width, i % width);
            if rows {
                *value = old[place(row, d) * width + column];
            } else if columns {
                *value = old[row * width + place(column, d)];
            }
        }
    })
});

/// Weights of the same shapes and sizes, drawn at random.
static RANDOM: LazyLock<LanguageModel> = LazyLock::new(|| {
    changed_model(|name, _, values| {
        if name.contains("ln_") {
            return;
        }
        let scale = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        let mut state = name.len() as u64 * 77 + values.len() as u64;
        for value in values {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = scale * 1.732 * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0);
        }
    })
});

/// Matrices of one bit a weight.
static ONE_BIT: LazyLock<LanguageModel> = LazyLock::new(|| {
    changed_model(|_, shape, values| {
        if shape.len() == 2 {
            one_bit(values);
        }
    })
});

fn one_bit(values: &mut [f32]) {
    let scale = values.iter().map(|v| v.abs()).sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|v| *v = scale.copysign(*v));
}

/// `sae(x * c) / c` without a record of it: what folding a factor once too often, or leaving it out, makes of the weights.
fn factored(sae: &Sae, c: f32) -> Sae {
    let normalization = sae.normalization();
    with(&sae.fold_norm_factor(c).unwrap(), |parts| parts.normalization = normalization)
}

/// About the factor that brings the mean norm at `blocks.1.hook_mlp_out` to `sqrt(d_in)`.
const MLP1: f32 = 2.2;

/// All of them.
pub fn all() -> Vec<Wrong> {
    vec![
        model_of("pre1-standard", "un-centered model, SAE of a centered one", || &RAW).by(Check::Centering),
        model_of("pre3-gated", "un-centered model, gated SAE of a centered one", || &RAW).by(Check::Centering),
        model_of("pre2-topk-raw", "centered model, SAE of an un-centered one", || &CENTERED),
        sae_of("pre1-standard", "one layer on", |s| at(s, "blocks.2.hook_resid_pre")),
        sae_of("pre3-gated", "one layer back", |s| at(s, "blocks.2.hook_resid_pre")).warns(),
        sae_of("pre1-standard", "at the other end of the model", |s| at(s, "blocks.3.hook_resid_post")),
        sae_of("pre1-standard", "MLP's output for the residual stream", |s| at(s, "blocks.1.hook_mlp_out")),
        sae_of("post3-topk-layernorm", "attention's output for the residual stream", |s| {
            at(s, "blocks.3.hook_attn_out")
        }),
        sae_of("attn2-topk", "MLP's output for attention's", |s| at(s, "blocks.2.hook_mlp_out")),
        sae_of("z2-jumprelu", "z of another layer", |s| at(s, "blocks.1.attn.hook_z")),
        sae_of("z1-head3-standard", "another head", |s| told(&s, |m| m.hook_head_index = Some(5))),
        sae_of("z1-head3-standard", "a head that is not there", |s| told(&s, |m| m.hook_head_index = Some(8)))
            .by(Check::Head),
        sae_of("pre1-standard", "a layer that is not there", |s| at(s, "blocks.7.hook_resid_pre")).by(Check::Hook),
        sae_of("pre1-standard", "a hook point of another width", |s| at(s, "blocks.1.mlp.hook_post")).by(Check::Width),
        sae_of("transcoder2", "a transcoder taken for an SAE", |s| told(&s, |m| m.hook_name_out = None)),
        tokens_of("pre1-standard", "BOS missing", |t| t.rows(128, 0)).by(Check::Bos),
        tokens_of("pre2-standard-no-bos", "BOS where there was none", |t| t.rows(128, 1)).by(Check::Bos).warns(),
        tokens_of("mlp1-jumprelu", "BOS twice", |t| t.rows(128, 2)).by(Check::Bos).warns(),
        sae_of("pre2-topk-raw", "TopK loaded as ReLU", |s| relu(&s)).by(Check::L0),
        sae_of("attn2-topk", "TopK of another hook loaded as ReLU", |s| relu(&s)).by(Check::L0),
        sae_of("mlp1-jumprelu", "thresholds of a JumpReLU lost", |s| relu(&s)).by(Check::L0),
        sae_of("demo", "thresholds of the demo's JumpReLU lost", |s| relu(&s)).by(Check::L0),
        sae_of("pre2-topk-unfolded", "norm factor not folded", |_| pairs::as_published("pre2-topk-unfolded"))
            .by(Check::Norm),
        sae_of("mlp1-jumprelu", "norm factor lost", |s| factored(&s, 1.0 / MLP1)),
        sae_of("mlp1-jumprelu", "norm factor applied twice", |s| factored(&s, MLP1)).by(Check::L0).warns(),
        sae_of("pre1-standard", "norm factor of 0.25 lost", |s| factored(&s, 4.0)),
        sae_of("post3-topk-layernorm", "layer_norm lost", |s| with(&s, |p| p.normalization = Normalization::None))
            .by(Check::Remedy)
            .warns(),
        sae_of("pre3-topk-rescale", "constant_norm_rescale lost", |s| {
            with(&s, |p| p.normalization = Normalization::None)
        })
        .by(Check::Remedy)
        .warns(),
        model_of("pre1-standard", "another model of the same shape (its basis permuted)", || &PERMUTED),
        model_of("z2-jumprelu", "a model of random weights", || &RANDOM),
        model_of("pre3-gated", "the model's matrices rounded to one bit", || &ONE_BIT),
        sae_of("pre3-gated", "the SAE's matrices rounded to one bit", |s| {
            with(&s, |p| (p.w_enc, p.w_dec) = (map(&p.w_enc, one_bit), map(&p.w_dec, one_bit)))
        }),
        sae_of("pre1-standard", "decoder rows permuted", |s| with(&s, permute_decoder)).by(Check::DecoderAlignment),
        sae_of("pre3-topk-rescale", "decoder read transposed", |s| with(&s, transpose_decoder))
            .by(Check::DecoderAlignment),
        sae_of("mlp1-jumprelu", "b_dec with the other sign", |s| {
            with(&s, |p| p.b_dec.iter_mut().for_each(|b| *b = -*b))
        }),
        sae_of("mlp1-jumprelu", "apply_b_dec_to_input lost", |s| with(&s, |p| p.input_shift = None))
            .by(Check::Remedy)
            .warns(),
        sae_of("demo", "apply_b_dec_to_input lost, demo", |s| with(&s, |p| p.input_shift = None))
            .by(Check::Remedy)
            .warns(),
        sae_of("pre1-standard", "W_enc ten times too large", |s| scaled(&s, 10.0)),
        sae_of("pre2-standard-no-bos", "W_enc five times too small", |s| scaled(&s, 0.2)),
        tokens_of("pre1-standard", "ids of another tokenizer", |t| renamed(&t.rows(128, 1))).by(Check::Text),
        tokens_of("pre2-jumprelu-almanac", "tokens in another order", |t| reordered(&t.rows(128, 1))).by(Check::Text),
        tokens_of("pre1-standard", "rows of 32 tokens, 128 in training", |t| t.rows(32, 1)).by(Check::Context).warns(),
        sae_of("pre1-standard", "rows of 128 tokens, 64 in training", |s| told(&s, |m| m.context_size = Some(64)))
            .by(Check::Context)
            .warns(),
        tokens_of("pre2-jumprelu-almanac", "an SAE of almanac sentences on other text", |t| t.rows(128, 1)).warns(),
    ]
}

fn permute_decoder(parts: &mut sae_core::SaeParts) {
    let (d_sae, d_in) = parts.w_dec.dims2().unwrap();
    parts.w_dec = map(&parts.w_dec, |flat| {
        let old = flat.to_vec();
        for row in 0..d_sae {
            flat[row * d_in..][..d_in].copy_from_slice(&old[place(row, d_sae) * d_in..][..d_in]);
        }
    });
}

/// `[d_in, d_sae]` in the file, taken for `[d_sae, d_in]`.
fn transpose_decoder(parts: &mut sae_core::SaeParts) {
    let dims = parts.w_dec.dims2().unwrap();
    parts.w_dec = parts.w_dec.t().unwrap().contiguous().unwrap().reshape(dims).unwrap();
}

fn scaled(sae: &Sae, by: f32) -> Sae {
    with(sae, |parts| parts.w_enc = map(&parts.w_enc, |flat| flat.iter_mut().for_each(|w| *w *= by)))
}

fn each_row(tokens: &TokenBatch, change: impl Fn(&[u32]) -> Vec<u32>) -> TokenBatch {
    let rows: Vec<Vec<u32>> = tokens.rows().map(change).collect();
    TokenBatch::new(&rows).unwrap()
}

/// Every id but BOS becomes another one.
fn renamed(tokens: &TokenBatch) -> TokenBatch {
    let other = |&id: &u32| if id == 0 { 0 } else { 1 + place(id as usize, 6143) as u32 };
    each_row(tokens, |row| row.iter().map(other).collect())
}

fn reordered(tokens: &TokenBatch) -> TokenBatch {
    each_row(tokens, |row| {
        (0..row.len()).map(|i| if i == 0 { row[0] } else { row[1 + place(i, row.len() - 1)] }).collect()
    })
}
