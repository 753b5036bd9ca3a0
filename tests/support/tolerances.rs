//! What the tests demand of numbers that peers computed: every bound on the distance to a golden file, in one place. `docs/accuracy.md` states them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use tensor_kernels::{Engine, Precision};

/// Bounds by arithmetic: f32 (candle, and the kernels in f32, which `f32fast` is but on AMX), the three bf16 products of `f32fast` on AMX,
/// and bf16.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub f32: f64,
    pub amx_f32fast: f64,
    pub bf16: f64,
}

impl Bounds {
    pub fn on(self, engine: Engine) -> f64 {
        match engine.arithmetic() {
            Some(arithmetic) if arithmetic.precision() == Precision::Bf16 => self.bf16,
            Some(arithmetic) if arithmetic.kernel_name() == "amx bf16x3" => self.amx_f32fast,
            _ => self.f32,
        }
    }
}

/// The largest error of any value at any hook point of TransformerLens, of logits, and of transformers' residual streams, in parts of the
/// point's rms. Three products of bf16 are 500 times as exact as one (measured in software: 7e-4 at the last pattern of the Llama models, 2.4e-4 at their
/// logits); in bf16 patterns and the products of gated MLPs are the worst.
pub const MODELS: Bounds = Bounds { f32: 1e-4, amx_f32fast: 1e-3, bf16: 0.5 };

/// The rms of the errors at any hook point, in parts of the point's rms, on every engine: what bf16 needs.
pub const MODELS_RMS: f64 = 0.05;

/// Codes and reconstructions of SAELens' SAEs, in parts of their rms. In bf16 inputs and weights are rounded to 8 bits: 2^-8 each at worst, of which a sum of
/// many products of either sign keeps about a third; the same features fire but in bf16, where 2 % may differ.
pub const SAES: Bounds = Bounds { f32: 1e-5, amx_f32fast: 5e-5, bf16: 0.03 };

/// Codes and reconstructions of the other formats' small SAEs, in parts of their rms. In bf16, of the 16 products of a pre-activation the largest are some ten times the
/// rms of activations, most of which are 0.
pub const FORMATS: Bounds = Bounds { f32: 1e-4, amx_f32fast: 1e-4, bf16: 0.06 };

/// SAELens' metrics of an evaluation, in parts of the value. Not tested in bf16.
pub const METRICS: Bounds = Bounds { f32: 1e-4, amx_f32fast: 1e-3, bf16: f64::INFINITY };

/// Scores and divergences of an evaluation, which are differences of losses.
pub const SCORES: Bounds = Bounds { f32: 1e-3, amx_f32fast: 1e-2, bf16: f64::INFINITY };

/// Where the statement in `docs/accuracy.md` begins and ends.
pub const BEGIN: &str = "<!-- what the tests demand: written by UPDATE_DOCS=1 cargo test --test accuracy -->\n";
pub const END: &str = "<!-- end of what the tests demand -->\n";

/// The statement in `docs/accuracy.md`.
pub fn statement() -> String {
    let number = |bound: f64| match bound {
        bound if bound.is_infinite() => "not tested".to_owned(),
        bound if bound >= 0.01 => format!("{bound}"),
        bound => format!("{bound:.0e}"),
    };
    let row = |what: &str, bounds: Bounds| {
        format!("| {what} | {} | {} | {} |\n", number(bounds.f32), number(bounds.amx_f32fast), number(bounds.bf16))
    };
    let mut out = String::from(BEGIN);
    out += "What the tests demand on every engine of the machine that they run on (`tests/support/tolerances.rs`): the largest error of any value, in\n\
            parts of the rms of what is compared (of metrics and scores: of the value).\n\n\
            | | f32, and `f32fast` without AMX | `f32fast` on AMX | bf16 |\n|---|--:|--:|--:|\n";
    out += &row("hook points and logits of every family against TransformerLens 3.9 and transformers", MODELS);
    out += &row("codes and reconstructions of SAELens' SAEs", SAES);
    out += &row("codes and reconstructions of the other formats of SAEs", FORMATS);
    out += &row("SAELens' metrics of an evaluation", METRICS);
    out += &row("scores and divergences of an evaluation", SCORES);
    out +=
        &format!("\nThe rms of the errors at any hook point is below {MODELS_RMS} of the point's on every engine.\n");
    out + END
}
