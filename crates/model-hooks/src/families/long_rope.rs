//! LongRoPE: one set of rotary speeds for texts of the length that the model was trained on, another for longer ones.

use super::angles::{RopeTable, RotaryEmbedding};
use super::rope::Rope;
use super::rope_scaling::{RopeScaling, type_key};
use crate::Result;
use crate::config::Config;
use crate::forward::positions::Positions;
use std::sync::Arc;

/// Rotary embeddings that may depend on the length of the text.
///
/// As in transformers, it is the longest row of a batch that counts, its padding included, and all positions are turned alike:
/// `speed[i] = theta^(-2i / d_rotary) / factor[i]`, and `cos` and `sin` are multiplied by `attention_factor`.
#[derive(Debug)]
pub(crate) struct LongRope {
    short: Rope,
    short_angles: RotaryEmbedding,
    /// Above how many positions, and what is used then.
    long: Option<(usize, Rope, RotaryEmbedding)>,
}

impl LongRope {
    /// Reads the scaling of Phi-3 models (`rope_parameters` or `rope_scaling`), default or LongRoPE, onto `rope`.
    pub fn parse(c: &Config, scaling: Option<&Config>, rope: Rope, n_ctx: usize) -> Result<Self> {
        let plain = |rope| Self { short: rope, short_angles: RotaryEmbedding::default(), long: None };
        let Some(scaling) = scaling else { return Ok(plain(rope)) };
        let key = type_key(scaling);
        match scaling.text(key)?.unwrap_or("default") {
            "default" => return Ok(plain(rope)),
            // Older Phi-3 files call it so.
            "longrope" | "su" | "yarn" => {}
            _ => return Err(scaling.bad(key, "default or longrope")),
        }
        let original = original_n_ctx(c, scaling)?;
        let magnitude = magnitude(scaling, original, n_ctx)?;
        let scaled = |key| -> Result<Rope> {
            let factors = factors(scaling, key, rope.d_rotary / 2)?;
            Ok(Rope { scaling: RopeScaling::Long { factors, magnitude }, ..rope.clone() })
        };
        let long = (original, scaled("long_factor")?, RotaryEmbedding::default());
        Ok(Self { long: Some(long), ..plain(scaled("short_factor")?) })
    }

    /// The angles of a run.
    pub fn angles(&self, columns: &Positions) -> Arc<RopeTable> {
        let end = columns.end();
        match &self.long {
            Some((n_ctx, rope, angles)) if end > *n_ctx => angles.get(rope, end),
            _ => self.short_angles.of_run(&self.short, columns),
        }
    }

    /// Whether texts of these two lengths are turned by the same angles.
    pub fn turns_alike(&self, lengths: [usize; 2]) -> bool {
        let Some((n_ctx, ..)) = &self.long else { return self.short.turns_alike(lengths) };
        let [one, other] = lengths.map(|length| length > *n_ctx);
        one == other
    }
}

/// `original_max_position_embeddings`, beside the scaling or in it.
fn original_n_ctx(c: &Config, scaling: &Config) -> Result<usize> {
    let key = "original_max_position_embeddings";
    match (c.optional_size(key)?, scaling.optional_size(key)?) {
        (Some(top), Some(inner)) if top != inner => {
            Err(scaling.bad(key, &format!("the {top} that stands at the top level")))
        }
        (Some(n_ctx), _) | (None, Some(n_ctx)) => Ok(n_ctx),
        (None, None) => Err(c.missing(key, "a positive whole number")),
    }
}

/// `attention_factor`, else `sqrt(1 + ln factor / ln original)` where the context is stretched.
fn magnitude(scaling: &Config, original: usize, n_ctx: usize) -> Result<f64> {
    let factor = scaling.positive("factor", Some(n_ctx as f64 / original as f64))?;
    let stretched = (1.0 + factor.ln() / (original as f64).ln()).sqrt();
    let magnitude = scaling.positive("attention_factor", Some(if factor > 1.0 { stretched } else { 1.0 }))?;
    if !magnitude.is_finite() {
        let key = "original_max_position_embeddings";
        return Err(scaling.bad(key, "at least 2, or an attention_factor"));
    }
    Ok(magnitude)
}

fn factors(scaling: &Config, key: &str, pairs: usize) -> Result<Vec<f32>> {
    let wanted = format!("a list of {pairs} positive numbers, one for each pair that is turned");
    let list = scaling.list(key)?.ok_or_else(|| scaling.missing(key, &wanted))?;
    let number = |x: &serde_json::Value| x.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x > 0.0);
    let factors: Option<Vec<f32>> = list.iter().map(number).collect();
    factors.filter(|factors| factors.len() == pairs).ok_or_else(|| scaling.bad(key, &wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor_kernels::RopeLayout;

    /// All positions of a text are turned by one set of speeds, which changes above the original context.
    #[test]
    fn angles_change_above_the_original_context() {
        let rope = |factor| {
            let scaling = RopeScaling::Long { factors: vec![factor], magnitude: 1.0 };
            Rope { theta: 10_000.0, scaling, d_rotary: 2, pairs: RopeLayout::Half }
        };
        let long = Some((16, rope(2.0), RotaryEmbedding::default()));
        let rope = LongRope { short: rope(1.0), short_angles: RotaryEmbedding::default(), long };
        let sine = |offset, pos| {
            let whole = 0..offset + pos;
            rope.angles(&Positions::new(offset, pos, [whole].into())).at(1).1[0]
        };
        let near = |found: f32, expected: f32| (found - expected.sin()).abs() < 1e-6;
        assert!(near(sine(0, 16), 1.0) && near(sine(15, 1), 1.0));
        assert!(near(sine(0, 17), 0.5) && near(sine(17, 1), 0.5));
        assert!([[1, 16], [17, 18], [17, 40]].iter().all(|lengths| rope.turns_alike(*lengths)));
        assert!([[16, 17], [4, 17], [17, 16], [40, 4]].iter().all(|lengths| !rope.turns_alike(*lengths)));
    }
}
