//! `cos` and `sin` of the rotary angles, kept between runs.

use super::rope::Rope;
use super::rope_scaling::RopeScaling;
use crate::forward::positions::Positions;
use std::sync::{Arc, Mutex, PoisonError};
use tensor_kernels::RopeLayout;

/// Positions of a table that is made for the first time, at least.
const SMALLEST: usize = 64;

/// `cos` and `sin` of every `(position, pair)`, row after row. Angles are products of f32, as in transformers.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    /// Number of positions.
    pub positions: usize,
    /// Number of rotated entries of a head, the first ones.
    pub d_rotary: usize,
    /// Pairing of entries.
    pub pairs: RopeLayout,
    /// `[positions * d_rotary / 2]`
    pub cos: Vec<f32>,
    /// `[positions * d_rotary / 2]`
    pub sin: Vec<f32>,
}

impl RopeTable {
    /// The angles of the first positions.
    pub fn new(rope: &Rope, positions: usize) -> Self {
        let none = Self { positions: 0, d_rotary: rope.d_rotary, pairs: rope.pairs, cos: Vec::new(), sin: Vec::new() };
        none.extended(rope, positions)
    }

    /// The same with more positions: those of more begin with those of fewer.
    fn extended(mut self, rope: &Rope, positions: usize) -> Self {
        count(positions - self.positions);
        let (speeds, magnitude) = (rope.speeds(), rope.scaling.magnitude());
        let new = (positions - self.positions) * speeds.len();
        self.cos.reserve_exact(new);
        self.sin.reserve_exact(new);
        for position in self.positions..positions {
            let angles = speeds.iter().map(|speed| f64::from(position as f32 * speed));
            self.cos.extend(angles.clone().map(|angle| angle.cos() as f32 * magnitude));
            self.sin.extend(angles.map(|angle| angle.sin() as f32 * magnitude));
        }
        self.positions = positions;
        self
    }

    /// `cos` and `sin` of each pair at a position.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.d_rotary / 2;
        (&self.cos[position * half..][..half], &self.sin[position * half..][..half])
    }
}

/// The angles of a model, kept between runs. A table grows by doubling, so a text that is carried on token by token costs each of its
/// positions about one row of the table in all.
#[derive(Debug, Default)]
pub(crate) struct RotaryEmbedding(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of every text whose angles do not depend on its length.
    usual: Option<Arc<RopeTable>>,
    /// Of texts of one length, under dynamic scaling.
    of_length: Option<(usize, Arc<RopeTable>)>,
}

impl RotaryEmbedding {
    /// Angles of at least so many positions, of a text whose length does not matter.
    pub fn get(&self, rope: &Rope, positions: usize) -> Arc<RopeTable> {
        // A poisoned lock only means that another thread panicked; the table is still complete.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.usual.take() {
            Some(angles) if angles.positions >= positions => kept.usual.insert(angles).clone(),
            old => {
                let before = old.as_ref().map_or(0, |angles| angles.positions);
                let reach = positions.max(2 * before).max(SMALLEST);
                let angles = match old {
                    Some(old) => Arc::unwrap_or_clone(old).extended(rope, reach),
                    None => RopeTable::new(rope, reach),
                };
                kept.usual.insert(Arc::new(angles)).clone()
            }
        }
    }

    /// The angles of a run. Under dynamic scaling those of a longer text than the original context depend on its length: on that of the
    /// longest row of the batch, its padding included, and on nothing that ran before (transformers turns a text by the longest one that
    /// ran before it).
    pub fn of_run(&self, rope: &Rope, columns: &Positions) -> Arc<RopeTable> {
        let end = columns.end();
        match rope.scaling {
            RopeScaling::Dynamic { n_ctx, .. } if end > n_ctx => {}
            _ => return self.get(rope, end),
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &kept.of_length {
            Some((length, angles)) if *length == end => angles.clone(),
            _ => {
                let angles = Arc::new(RopeTable::new(&rope.at_length(end), end));
                kept.of_length = Some((end, angles.clone()));
                angles
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Rows of tables that this thread computed, for tests that state how many a run takes.
    pub(crate) static COMPUTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count(rows: usize) {
    COMPUTED.set(COMPUTED.get() + rows);
}

#[cfg(not(test))]
fn count(_: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope { theta: 10_000.0, scaling, d_rotary: 8, pairs: RopeLayout::Half }
    }

    /// Token by token up to 8192 positions: each row of the table is computed about once, and equals that of a table made at once.
    #[test]
    fn a_table_that_grows_token_by_token_is_computed_about_once() {
        let (rope, kept) = (rope(RopeScaling::Default), RotaryEmbedding::default());
        let before = COMPUTED.get();
        let mut tables = 0;
        let mut last = 0;
        for position in 0..8192 {
            let angles = kept.of_run(&rope, &Positions::new(position, 1, std::iter::once(0..position + 1).collect()));
            tables += usize::from(angles.positions != last);
            last = angles.positions;
        }
        assert_eq!((COMPUTED.get() - before, tables), (8192, 8), "64, 128, ..., 8192");
        let (grown, at_once) = (kept.get(&rope, 8192), RopeTable::new(&rope, 8192));
        assert!(grown.cos == at_once.cos && grown.sin == at_once.sin);
    }

    #[test]
    fn dynamic_angles_depend_on_the_length_of_this_text_alone() {
        let (rope, kept) = (rope(RopeScaling::Dynamic { factor: 2.0, n_ctx: 16 }), RotaryEmbedding::default());
        let run =
            |offset, pos| kept.of_run(&rope, &Positions::new(offset, pos, std::iter::once(0..offset + pos).collect()));
        let slowest = |angles: Arc<RopeTable>| angles.at(15).1[3];
        let short = slowest(run(0, 16));
        let [longer, longest] = [24, 32].map(|n| slowest(run(0, n)));
        assert!(short > longer && longer > longest, "{short} {longer} {longest}");
        assert_eq!(slowest(run(0, 24)), longer, "whatever ran before");
        assert_eq!(slowest(run(8, 8)), short, "a cached text within the original context");
        // d = 8: theta (2 * 32 / 16 - 1)^(8 / 6).
        let speed = (10_000.0 * 3f64.powf(8.0 / 6.0)).powf(-6.0 / 8.0) as f32;
        assert!((longest - (15.0 * speed).sin()).abs() < 1e-6);
        assert!([[3, 16], [16, 16], [24, 24]].iter().all(|lengths| rope.turns_alike(*lengths)));
        assert!([[16, 17], [17, 18], [24, 16], [24, 3]].iter().all(|lengths| !rope.turns_alike(*lengths)));
    }
}
