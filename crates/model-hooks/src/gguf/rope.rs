//! Rotary embeddings: the keys `rope.*` as Hugging Face's `rope_parameters`.

use super::words::{Sizes, Words};
use crate::Result;
use serde_json::{Map, Value as Json};

/// The keys below an architecture's name that are read here, or that say nothing without YaRN.
pub(super) const KEYS: &[&str] = &[
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    ORIGINAL_CONTEXT,
    ATTN_FACTOR,
    LOG_MULTIPLIER,
    BETA_FAST,
    BETA_SLOW,
    EXT_FACTOR,
    "rope.scaling.type",
];

/// YaRN's `mscale_all_dim`, beside an `mscale` of 1.
const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";
const BETA_FAST: &str = "rope.scaling.yarn_beta_fast";
const BETA_SLOW: &str = "rope.scaling.yarn_beta_slow";
/// Strength of YaRN's ramp.
const EXT_FACTOR: &str = "rope.scaling.yarn_ext_factor";

/// Factor of `cos` and `sin`: the whole of it for LongRoPE; for YaRN it multiplies what follows from the scaling factor.
pub(super) const ATTN_FACTOR: &str = "rope.scaling.attn_factor";

/// The context before it was stretched.
pub(super) const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";

/// Divisors of the speeds, one for each pair: how Llama 3.1's scaling is stored.
pub(super) const FACTORS: &str = "rope_freqs.weight";

impl Words<'_> {
    /// The base and the stretch of the speeds, `rope_theta`, `rope_type`, `factor` ... Without a key the base is 10,000.
    pub fn rope_parameters(&self) -> Result<Map<String, Json>> {
        let mut rope = Map::new();
        rope.insert("rope_theta".into(), self.positive("rope.freq_base")?.unwrap_or(10_000.0).into());
        let old_factor = self.positive("rope.scale_linear")?;
        let kind = self.file().string(&self.full("rope.scaling.type"))?;
        let factor = match kind {
            Some("linear" | "yarn" | "dynamic") | None => self.positive("rope.scaling.factor")?.or(old_factor),
            Some("none") => None,
            Some(_) => return Err(self.bad("rope.scaling.type", "none, linear, yarn or dynamic")),
        };
        match factor.filter(|factor| *factor != 1.0) {
            None => rope.insert("rope_type".into(), "default".into()),
            Some(factor) => {
                rope.insert("factor".into(), factor.into());
                rope.insert("rope_type".into(), kind.unwrap_or("linear").into())
            }
        };
        if rope.contains_key("factor") && kind == Some("yarn") {
            self.add_yarn(&mut rope, factor.unwrap_or(1.0))?;
        }
        Ok(rope)
    }

    /// YaRN's other words. As llama.cpp computes it, `rope.scaling.attn_factor` comes on top of what follows from the factor:
    /// `attn_factor (0.1 ln factor + 1) / (0.1 log_multiplier ln factor + 1)`, the divisor where there is such a key.
    fn add_yarn(&self, rope: &mut Map<String, Json>, factor: f64) -> Result<()> {
        if self.positive(EXT_FACTOR)?.is_some_and(|ext| ext != 1.0) {
            return Err(self.bad(EXT_FACTOR, "1: a part of YaRN's ramp is not supported"));
        }
        for (word, key) in [("beta_fast", BETA_FAST), ("beta_slow", BETA_SLOW)] {
            if let Some(turns) = self.positive(key)? {
                rope.insert(word.into(), turns.into());
            }
        }
        if let Some(context) = self.optional_size(ORIGINAL_CONTEXT)? {
            rope.insert("original_max_position_embeddings".into(), context.into());
        }
        let mscale = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let zero = self.file().f64(&self.full(LOG_MULTIPLIER))? == Some(0.0);
        let below = if zero { None } else { self.positive(LOG_MULTIPLIER)? };
        let attention = self.positive(ATTN_FACTOR)?.unwrap_or(1.0) * mscale(1.0) / below.map_or(1.0, mscale);
        rope.insert("attention_factor".into(), attention.into());
        Ok(())
    }

    /// Refuses a factor of `cos` and `sin` where no stretch has one.
    pub fn refuse_attn_factor(&self, rope: &Map<String, Json>) -> Result<()> {
        let stray = !rope.contains_key("attention_factor") && self.positive(ATTN_FACTOR)?.is_some_and(|x| x != 1.0);
        if stray { Err(self.bad(ATTN_FACTOR, "1 without YaRN")) } else { Ok(()) }
    }

    /// Says `rope_parameters`, with the keys that its entries come from.
    pub fn say_rope(&mut self, rope: Map<String, Json>) {
        self.set("rope_parameters", rope);
        for (word, key) in [
            ("rope_theta", "rope.freq_base"),
            ("rope_type", "rope.scaling.type"),
            ("factor", "rope.scaling.factor"),
            ("original_max_position_embeddings", ORIGINAL_CONTEXT),
            ("attention_factor", ATTN_FACTOR),
            ("beta_fast", BETA_FAST),
            ("beta_slow", BETA_SLOW),
            ("partial_rotary_factor", "rope.dimension_count"),
        ] {
            self.came_from(&format!("rope_parameters.{word}"), key);
        }
    }

    /// Checks that whole heads are rotated: an error if the file states another number of entries.
    pub fn whole_heads(&self, sizes: &Sizes) -> Result<()> {
        let d_head = sizes.d_head;
        if self.optional_size("rope.dimension_count")?.is_some_and(|n| n != d_head) || !d_head.is_multiple_of(2) {
            return Err(self.bad("rope.dimension_count", format!("the width of a head, {d_head}, an even number")));
        }
        Ok(())
    }

    /// Rotary embeddings of whole heads.
    pub fn say_whole_rope(&mut self, sizes: &Sizes) -> Result<()> {
        self.whole_heads(sizes)?;
        let rope = self.rope_parameters()?;
        self.refuse_attn_factor(&rope)?;
        self.say_rope(rope);
        Ok(())
    }

    /// Rotary embeddings of the first entries of each head, and how many they are; all of them where no key says it.
    pub fn partial_rope(&self, sizes: &Sizes) -> Result<(Map<String, Json>, usize)> {
        let d_head = sizes.d_head;
        let turned = self.optional_size("rope.dimension_count")?.unwrap_or(d_head);
        if turned > d_head || !turned.is_multiple_of(2) {
            let expected = format!("an even number, at most the width of a head, {d_head}");
            return Err(self.bad("rope.dimension_count", expected));
        }
        let mut rope = self.rope_parameters()?;
        rope.insert("partial_rotary_factor".into(), share(turned, d_head).into());
        Ok((rope, turned))
    }
}

/// The least share of `whole` that is rounded down to `part`.
fn share(part: usize, whole: usize) -> f64 {
    let share = part as f64 / whole as f64;
    if (share * whole as f64) as usize == part { share } else { share.next_up() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_gives_its_part_back() {
        let pairs = (1..=512usize).flat_map(|whole| (1..=whole).map(move |part| (part, whole)));
        for (part, whole) in pairs {
            assert_eq!((share(part, whole) * whole as f64) as usize, part, "{part} of {whole}");
            assert!(share(part, whole) <= 1.0);
        }
    }
}
