//! What is computed of a feature's activations and logits.

use super::spool::Firing;
use activation_store::sample_hash::{address_key, feature_key, hash};

const BINS: usize = 50;
const STRONGEST: usize = 20;
const FIFTHS: usize = 5;
const OF_EACH_FIFTH: usize = 5;

/// To 3 decimals, ties to the even one, as numpy rounds.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round_ties_even() / 1e3
}

/// A share that is shown as a percentage of 3 decimals.
pub(super) fn share(part: usize, all: u64) -> f64 {
    rounded(part as f64 / all as f64 * 100.0) / 100.0
}

/// The middles of 50 bins from the smallest to the largest value, and how many are in each; the largest is in the last.
pub(super) fn histogram(values: &[f32]) -> (Vec<f64>, Vec<u64>) {
    if values.is_empty() {
        return Default::default();
    }
    let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let mut heights = vec![0; BINS];
    for value in values {
        // Equal values lie in the middle bin.
        let at = if least < most { (value - least) / (most - least) * BINS as f32 } else { BINS as f32 / 2.0 };
        heights[(at as usize).min(BINS - 1)] += 1;
    }
    let width = (f64::from(most) - f64::from(least)) / BINS as f64;
    let middle = |i: usize| rounded(f64::from(least) + (i as f64 + 0.5) * width);
    ((0..BINS).map(middle).collect(), heights)
}

/// The `k` largest values, largest first, among equals the earlier first.
pub(super) fn largest(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if order.len() > k && k > 0 {
        order.select_nth_unstable_by(k - 1, by);
    }
    order.truncate(k);
    order.sort_unstable_by(by);
    order
}

/// Examples with something in common.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) bin_min: f64,
    pub(super) bin_max: f64,
    pub(super) bin_contains: f64,
    pub(super) examples: Vec<&'a Firing>,
}

/// The strongest, and draws from each fifth of the range of magnitudes; `firings` are by row and position, `tokens` counts all tokens.
pub(super) fn groups(firings: &[Firing], feature: u32, tokens: u64, seed: u64) -> Vec<Group<'_>> {
    // An example leaves the first position out, so that cannot be what it is about.
    let shown: Vec<&Firing> = firings.iter().filter(|firing| firing.pos > 0).collect();
    let values: Vec<f32> = shown.iter().map(|firing| firing.value.abs()).collect();
    let most = firings.iter().map(|firing| f64::from(firing.value.abs())).fold(0.0, f64::max);
    if shown.is_empty() {
        return Vec::new();
    }
    let strongest = largest(&values, STRONGEST).into_iter().map(|i| shown[i]).collect();
    let mut groups = vec![Group { bin_min: -1.0, bin_max: rounded(most), bin_contains: -1.0, examples: strongest }];
    let key = feature_key(seed, feature);
    for fifth in (0..FIFTHS).rev() {
        let (low, high) = (most * fifth as f64 / FIFTHS as f64, most * (fifth + 1) as f64 / FIFTHS as f64);
        let inside = |firing: &Firing| (low..=high).contains(&f64::from(firing.value.abs()));
        let mut count = firings.iter().filter(|firing| inside(firing)).count();
        if fifth == 0 {
            count += tokens as usize - firings.len();
        }
        let mut drawn: Vec<&Firing> = shown.iter().copied().filter(|firing| inside(firing)).collect();
        drawn.sort_by_cached_key(|firing| hash(key, address_key(u64::from(firing.row) << 32 | u64::from(firing.pos))));
        drawn.truncate(OF_EACH_FIFTH);
        let (bin_min, bin_max) = (rounded(low), rounded(high));
        groups.push(Group { bin_min, bin_max, bin_contains: share(count, tokens), examples: drawn });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_torchs() {
        // torch.histc(torch.tensor([0., 1., 1., 50.]), bins=50) is 1 in bin 0, 2 in bin 1, 1 in bin 49.
        let (values, heights) = histogram(&[0.0, 1.0, 1.0, 50.0]);
        assert_eq!((heights[0], heights[1], heights[49], heights.iter().sum::<u64>()), (1, 2, 1, 4));
        assert_eq!((values[0], values[49]), (0.5, 49.5));
        // torch.histc(torch.tensor([2., 2.]), bins=50) is 2 in bin 25.
        let (values, heights) = histogram(&[2.0, 2.0]);
        assert_eq!((heights[25], values[0], values[49]), (2, 2.0, 2.0));
        assert_eq!(histogram(&[]), (vec![], vec![]));
    }

    #[test]
    fn the_largest_come_first_and_the_earlier_of_equals() {
        assert_eq!(largest(&[1.0, 3.0, -2.0, 3.0, 2.0], 3), [1, 3, 4]);
        assert_eq!(largest(&[1.0], 3), [0]);
        assert!(largest(&[1.0], 0).is_empty());
    }

    #[test]
    fn every_firing_token_is_in_a_fifth_and_the_lowest_holds_the_others() {
        let firings: Vec<Firing> =
            (0..40).map(|i| Firing { row: i / 8, pos: i % 8, value: (i + 1) as f32 / 4.0 }).collect();
        let groups = groups(&firings, 3, 1000, 7);
        assert_eq!(groups.len(), 6);
        assert_eq!(groups[0].examples.len(), 20);
        assert!(groups[0].examples.is_sorted_by(|a, b| a.value >= b.value));
        assert!(groups.iter().flat_map(|group| &group.examples).all(|firing| firing.pos > 0));
        assert_eq!((groups[1].bin_min, groups[1].bin_max), (8.0, 10.0));
        assert!((groups[1].bin_contains - 0.009).abs() < 1e-9);
        // 8 firing tokens of at most 2, and 960 on which nothing fires.
        assert!(groups[5].bin_min == 0.0 && (groups[5].bin_contains - 0.968).abs() < 1e-9);
        for group in &groups[1..] {
            assert_eq!(group.examples.len(), 5);
            let inside = |firing: &&Firing| (group.bin_min..=group.bin_max).contains(&f64::from(firing.value));
            assert!(group.examples.iter().all(inside), "{group:?}");
        }
    }

    /// A feature that fires negatively has the groups of one that fires as strongly, and its examples keep their sign.
    #[test]
    fn signed_activations_are_grouped_by_magnitude() {
        let signed = |sign: f32| -> Vec<Firing> {
            let value = |i: u32| if i.is_multiple_of(3) { sign * (i + 1) as f32 } else { (i + 1) as f32 };
            (0..40).map(|i| Firing { row: i / 8, pos: i % 8, value: value(i) / 4.0 }).collect()
        };
        let [negative, positive] = [-1.0, 1.0].map(signed);
        let (found, expected) = (groups(&negative, 3, 1000, 7), groups(&positive, 3, 1000, 7));
        let numbers = |group: &Group<'_>| (group.bin_min, group.bin_max, group.bin_contains, group.examples.len());
        assert!(found.iter().map(numbers).eq(expected.iter().map(numbers)));
        let both =
            found.iter().zip(&expected).flat_map(|(found, expected)| found.examples.iter().zip(&expected.examples));
        for (found, expected) in both {
            assert_eq!((found.row, found.pos, found.value.abs()), (expected.row, expected.pos, expected.value));
            assert_eq!(found.value < 0.0, (found.row * 8 + found.pos).is_multiple_of(3));
        }
    }
}
