//! Next-token loss.

use crate::ops::{log_sum_exp, with_slice};
use crate::{Error, Result, TokenBatch};
use candle_core::Tensor;
use rayon::prelude::*;

/// `-log p(next token)` at every position but the last: `[batch, pos - 1]` in nats, from logits `[batch, pos, d_vocab]`.
///
/// Computed row by row as `log sum e^(x - max) + max - x[next]`, without a copy of the logits.
///
/// A column that holds padding, or is followed by padding, predicts nothing: its entry is 0. Which columns predict:
/// [`TokenBatch::real`] but for the last one.
///
/// # Errors
/// [`Error::Shape`] when the logits do not belong to the tokens, [`Error::TokenOutOfVocabulary`] for an id without a logit.
pub fn next_token_loss_per_token(logits: &Tensor, tokens: &TokenBatch) -> Result<Tensor> {
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let d_vocab = match *logits.dims() {
        [b, p, d_vocab] if (b, p) == (batch, pos) && d_vocab > 0 => d_vocab,
        _ => {
            let expected = format!("[batch, pos, d_vocab] = [{batch}, {pos}, _]");
            return Err(Error::Shape { what: "the logits", expected, found: logits.dims().to_vec() });
        }
    };
    let real = |i: usize| tokens.real(i / pos).contains(&(i % pos));
    if let Some(i) = (0..batch * pos).find(|&i| tokens.ids()[i] as usize >= d_vocab && real(i)) {
        return Err(Error::TokenOutOfVocabulary { id: tokens.ids()[i], row: i / pos, pos: i % pos, d_vocab });
    }
    let predicted = |i: &usize| i % pos + 1 < pos;
    let losses: Vec<f32> = with_slice(logits, |logits| {
        let at = (0..batch * pos).into_par_iter().filter(predicted);
        let loss = |i: usize| {
            if !(real(i) && real(i + 1)) {
                return 0.0;
            }
            let row = &logits[i * d_vocab..(i + 1) * d_vocab];
            (log_sum_exp(row) - f64::from(row[tokens.ids()[i + 1] as usize])) as f32
        };
        Ok(at.map(loss).collect())
    })?;
    Ok(Tensor::from_vec(losses, (batch, pos - 1), logits.device())?)
}

/// The mean of [`next_token_loss_per_token`] over all predictions, `batch * (pos - 1)` of them where nothing is padded, special tokens
/// included.
///
/// # Errors
/// As there; [`Error::Shape`] also for rows of a single token, which predict nothing.
pub fn next_token_loss(logits: &Tensor, tokens: &TokenBatch) -> Result<f64> {
    let predictions: usize = (0..tokens.batch()).map(|row| tokens.real(row).len().saturating_sub(1)).sum();
    if predictions == 0 {
        let found = logits.dims().to_vec();
        return Err(Error::Shape { what: "the logits", expected: "at least two positions".into(), found });
    }
    let losses: Vec<f32> = next_token_loss_per_token(logits, tokens)?.flatten_all()?.to_vec1()?;
    Ok(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / predictions as f64)
}
