//! Rotary position embeddings and the ways in which configurations stretch them.

use crate::Result;
use crate::config::Config;
use std::sync::{Arc, Mutex, PoisonError};

/// How fast each pair of a head turns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Base of the geometric series of angular speeds.
    pub theta: f64,
    /// What was done to reach longer contexts.
    pub scaling: RopeScaling,
}

/// `cos` and `sin` of every `(position, pair)`, row after row. Angles are products of f32, as in transformers.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    /// How many positions they reach.
    positions: usize,
    /// `[positions * d_head / 2]`
    pub cos: Vec<f32>,
    /// `[positions * d_head / 2]`
    pub sin: Vec<f32>,
}

/// The angles of a model, kept between runs: those of more positions begin with those of fewer.
#[derive(Debug, Default)]
pub(crate) struct KeptAngles(Mutex<Arc<Angles>>);

impl KeptAngles {
    /// Angles of at least so many positions.
    pub fn get(&self, rope: &Rope, d_head: usize, positions: usize) -> Arc<Angles> {
        // A poisoned lock only means that another thread panicked; whatever it left is a whole table.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.positions < positions {
            *kept = Arc::new(rope.angles(d_head, positions));
        }
        kept.clone()
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
    /// Each pair's speed divided by its own factor: how GGUF files spell Llama 3.1's scaling.
    PerPair {
        /// `d_head / 2` divisors.
        factors: Vec<f32>,
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

impl Rope {
    /// Reads `rope_theta` and the scaling, from `rope_parameters` (transformers 5) or from the top level and `rope_scaling`.
    pub fn parse(c: &Config) -> Result<Self> {
        refuse_other_rotations(c)?;
        let (new, old) = (c.object("rope_parameters")?, c.object("rope_scaling")?);
        let top = if c.has("rope_theta") { Some(c.positive("rope_theta", None)?) } else { None };
        let Some(inner) = new.or(old) else {
            return Ok(Self { theta: top.unwrap_or(10_000.0), scaling: RopeScaling::Default });
        };
        let theta = inner.positive("rope_theta", Some(top.unwrap_or(10_000.0)))?;
        if top.is_some_and(|top| top != theta) {
            return Err(inner.bad("rope_theta", "the same value as the rope_theta at the top level"));
        }
        inner.refuse_unless(
            "partial_rotary_factor",
            &1.0.into(),
            "1: rotating a part of each head is not supported",
        )?;
        Ok(Self { theta, scaling: RopeScaling::parse(&inner)? })
    }

    /// The angular speed of each of the `d_head / 2` pairs, in radians per position.
    pub fn speeds(&self, d_head: usize) -> Vec<f32> {
        (0..d_head / 2)
            .map(|i| self.scaling.apply(i, self.theta.powf(-((2 * i) as f64) / d_head as f64)) as f32)
            .collect()
    }

    /// The angles of the first positions.
    pub fn angles(&self, d_head: usize, positions: usize) -> Angles {
        let speeds = self.speeds(d_head);
        let angles = (0..positions).flat_map(|pos| speeds.iter().map(move |speed| pos as f32 * speed));
        let (cos, sin) = angles.map(|angle| (f64::from(angle).cos() as f32, f64::from(angle).sin() as f32)).unzip();
        Angles { positions, cos, sin }
    }
}

/// Configurations that turn other pairs, or only a part of each head.
fn refuse_other_rotations(c: &Config) -> Result<()> {
    c.refuse_unless("rope_interleaved", &false.into(), "false: turning neighbouring pairs is not supported")?;
    if c.positive("partial_rotary_factor", Some(1.0))? != 1.0 {
        return Err(c.bad("partial_rotary_factor", "1: turning a part of each head is not supported"));
    }
    Ok(())
}

impl RopeScaling {
    fn parse(c: &Config) -> Result<Self> {
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
            _ => Err(c.bad(key, "default, linear or llama3")),
        }
    }

    fn apply(&self, pair: usize, speed: f64) -> f64 {
        match *self {
            Self::PerPair { ref factors } => speed / f64::from(factors[pair]),
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
