//! What each token of a batch contributes.

use super::EvalError;
use super::metric::BatchSums;
use super::sums::{Sums, Term, Terms, UnitKey, Units};
use crate::Result;
use activation_store::TokenPos;
use rayon::prelude::*;

/// A counted token before its batch is complete: all but what the vectors say.
pub(super) struct TokenOfBatch {
    pub(super) at: TokenPos,
    pub(super) unit: UnitKey,
    pub(super) terms: Terms,
}

/// The counted tokens of a batch, with what the coder reconstructs and how: `[tokens, d_out]` each.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tokens: Vec<TokenOfBatch>,
    pub(super) x: Vec<f32>,
    pub(super) x_hat: Vec<f32>,
}

impl Batch {
    /// Adds the batch to the sums of its units, token by token in their order; `None` where no token counts.
    pub(super) fn add_to(mut self, units: &mut Units, d_out: usize) -> Result<Option<BatchSums>> {
        if self.tokens.is_empty() {
            return Ok(None);
        }
        let mean = self.mean(d_out);
        let vectors = || self.x.par_chunks_exact(d_out).zip(self.x_hat.par_chunks_exact(d_out));
        self.tokens.par_iter_mut().zip(vectors()).try_for_each(|(token, (x, x_hat))| {
            geometry(&mut token.terms, x, x_hat, &mean);
            match token.terms.not_finite() {
                None => Ok(()),
                Some(value) => Err(EvalError::NotFinite { what: "a loss, divergence or norm", value, at: token.at }),
            }
        })?;
        let (mut square_out, mut dot) = (0.0, 0.0);
        for ((token, x), x_hat) in
            self.tokens.iter().zip(self.x.chunks_exact(d_out)).zip(self.x_hat.chunks_exact(d_out))
        {
            units.of(token.unit).add_token(&token.terms, x, x_hat);
            square_out += token.terms[Term::SquareOut];
            dot += token.terms[Term::Dot];
        }
        Ok(Some(BatchSums { square_out, dot }))
    }

    /// The mean of the batch's activations.
    fn mean(&self, d_out: usize) -> Vec<f64> {
        let mut sums = Sums::new(d_out);
        self.x.chunks_exact(d_out).for_each(|x| add(&mut sums.x, x));
        sums.x.iter_mut().for_each(|sum| *sum /= self.tokens.len() as f64);
        sums.x
    }
}

/// Adds a vector to a sum of vectors.
pub(super) fn add(sum: &mut [f64], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x));
}

/// A norm below this is taken for 1 in the ratio of norms, as SAELens does.
const SMALL_NORM: f64 = 1e-4;

/// Fills in what the vectors say, in f64.
///
/// Where a definition divides by zero SAELens gets NaN, and with it a mean that is NaN: here the cosine with a vector of zeros is 0, and the legacy explained
/// variance of a token that is the mean of its batch (alone in it, say) is 1 when the reconstruction is perfect, else 0.
fn geometry(terms: &mut Terms, x: &[f32], x_hat: &[f32], batch_mean: &[f64]) {
    let (mut square_in, mut square_out, mut dot, mut square_error, mut centered) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((&x, &x_hat), mean) in x.iter().zip(x_hat).zip(batch_mean) {
        let (x, x_hat) = (f64::from(x), f64::from(x_hat));
        square_in += x * x;
        square_out += x_hat * x_hat;
        dot += x * x_hat;
        square_error += (x - x_hat) * (x - x_hat);
        centered += (x - mean) * (x - mean);
    }
    let (norm_in, norm_out) = (square_in.sqrt(), square_out.sqrt());
    terms[Term::SquareIn] = square_in;
    terms[Term::SquareOut] = square_out;
    terms[Term::Dot] = dot;
    terms[Term::SquareError] = square_error;
    terms[Term::NormIn] = norm_in;
    terms[Term::NormOut] = norm_out;
    terms[Term::NormRatio] = norm_out / if norm_in < SMALL_NORM { 1.0 } else { norm_in };
    terms[Term::Cosine] = if norm_in * norm_out == 0.0 { 0.0 } else { dot / (norm_in * norm_out) };
    terms[Term::LegacyVariance] = match centered == 0.0 {
        true => f64::from(u8::from(square_error == 0.0)),
        false => 1.0 - square_error / centered,
    };
}
