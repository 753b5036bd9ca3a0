//! Features of a file, put back into the shards.

use crate::census::FeatureCensus;
use crate::fixed_point::{LIMIT, SQUARE_UNIT, SUM_UNIT};
use crate::histogram::{BINS, bin_of};
use crate::shard::{SHARD, Shard};
use crate::tally::FeatureParts;

type Checked<T> = Result<T, String>;

impl FeatureCensus {
    /// Sets a feature that is empty so far.
    pub(super) fn restore(&mut self, feature: u32, parts: &FeatureParts) -> Checked<()> {
        let (top, chosen) = (self.options.top, self.options.together.len());
        let shard = &mut self.shards[feature as usize / SHARD];
        let place = feature as usize % SHARD;
        parts.check()?;
        if parts.top.len() as u64 != parts.count.min(top as u64) {
            return Err(format!("{} strongest of {} activations, expected {top}", parts.top.len(), parts.count));
        }
        if parts.together.len() != chosen || parts.together.iter().any(|&both| both > parts.count) {
            return Err("its co-firing counts cannot be".into());
        }
        shard.restore(place, parts)?;
        let n = shard.tallies.len();
        parts.together.iter().enumerate().for_each(|(c, &both)| shard.together[c * n + place] = both);
        for example in &parts.top {
            shard.top.offer(place, example.value, example.address, example.token);
        }
        let ranked = shard.top.ranked(place);
        if ranked.iter().zip(&parts.top).any(|(a, b)| a.address != b.address) {
            return Err("its strongest activations are out of order".into());
        }
        Ok(())
    }
}

impl FeatureParts {
    /// Checks what does not depend on the options.
    fn check(&self) -> Checked<()> {
        let total = self.histogram.iter().try_fold(0u64, |sum, &(_, count)| sum.checked_add(count));
        if total != Some(self.count) || self.histogram.iter().any(|&(_, count)| count == 0) {
            return Err(format!("its histogram does not hold {} activations", self.count));
        }
        if self.count == 0 {
            let nothing = self.sum == 0 && self.squares == 0;
            return if nothing { Ok(()) } else { Err("it has a sum without activations".into()) };
        }
        let (min, max) = (self.min, self.max);
        let magnitude = min.abs().max(max.abs());
        // NaN is not below the limit.
        let extremes = min <= max && min.abs() < LIMIT && max.abs() < LIMIT && min != 0.0 && max != 0.0;
        let highest = self.histogram.last().map(|&(bin, _)| usize::from(bin));
        if !extremes || highest != Some(bin_of(magnitude)) {
            return Err(format!("its extremes are {min} and {max}"));
        }
        // Up to the rounding of each value and of f64.
        let most = self.count as f64 * f64::from(magnitude);
        let sums = (self.sum as f64 * SUM_UNIT).abs() <= most * 1.001 + 1e-6
            && self.squares as f64 * SQUARE_UNIT <= most * f64::from(magnitude) * 1.001 + 1e-6;
        if sums { Ok(()) } else { Err("its sums are larger than its activations can make".into()) }
    }
}

impl Shard {
    /// Sets the numbers, the histogram and the samples of a feature that is empty so far.
    fn restore(&mut self, place: usize, parts: &FeatureParts) -> Checked<()> {
        let tally = &mut self.tallies[place];
        (tally.count, tally.sum, tally.squares) = (parts.count, parts.sum, parts.squares);
        tally.documents = parts.documents;
        if parts.count > 0 {
            tally.widen(true, parts.min, parts.max);
            tally.top_bin = bin_of(parts.min.abs().max(parts.max.abs())) as u8;
        }
        let mut counts = [0; BINS];
        parts.histogram.iter().for_each(|&(bin, count)| counts[usize::from(bin)] = count);
        let window = self.window(place);
        let mut rest = parts.samples.as_slice();
        for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let n = rest.iter().take_while(|(of, _)| usize::from(*of) == bin).count();
            let (samples, others) = rest.split_at(n);
            rest = others;
            let room = if window.contains(&bin) { count.min(self.room() as u64) } else { 0 };
            if n as u64 != room {
                return Err(format!("it has {n} samples of {count} activations in bin {bin}, expected {room}"));
            }
            self.set_bin(place, bin, count, samples.iter().map(|(_, kept)| *kept))?;
        }
        if rest.is_empty() { Ok(()) } else { Err("its samples are out of order".into()) }
    }
}
