//! How sure a number is: documents drawn again and again.

use super::metric::{Formula, Metric};
use super::sums::Sums;
use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Each resample holds a number for each metric, some 300 bytes, until the last is made.
const MOST_RESAMPLES: u32 = 1_000_000;

/// How intervals are made. The default: 1,000 resamples, seed 0, 95 %.
///
/// A resample draws as many documents as there are, with replacement, and computes every metric from what they hold: the sums of a document drawn twice
/// count twice, so ratios (scores, explained variance) are those of the resampled text. The interval of a metric is between the percentiles of its
/// resampled values. Few documents make it too narrow, as any percentile interval: below some twenty take it for a rough idea. The mean for mean ablation and the batch means of the legacy explained variance stay as they were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Resamples; 0 for no intervals, at most 1,000,000.
    pub resamples: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// Share of the resampled values that the interval holds.
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0, level: 0.95 }
    }
}

/// From where to where the value lies, at the level asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Bootstrap {
    pub(super) fn check(&self) -> Result<()> {
        if self.resamples > MOST_RESAMPLES {
            let (option, expected) = ("resamples", "at most 1,000,000");
            return Err(Error::Option { option, expected, found: self.resamples.to_string() });
        }
        if self.level > 0.0 && self.level < 1.0 {
            return Ok(());
        }
        let (option, expected) = ("level", "more than 0 and less than 1");
        Err(Error::Option { option, expected, found: self.level.to_string() })
    }

    /// How often resample `resample` holds each of `units` documents. Each resample has a stream of random numbers of its own, so that none depends on
    /// how many there are or on who computes them.
    #[must_use]
    pub fn draw(&self, resample: u32, units: usize) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(resample));
        let mut times = vec![0; units];
        for _ in 0..units {
            times[rng.random_range(0..units as u64) as usize] += 1;
        }
        times
    }

    /// The interval of each metric; `None` without resamples, for fewer than two units, and for what is not made of sums.
    pub(super) fn intervals(&self, units: &[Sums], metrics: &[&Metric]) -> Vec<Option<Interval>> {
        let Some(first) = units.first().filter(|_| units.len() > 1 && self.resamples > 0) else {
            return vec![None; metrics.len()];
        };
        let empty = Sums::new(first.x.len());
        let resample = |sums: &mut Sums, i: u32| {
            sums.clear();
            for (unit, times) in units.iter().zip(self.draw(i, units.len())).filter(|(_, times)| *times > 0) {
                sums.add(unit, f64::from(times));
            }
            let value = |metric: &&Metric| match metric.formula {
                Formula::Sums(of) => of(sums),
                _ => f64::NAN,
            };
            metrics.iter().map(value).collect::<Vec<f64>>()
        };
        let values: Vec<Vec<f64>> = (0..self.resamples).into_par_iter().map_init(|| empty.clone(), resample).collect();
        (0..metrics.len()).map(|m| self.interval(values.iter().map(|v| v[m]).collect())).collect()
    }

    /// The percentiles, with straight lines between values. A resample in which the metric is not defined (no token was drawn that counts) has no say.
    fn interval(&self, mut values: Vec<f64>) -> Option<Interval> {
        values.retain(|v| v.is_finite());
        values.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        Some(Interval { low: quantile(&values, tail)?, high: quantile(&values, 1.0 - tail)? })
    }
}

/// A quantile of sorted values, as numpy's default has it.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_numpy() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let at = |q| quantile(&sorted, q).unwrap();
        assert_eq!([at(0.0), at(0.5), at(1.0), at(0.25)], [1.0, 3.0, 8.0, 1.75]);
        assert!((at(0.9) - 6.8).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.975), Some(3.0));
    }

    #[test]
    fn a_draw_holds_as_many_as_there_are() {
        let bootstrap = Bootstrap { seed: 3, ..Bootstrap::default() };
        for units in [1, 2, 17] {
            let drawn = bootstrap.draw(5, units);
            assert_eq!(drawn.iter().sum::<u32>() as usize, units);
            assert_eq!(drawn, bootstrap.draw(5, units));
        }
        assert_ne!(bootstrap.draw(5, 17), bootstrap.draw(6, 17));
        assert_ne!(bootstrap.draw(5, 17), Bootstrap::default().draw(5, 17));
        // Each document is drawn once on average.
        let total: u32 = (0..2000).map(|i| bootstrap.draw(i, 10)[4]).sum();
        assert!((1850..2150).contains(&total), "{total}");
    }
}
