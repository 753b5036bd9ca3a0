//! Ways in which configurations stretch rotary angles beyond the context of the training.

use super::rope::Rope;
use crate::Result;
use crate::config::Config;

/// A stretch of the rotary angles.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RopeScaling {
    /// None.
    Default,
    /// Every speed divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A base that grows with the length `n` of a text above `n_ctx`: `theta (factor n / n_ctx - (factor - 1))^(d / (d - 2))`, with `d`
    /// entries of a head that are turned.
    Dynamic {
        /// Factor by which the context grows.
        factor: f64,
        /// Up to this length nothing is stretched.
        n_ctx: usize,
    },
    /// Each pair's speed divided by its own factor: how GGUF files spell Llama 3.1's scaling. `per_pair` is this crate's own
    /// type; Hugging Face has none.
    PerPair {
        /// `d_head / 2` divisors.
        factors: Vec<f32>,
    },
    /// Each pair's speed divided by its own factor, `cos` and `sin` multiplied: LongRoPE.
    Long {
        /// `d_rotary / 2` divisors.
        factors: Vec<f32>,
        /// Factor of `cos` and `sin`.
        magnitude: f64,
    },
    /// Llama 3.1's: slow pairs divided by `factor`, fast ones kept, a ramp between.
    Llama3 {
        /// The divisor of slow pairs.
        factor: f64,
        /// Pairs that turn fewer times than this in the original context are slow.
        low_freq_factor: f64,
        /// Pairs that turn more often than this are fast.
        high_freq_factor: f64,
        /// The original context.
        original_n_ctx: f64,
    },
    /// YaRN: pairs up to `low` kept, pairs from `high` on divided by `factor`, a ramp between; `cos` and `sin` multiplied.
    Yarn {
        /// The divisor of slow pairs.
        factor: f64,
        /// The last pair that is kept.
        low: f64,
        /// The first pair that is divided.
        high: f64,
        /// Factor of `cos` and `sin`.
        magnitude: f64,
    },
}

/// The types that are read, for errors.
const KNOWN: &str = "default, linear, llama3, yarn or dynamic";

/// The key of the type: the new spelling, or the old one.
pub(super) fn type_key(scaling: &Config) -> &'static str {
    if scaling.has("rope_type") { "rope_type" } else { "type" }
}

impl RopeScaling {
    /// Reads the scaling of `rope`, which has none yet. `top` is the configuration around it.
    pub fn parse(top: &Config, c: &Config, rope: &Rope) -> Result<Self> {
        let key = type_key(c);
        match c.text(key)?.unwrap_or("default") {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: c.positive("factor", None)? }),
            "llama3" => {
                let low_freq_factor = c.positive("low_freq_factor", None)?;
                let high_freq_factor = c.positive("high_freq_factor", None)?;
                if high_freq_factor <= low_freq_factor {
                    return Err(c.bad("high_freq_factor", "more than low_freq_factor"));
                }
                Ok(Self::Llama3 {
                    factor: c.positive("factor", None)?,
                    low_freq_factor,
                    high_freq_factor,
                    original_n_ctx: c.size("original_max_position_embeddings")? as f64,
                })
            }
            "per_pair" => Ok(Self::PerPair { factors: factors(c, rope.d_rotary / 2)? }),
            "dynamic" => parse_dynamic(top, c, rope),
            "yarn" => parse_yarn(top, c, rope),
            _ => Err(c.bad(key, KNOWN)),
        }
    }

    /// Factor of `cos` and `sin`.
    pub fn magnitude(&self) -> f32 {
        match *self {
            Self::Long { magnitude, .. } | Self::Yarn { magnitude, .. } => magnitude as f32,
            _ => 1.0,
        }
    }

    /// The speed of a pair, whose speed without a stretch is `speed`.
    pub fn apply(&self, pair: usize, speed: f64) -> f64 {
        match *self {
            Self::PerPair { ref factors } | Self::Long { ref factors, .. } => {
                speed / factors.get(pair).map_or(1.0, |factor| f64::from(*factor))
            }
            // The base is another one: see `Rope::at_length`.
            Self::Default | Self::Dynamic { .. } => speed,
            Self::Linear { factor } => speed / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_n_ctx } => {
                let turns = original_n_ctx * speed / std::f64::consts::TAU;
                let ramp = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - ramp) * speed / factor + ramp * speed
            }
            Self::Yarn { factor, low, high, .. } => {
                let high = if high == low { low + 0.001 } else { high };
                let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                speed / factor * ramp + speed * (1.0 - ramp)
            }
        }
    }
}

/// The context of a model under `max_position_embeddings`, as far as its rotary scaling reaches: `factor` times the original one for YaRN
/// and dynamic scaling, whose configurations often leave the original one in its place.
pub(super) fn context(c: &Config) -> Result<usize> {
    let n_ctx = c.size("max_position_embeddings")?;
    let Some(scaling) = c.object("rope_parameters")?.or(c.object("rope_scaling")?) else { return Ok(n_ctx) };
    // That of layers without a window, where there is one for each type of layers.
    let scaling = scaling.object("full_attention")?.unwrap_or(scaling);
    let original = match scaling.text(type_key(&scaling))? {
        Some("dynamic") => n_ctx,
        Some("yarn") => original_n_ctx(c, &scaling, n_ctx)?,
        _ => return Ok(n_ctx),
    };
    let reach = original as f64 * scaling.optional_positive("factor")?.unwrap_or(1.0);
    // The largest size that a configuration may state.
    Ok(n_ctx.max(reach.min(f64::from(1 << 28)) as usize))
}

/// `original_max_position_embeddings`, beside the scaling or in it.
fn original_n_ctx(top: &Config, c: &Config, default: usize) -> Result<usize> {
    let key = "original_max_position_embeddings";
    match (top.optional_size(key)?, c.optional_size(key)?) {
        (Some(top), Some(inner)) if top != inner => Err(c.bad(key, &format!("the {top} that stands at the top level"))),
        (Some(n_ctx), _) | (None, Some(n_ctx)) => Ok(n_ctx),
        (None, None) => Ok(default),
    }
}

fn parse_dynamic(top: &Config, c: &Config, rope: &Rope) -> Result<RopeScaling> {
    let (factor, n_ctx) = (c.positive("factor", None)?, top.size("max_position_embeddings")?);
    if factor < 1.0 {
        return Err(c.bad("factor", "at least 1"));
    }
    if rope.d_rotary <= 2 {
        return Err(c.bad(type_key(c), "another type where 2 entries of a head are turned: dynamic divides by d - 2"));
    }
    Ok(RopeScaling::Dynamic { factor, n_ctx })
}

/// As transformers computes it:
///
/// ```text
/// pair(turns) = d ln(original / (2 pi turns)) / (2 ln theta)
/// low, high   = floor pair(beta_fast), ceil pair(beta_slow)       within 0 and d - 1; not rounded with `truncate: false`
/// magnitude   = attention_factor, else m(mscale) / m(mscale_all_dim), else m(1)
/// m(s)        = 0.1 s ln(factor) + 1                              1 where the factor is at most 1
/// ```
fn parse_yarn(top: &Config, c: &Config, rope: &Rope) -> Result<RopeScaling> {
    let n_ctx = top.size("max_position_embeddings")?;
    let original = original_n_ctx(top, c, n_ctx)? as f64;
    let factor = c.positive("factor", Some(n_ctx as f64 / original))?;
    let mscale = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    // As in transformers, 0 counts as absent.
    let is_zero = |key| [0.into(), 0.0.into()].iter().any(|zero| c.refuse_unless(key, zero, "").is_ok());
    let scale_of = |key| if is_zero(key) { Ok(None) } else { c.optional_positive(key) };
    let magnitude = match (scale_of("mscale")?, scale_of("mscale_all_dim")?) {
        (Some(scale), Some(all_dim)) => mscale(scale) / mscale(all_dim),
        _ => mscale(1.0),
    };
    let magnitude = c.positive("attention_factor", Some(magnitude))?;
    let (fast, slow) = (c.positive("beta_fast", Some(32.0))?, c.positive("beta_slow", Some(1.0))?);
    if fast < slow {
        return Err(c.bad("beta_fast", &format!("at least beta_slow, {slow}")));
    }
    if rope.theta == 1.0 {
        return Err(c.bad("rope_theta", "another base than 1 for yarn"));
    }
    let d_rotary = rope.d_rotary as f64;
    let pair = |turns: f64| d_rotary * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * rope.theta.ln());
    let (low, high) = match c.flag("truncate", true)? {
        true => (pair(fast).floor(), pair(slow).ceil()),
        false => (pair(fast), pair(slow)),
    };
    Ok(RopeScaling::Yarn { factor, low: low.max(0.0), high: high.min(d_rotary - 1.0), magnitude })
}

/// The divisors of `per_pair`, one for each pair that is turned.
fn factors(c: &Config, pairs: usize) -> Result<Vec<f32>> {
    let expected = format!("positive factors, one for each of the {pairs} pairs");
    let factors = c.numbers("factors", &expected)?;
    if factors.len() != pairs || !factors.iter().all(|x| x.is_finite() && *x > 0.0) {
        return Err(c.bad("factors", &expected));
    }
    Ok(factors.into_iter().map(|x| x as f32).collect())
}
