//! [`Sampling`]: choice of the next token.

use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// Choice of the next token from its logits. Of equal logits the lower id counts as the likelier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Sampling {
    /// The likeliest token.
    #[default]
    Greedy,
    /// A random one.
    Random(SamplingOptions),
}

/// A random choice, in this order:
///
/// ```text
/// 1. w_i = e^((x_i - max x) / temperature)        of each token's logit x_i, in f64
/// 2. the top_k likeliest tokens are kept          exactly so many
/// 3. of these, the likeliest until their sum reaches top_p of the sum of all that step 2 kept; at least one
/// 4. token i with probability w_i / sum w         of the kept ones: the first, in the order of ids, at which the running sum
///                                                 exceeds u times the sum, with u in [0, 1) from ChaCha8
/// ```
/// The generator of row `r` is seeded with `seed` and runs on stream `r`, one number for each token, so that what a row draws does not
/// depend on the other rows. `top_k` of at least the vocabulary and `top_p` of 1 change nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplingOptions {
    /// Divisor of the logits; more than 0.
    pub temperature: f64,
    /// Number of likeliest tokens kept, at least 1; `None`: all.
    pub top_k: Option<usize>,
    /// The share of probability that is kept, more than 0 and at most 1; `None`: all of it.
    pub top_p: Option<f64>,
    /// The seed.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl SamplingOptions {
    /// Temperature 1, everything kept.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    fn check(&self) -> Result<()> {
        let bad =
            |what, expected: &str, found: String| Err(Error::BadOption { what, expected: expected.into(), found });
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let expected = "a number greater than 0 (Sampling::Greedy takes the likeliest token)";
            return bad("temperature", expected, self.temperature.to_string());
        }
        match (self.top_k, self.top_p) {
            (Some(0), _) => bad("top_k", "at least 1", "0".into()),
            (_, Some(p)) if !(p > 0.0 && p <= 1.0) => bad("top_p", "more than 0 and at most 1", p.to_string()),
            _ => Ok(()),
        }
    }
}

/// The choices of one row.
pub(super) struct Sampler {
    random: Option<(SamplingOptions, ChaCha8Rng)>,
    /// Candidates with their weights.
    kept: Vec<(u32, f64)>,
}

impl Sampler {
    pub fn new(sampling: Sampling, row: usize) -> Result<Self> {
        let random = match sampling {
            Sampling::Greedy => None,
            Sampling::Random(random) => {
                random.check()?;
                let mut rng = ChaCha8Rng::seed_from_u64(random.seed);
                rng.set_stream(row as u64);
                Some((random, rng))
            }
        };
        Ok(Self { random, kept: Vec::new() })
    }

    /// The next token; `None` where the logits say nothing: a NaN, an infinity, or nothing but -inf.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        if logits.iter().any(|x| x.is_nan()) {
            return None;
        }
        let likeliest = (0..logits.len() as u32).min_by(|a, b| likelier(logits, *a, *b))?;
        let largest = logits[likeliest as usize];
        if !largest.is_finite() {
            return None;
        }
        let Some((random, rng)) = &mut self.random else { return Some(likeliest) };
        let weight = |(id, x): (usize, &f32)| {
            let weight = (f64::from(x - largest) / random.temperature).exp();
            (*x > f32::NEG_INFINITY).then_some((id as u32, weight))
        };
        self.kept.clear();
        self.kept.extend(logits.iter().enumerate().filter_map(weight));
        cut(&mut self.kept, random, logits);
        let total: f64 = self.kept.iter().map(|(_, weight)| weight).sum();
        let (target, mut sum) = (rng.random::<f64>() * total, 0.0);
        let reached = |(_, weight): &&(u32, f64)| {
            sum += weight;
            sum > target
        };
        self.kept.iter().find(reached).map(|(id, _)| *id).or(Some(likeliest))
    }
}

/// Leaves only the candidates that `top_k` and `top_p` keep, in the order of ids.
fn cut(kept: &mut Vec<(u32, f64)>, random: &SamplingOptions, logits: &[f32]) {
    let top_k = random.top_k.filter(|k| *k < kept.len());
    let top_p = random.top_p.filter(|p| *p < 1.0);
    if top_k.is_none() && top_p.is_none() {
        return;
    }
    let order = |a: &(u32, f64), b: &(u32, f64)| likelier(logits, a.0, b.0);
    if let Some(k) = top_k {
        kept.select_nth_unstable_by(k, order);
        kept.truncate(k);
    }
    if let Some(p) = top_p {
        kept.sort_unstable_by(order);
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let reached = |(_, weight): &(u32, f64)| {
            sum += weight;
            sum >= p * total
        };
        let last = kept.iter().position(reached).unwrap_or(kept.len() - 1);
        kept.truncate(last + 1);
    }
    kept.sort_unstable_by_key(|(id, _)| *id);
}

fn likelier(logits: &[f32], a: u32, b: u32) -> Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(random: SamplingOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut chooser = Sampler::new(Sampling::Random(random), 0).unwrap();
        let mut counts = vec![0; logits.len()];
        (0..draws).for_each(|_| counts[chooser.choose(logits).unwrap() as usize] += 1);
        counts
    }

    fn random(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> SamplingOptions {
        SamplingOptions { temperature, top_k, top_p, seed: 7 }
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_likeliest() {
        let mut greedy = Sampler::new(Sampling::Greedy, 0).unwrap();
        assert_eq!(greedy.choose(&[1.0, 3.0, f32::NEG_INFINITY, 3.0]), Some(1));
        for nothing in [vec![], vec![f32::NEG_INFINITY; 2], vec![1.0, f32::NAN], vec![1.0, f32::INFINITY]] {
            assert_eq!(greedy.choose(&nothing), None);
            assert_eq!(Sampler::new(Sampling::Random(SamplingOptions::seeded(1)), 0).unwrap().choose(&nothing), None);
        }
    }

    /// Probabilities 0.1, 0.2, 0.3, 0.4 at temperature 1; each count within five standard deviations.
    #[test]
    fn draws_have_the_probabilities_of_the_formula() {
        let p = [0.1f64, 0.2, 0.3, 0.4];
        let logits = p.map(|p| p.ln() as f32 + 2.0);
        let squares: Vec<f64> = p.iter().map(|p| p * p / 0.3).collect();
        let cases = [
            (random(1.0, None, None), p.to_vec()),
            (random(0.5, None, None), squares),
            (random(1.0, Some(3), None), vec![0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]),
            (random(1.0, Some(1), None), vec![0.0, 0.0, 0.0, 1.0]),
            (random(1.0, None, Some(0.65)), vec![0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]),
            (random(1.0, None, Some(0.71)), vec![0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]),
            // Of the three that are kept, 4/9 and 3/9 are more than 0.7.
            (random(1.0, Some(3), Some(0.7)), vec![0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]),
            (random(1.0, None, Some(1e-9)), vec![0.0, 0.0, 0.0, 1.0]),
        ];
        let draws = 20_000;
        for (random, expected) in cases {
            for (count, p) in counts(random, &logits, draws).into_iter().zip(expected) {
                let deviation = (draws as f64 * p * (1.0 - p)).sqrt();
                let off = (count as f64 - draws as f64 * p).abs();
                assert!(off <= 5.0 * deviation, "{random:?}: {count} of {draws}, expected {p}");
            }
        }
    }

    #[test]
    fn ties_at_a_cut_keep_the_lower_id() {
        let logits = [0.0, 1.0, 1.0, 1.0];
        assert!(counts(random(1.0, Some(2), None), &logits, 200)[3] == 0);
        let kept = counts(random(1.0, None, Some(0.5)), &logits, 200);
        assert!(kept[1] > 0 && kept[2] > 0 && kept[3] == 0 && kept[0] == 0);
    }

    #[test]
    fn what_cuts_nothing_changes_nothing_and_seeds_and_rows_matter() {
        let logits: Vec<f32> = (0..50).map(|i| ((i * 37) % 50) as f32 / 20.0).collect();
        let draw = |random: SamplingOptions, row| {
            let mut chooser = Sampler::new(Sampling::Random(random), row).unwrap();
            (0..30).map(|_| chooser.choose(&logits).unwrap()).collect::<Vec<_>>()
        };
        let plain = draw(SamplingOptions::seeded(3), 0);
        assert_eq!(draw(SamplingOptions { top_k: Some(50), top_p: Some(1.0), ..SamplingOptions::seeded(3) }, 0), plain);
        assert_ne!(draw(SamplingOptions::seeded(4), 0), plain);
        assert_ne!(draw(SamplingOptions::seeded(3), 1), plain);
        let banned = draw(SamplingOptions { temperature: 1e6, ..SamplingOptions::seeded(3) }, 0);
        assert_ne!(banned, plain, "nearly uniform");
    }

    #[test]
    fn wrong_options_are_errors() {
        for wrong in [
            random(0.0, None, None),
            random(f64::NAN, None, None),
            random(-1.0, None, None),
            random(f64::INFINITY, None, None),
            random(1.0, Some(0), None),
            random(1.0, None, Some(0.0)),
            random(1.0, None, Some(1.5)),
            random(1.0, None, Some(f64::NAN)),
        ] {
            let error = Sampler::new(Sampling::Random(wrong), 0).map(drop).unwrap_err();
            assert!(matches!(error, Error::BadOption { .. }), "{error}");
        }
    }
}
