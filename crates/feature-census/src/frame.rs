//! Statistics of all features as a frame.

use crate::census::FeatureCensus;
use crate::error::Result;
use crate::stats::FeatureStats;
use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch, UInt32Array, UInt64Array};
use std::sync::Arc;

impl FeatureCensus {
    /// One line a feature: `feature` (u32), `count` (u64), `density`, `mean`, `std`, `sum`, `sum_squares` (f64), `min`, `max` (f32; null where it never
    /// fired), `documents` (u64; null where they were not counted).
    ///
    /// # Errors
    /// The columnar library's.
    pub fn stats_frame(&self) -> Result<RecordBatch> {
        let stats = self.all_stats()?;
        let floats = |of: fn(&FeatureStats) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(stats.iter().map(of)))
        };
        let extremes = |of: fn(&FeatureStats) -> f32| -> ArrayRef {
            Arc::new(stats.iter().map(|s| (s.count > 0).then(|| of(s))).collect::<Float32Array>())
        };
        let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(stats.iter().map(|s| s.count)));
        let documents: ArrayRef = Arc::new(stats.iter().map(|s| s.documents).collect::<UInt64Array>());
        let features: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..self.d_sae as u32));
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("feature", features, false),
            ("count", counts, false),
            ("density", floats(|s| s.density), false),
            ("mean", floats(|s| s.mean), false),
            ("std", floats(|s| s.std), false),
            ("sum", floats(|s| s.sum), false),
            ("sum_squares", floats(|s| s.sum_squares), false),
            ("min", extremes(|s| s.min), true),
            ("max", extremes(|s| s.max), true),
            ("documents", documents, true),
        ])?)
    }
}
