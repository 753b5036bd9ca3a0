//! Rotary position embeddings: how fast each pair of entries turns.

use super::rope_scaling::RopeScaling;
use crate::Result;
use crate::config::Config;
use tensor_kernels::RopeLayout;

/// Rotary frequencies (`inv_freq`) of each pair of dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Base of the geometric series of angular speeds.
    pub theta: f64,
    /// Scaling for longer contexts.
    pub scaling: RopeScaling,
    /// Number of rotated entries of a head, the first ones; even.
    pub d_rotary: usize,
    /// Pairing of entries.
    pub pairs: RopeLayout,
}

impl Default for RopeKeys {
    fn default() -> Self {
        Self { theta: "rope_theta", share: "partial_rotary_factor", default_share: 1.0 }
    }
}

/// A family's top-level keys for the base and the rotated fraction of a head.
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
        rope.scaled(c, scaling.as_ref())
    }

    /// As [`parse_named`](Self::parse_named), without the scaling. Also returns the object under `rope_parameters` or `rope_scaling`.
    pub fn parse_unscaled(c: &Config, d_head: usize, keys: RopeKeys) -> Result<(Self, Option<Config>)> {
        c.refuse_unless("rope_interleaved", &false.into(), "false: turning neighboring pairs is not supported")?;
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
        Ok((Self { theta, scaling: RopeScaling::Default, d_rotary, pairs: RopeLayout::Half }, inner))
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
        let rope = Self { theta, scaling: RopeScaling::Default, d_rotary: d_head, pairs: RopeLayout::Half };
        rope.scaled(c, scaling.as_ref())
    }

    /// With the scaling that a configuration `c` holds, if any.
    pub fn scaled(self, c: &Config, scaling: Option<&Config>) -> Result<Self> {
        let parse = |scaling| RopeScaling::parse(c, scaling, &self);
        let scaling = scaling.map_or(Ok(RopeScaling::Default), parse)?;
        Ok(Self { scaling, ..self })
    }

    /// That of a text of so many positions, which differs under dynamic scaling.
    pub fn at_length(&self, positions: usize) -> Self {
        let RopeScaling::Dynamic { factor, n_ctx } = self.scaling else { return self.clone() };
        let width = self.d_rotary as f64;
        let stretch = factor * positions.max(n_ctx) as f64 / n_ctx as f64 - (factor - 1.0);
        Self { theta: self.theta * stretch.powf(width / (width - 2.0)), scaling: RopeScaling::Default, ..self.clone() }
    }

    /// Whether texts of these two lengths are turned by the same angles.
    pub fn turns_alike(&self, lengths: [usize; 2]) -> bool {
        let RopeScaling::Dynamic { n_ctx, .. } = self.scaling else { return true };
        let [one, other] = lengths.map(|length| length.max(n_ctx));
        one == other
    }

    /// The angular speed of each of the `d_rotary / 2` pairs, in radians per position.
    pub fn speeds(&self) -> Vec<f32> {
        let width = self.d_rotary as f64;
        (0..self.d_rotary / 2)
            .map(|i| self.scaling.apply(i, self.theta.powf(-((2 * i) as f64) / width)) as f32)
            .collect()
    }
}

/// Number of the `d_head` entries that the fraction under `key` rotates: a whole, even number of them, rounded down as
/// transformers does.
pub(crate) fn part_of(c: &Config, key: &str, d_head: usize, default: f64) -> Result<usize> {
    let share = c.positive(key, Some(default))?;
    let d_rotary = (d_head as f64 * share) as usize;
    if share > 1.0 || d_rotary == 0 || !d_rotary.is_multiple_of(2) {
        return Err(c.bad(key, &format!("a share of d_head = {d_head} that is a positive even number of entries")));
    }
    Ok(d_rotary)
}
