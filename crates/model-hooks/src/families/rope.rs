//! Rotary position embeddings and the ways in which configurations stretch them.

use crate::Result;
use crate::config::Config;
use std::sync::{Arc, Mutex, PoisonError};
use tensor_kernels::RopePairs;

/// How fast each pair of a head turns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Base of the geometric series of angular speeds.
    pub theta: f64,
    /// What was done to reach longer contexts.
    pub scaling: RopeScaling,
    /// How many entries of a head are turned, the first ones; even.
    pub d_rotary: usize,
    /// Which two entries make a pair.
    pub pairs: RopePairs,
}

/// `cos` and `sin` of every `(position, pair)`, row after row. Angles are products of f32, as in transformers.
#[derive(Debug)]
pub(crate) struct Angles {
    /// How many positions they reach.
    pub positions: usize,
    /// How many entries of a head are turned, the first ones.
    pub d_rotary: usize,
    /// Which two entries make a pair.
    pub pairs: RopePairs,
    /// `[positions * d_rotary / 2]`
    pub cos: Vec<f32>,
    /// `[positions * d_rotary / 2]`
    pub sin: Vec<f32>,
}

impl Angles {
    /// `cos` and `sin` of each pair at a position.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.d_rotary / 2;
        (&self.cos[position * half..][..half], &self.sin[position * half..][..half])
    }
}

/// The angles of a model, kept between runs: those of more positions begin with those of fewer.
#[derive(Debug, Default)]
pub(crate) struct KeptAngles(Mutex<Option<Arc<Angles>>>);

impl KeptAngles {
    /// Angles of at least so many positions.
    pub fn get(&self, rope: &Rope, positions: usize) -> Arc<Angles> {
        // A poisoned lock only means that another thread panicked; whatever it left is a whole table.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(angles) if angles.positions >= positions => angles.clone(),
            _ => kept.insert(Arc::new(rope.angles(positions))).clone(),
        }
    }
}

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
    /// Each pair's speed divided by its own factor: how GGUF files spell Llama 3.1's scaling. `per_pair` is no word of Hugging
    /// Face's.
    PerPair {
        /// `d_head / 2` divisors.
        factors: Vec<f32>,
    },
    /// Each pair's speed divided by its own factor, `cos` and `sin` multiplied: LongRoPE.
    Long {
        /// `d_rotary / 2` divisors.
        factors: Vec<f32>,
        /// What `cos` and `sin` are multiplied by.
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
}

impl Default for RopeKeys {
    fn default() -> Self {
        Self { theta: "rope_theta", share: "partial_rotary_factor", default_share: 1.0 }
    }
}

/// What a family's configurations call the base and the share of a head at the top level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeKeys {
    /// The base.
    pub theta: &'static str,
    /// The share of each head that is turned.
    pub share: &'static str,
    /// The share where nothing is said.
    pub default_share: f64,
}

impl Rope {
    /// As [`parse_partial`](Self::parse_partial), of a family that turns whole heads.
    pub fn parse(c: &Config, d_head: usize) -> Result<Self> {
        let rope = Self::parse_partial(c, d_head)?;
        if rope.d_rotary != d_head {
            return Err(c.bad("partial_rotary_factor", "1: this family turns whole heads"));
        }
        Ok(rope)
    }

    /// Reads `rope_theta`, the scaling and the share of each head (of width `d_head`) that is turned, from `rope_parameters`
    /// (transformers 5) or from the top level and `rope_scaling`.
    pub fn parse_partial(c: &Config, d_head: usize) -> Result<Self> {
        Self::parse_named(c, d_head, RopeKeys::default())
    }

    /// As [`parse_partial`](Self::parse_partial), of a family with names of its own at the top level.
    pub fn parse_named(c: &Config, d_head: usize, keys: RopeKeys) -> Result<Self> {
        let (rope, scaling) = Self::parse_unscaled(c, d_head, keys)?;
        let parse = |c| RopeScaling::parse(c, rope.d_rotary / 2);
        let scaling = scaling.as_ref().map_or(Ok(RopeScaling::Default), parse)?;
        Ok(Self { scaling, ..rope })
    }

    /// As [`parse_named`](Self::parse_named), without the scaling: also what stands under `rope_parameters` or `rope_scaling`.
    pub fn parse_unscaled(c: &Config, d_head: usize, keys: RopeKeys) -> Result<(Self, Option<Config>)> {
        c.refuse_unless("rope_interleaved", &false.into(), "false: turning neighbouring pairs is not supported")?;
        c.refuse_both("rope_parameters", "rope_scaling")?;
        let (new, old) = (c.object("rope_parameters")?, c.object("rope_scaling")?);
        let top = if c.has(keys.theta) { Some(c.positive(keys.theta, None)?) } else { None };
        let inner = new.or(old);
        let theta = match &inner {
            Some(inner) => inner.positive("rope_theta", Some(top.unwrap_or(10_000.0)))?,
            None => top.unwrap_or(10_000.0),
        };
        if let Some(inner) = inner.as_ref().filter(|_| top.is_some_and(|top| top != theta)) {
            return Err(inner.bad("rope_theta", &format!("the same value as {} at the top level", keys.theta)));
        }
        let (at, share) = match &inner {
            Some(inner) if inner.has("partial_rotary_factor") => (inner, "partial_rotary_factor"),
            _ => (c, keys.share),
        };
        let d_rotary = part_of(at, share, d_head, keys.default_share)?;
        Ok((Self { theta, scaling: RopeScaling::Default, d_rotary, pairs: RopePairs::Halves }, inner))
    }

    /// Reads the parameters of one type of layers, all of whose heads are turned whole: `rope_parameters.{layers}`, or the base under an
    /// old key (with its default) and `old_scaling`.
    pub fn parse_of_layers(
        c: &Config,
        layers: &str,
        (old_key, default): (&str, f64),
        old_scaling: Option<Config>,
        d_head: usize,
    ) -> Result<Self> {
        c.refuse_unless("partial_rotary_factor", &1.0.into(), "1: this family turns whole heads")?;
        c.refuse_both("rope_parameters", "rope_scaling")?;
        let old_theta = c.positive(old_key, Some(default))?;
        let (theta, scaling) = match c.object("rope_parameters")?.map(|all| all.object(layers)).transpose()?.flatten() {
            Some(new) => (new.positive("rope_theta", Some(old_theta))?, Some(new)),
            None => (old_theta, old_scaling),
        };
        let parse = |c| RopeScaling::parse(c, d_head / 2);
        let scaling = scaling.as_ref().map_or(Ok(RopeScaling::Default), parse)?;
        Ok(Self { theta, scaling, d_rotary: d_head, pairs: RopePairs::Halves })
    }

    /// The angular speed of each of the `d_rotary / 2` pairs, in radians per position.
    pub fn speeds(&self) -> Vec<f32> {
        let width = self.d_rotary as f64;
        (0..self.d_rotary / 2)
            .map(|i| self.scaling.apply(i, self.theta.powf(-((2 * i) as f64) / width)) as f32)
            .collect()
    }

    /// The angles of the first positions.
    pub fn angles(&self, positions: usize) -> Angles {
        let speeds = self.speeds();
        let angles = (0..positions).flat_map(|pos| speeds.iter().map(move |speed| pos as f32 * speed));
        let magnitude = self.scaling.magnitude();
        let (cos, sin) =
            angles.map(f64::from).map(|angle| (angle.cos() as f32 * magnitude, angle.sin() as f32 * magnitude)).unzip();
        Angles { positions, d_rotary: self.d_rotary, pairs: self.pairs, cos, sin }
    }
}

/// How many of `d_head` entries the share under `key` turns: a whole, even number of them, rounded down as
/// transformers does.
pub(crate) fn part_of(c: &Config, key: &str, d_head: usize, default: f64) -> Result<usize> {
    let share = c.positive(key, Some(default))?;
    let d_rotary = (d_head as f64 * share) as usize;
    if share > 1.0 || d_rotary == 0 || !d_rotary.is_multiple_of(2) {
        return Err(c.bad(key, &format!("a share of d_head = {d_head} that is a positive even number of entries")));
    }
    Ok(d_rotary)
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

impl RopeScaling {
    fn parse(c: &Config, pairs: usize) -> Result<Self> {
        let key = if c.has("rope_type") { "rope_type" } else { "type" };
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
            "per_pair" => Ok(Self::PerPair { factors: factors(c, pairs)? }),
            _ => Err(c.bad(key, "default, linear or llama3")),
        }
    }

    /// What `cos` and `sin` are multiplied by.
    fn magnitude(&self) -> f32 {
        match *self {
            Self::Long { magnitude, .. } => magnitude as f32,
            _ => 1.0,
        }
    }

    fn apply(&self, pair: usize, speed: f64) -> f64 {
        match *self {
            Self::PerPair { ref factors } | Self::Long { ref factors, .. } => speed / f64::from(factors[pair]),
            Self::Default => speed,
            Self::Linear { factor } => speed / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_n_ctx } => {
                let turns = original_n_ctx * speed / std::f64::consts::TAU;
                let ramp = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - ramp) * speed / factor + ramp * speed
            }
        }
    }
}
