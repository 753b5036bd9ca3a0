//! Next-token loss, and how far the predictions of two runs are apart.

use crate::ops::{exp, log_sum_exp, with_slice};
use crate::{Error, Result, TokenBatch};
use candle_core::Tensor;
use rayon::prelude::*;

/// `-log p(next token)` at every position but the last: `[batch, pos - 1]` in nats, from logits `[batch, pos, d_vocab]`.
///
/// Computed row by row as `log sum e^(x - max) + max - x[next]`, without a copy of the logits.
///
/// A column that holds padding, or is followed by padding, predicts nothing: its entry is 0. Which columns predict:
/// [`TokenBatch::token_range`] but for the last one.
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
    let real = |i: usize| tokens.token_range(i / pos).contains(&(i % pos));
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
    let predictions: usize = (0..tokens.batch()).map(|row| tokens.token_range(row).len().saturating_sub(1)).sum();
    if predictions == 0 {
        let found = logits.dims().to_vec();
        return Err(Error::Shape { what: "the logits", expected: "at least two positions".into(), found });
    }
    let losses: Vec<f32> = next_token_loss_per_token(logits, tokens)?.flatten_all()?.to_vec1()?;
    Ok(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / predictions as f64)
}

/// Predictions of a run, kept for comparison with other runs of the same tokens: logits `[batch, pos, d_vocab]` and the
/// logarithm of each row's sum of exponentials.
#[derive(Clone, Debug)]
pub struct Predictions {
    logits: Tensor,
    d_vocab: usize,
    log_sums: Vec<f64>,
}

impl Predictions {
    /// Takes the logits of a run; they are not copied where they are contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`] unless they are `[batch, pos, d_vocab]`.
    pub fn new(logits: Tensor) -> Result<Self> {
        let d_vocab = match *logits.dims() {
            [_, _, d_vocab] if d_vocab > 0 => d_vocab,
            _ => {
                let expected = "[batch, pos, d_vocab]".into();
                return Err(Error::Shape { what: "the logits", expected, found: logits.dims().to_vec() });
            }
        };
        let logits = logits.contiguous()?;
        let log_sums = with_slice(&logits, |flat| Ok(flat.par_chunks_exact(d_vocab).map(log_sum_exp).collect()))?;
        Ok(Self { logits, d_vocab, log_sums })
    }

    /// `-log p(next token)` at every position but the last, row after row: `batch * (pos - 1)` numbers, in nats. As
    /// [`next_token_loss_per_token`], in f64, padding included.
    ///
    /// # Errors
    /// As there.
    pub fn loss(&self, tokens: &TokenBatch) -> Result<Vec<f64>> {
        let (batch, pos) = (tokens.batch(), tokens.pos());
        if self.logits.dims()[..2] != [batch, pos] {
            let expected = format!("[batch, pos, d_vocab] = [{batch}, {pos}, _]");
            return Err(Error::Shape { what: "the logits", expected, found: self.logits.dims().to_vec() });
        }
        let real = |i: usize| tokens.token_range(i / pos).contains(&(i % pos));
        if let Some(i) = (0..batch * pos).find(|&i| tokens.ids()[i] as usize >= self.d_vocab && real(i)) {
            let (id, d_vocab) = (tokens.ids()[i], self.d_vocab);
            return Err(Error::TokenOutOfVocabulary { id, row: i / pos, pos: i % pos, d_vocab });
        }
        let loss = |logits: &[f32], i: usize| {
            if !(real(i) && real(i + 1)) {
                return 0.0;
            }
            self.log_sums[i] - f64::from(logits[i * self.d_vocab + tokens.ids()[i + 1] as usize])
        };
        let predicting = (0..batch * pos).filter(|i| i % pos + 1 < pos);
        with_slice(&self.logits, |logits| Ok(predicting.map(|i| loss(logits, i)).collect()))
    }

    /// The Kullback-Leibler divergence of another run's predictions from these at every position, `batch * pos` numbers, in nats:
    ///
    /// ```text
    /// KL(self || other) = sum_v p_self(v) (log p_self(v) - log p_other(v))
    /// ```
    ///
    /// 0, exactly, for equal logits; NaN where a logit is NaN or `+inf`. Sums are in f32 over blocks of a thousand tokens, in f64 over the blocks.
    ///
    /// # Errors
    /// [`Error::Shape`] when the other logits have another shape.
    pub fn kl(&self, other: &Self) -> Result<Vec<f64>> {
        if self.logits.dims() != other.logits.dims() {
            let expected = format!("{:?}, as those that they are compared with", self.logits.dims());
            return Err(Error::Shape { what: "the logits", expected, found: other.logits.dims().to_vec() });
        }
        let at = |i: usize| i * self.d_vocab..(i + 1) * self.d_vocab;
        let rows = 0..self.log_sums.len();
        with_slice(&self.logits, |p| {
            with_slice(&other.logits, |q| {
                let kl = |i: usize| kl_of_row(&p[at(i)], self.log_sums[i], &q[at(i)], other.log_sums[i]);
                Ok(rows.into_par_iter().map(kl).collect())
            })
        })
    }
}

fn kl_of_row(p: &[f32], p_log_sum: f64, q: &[f32], q_log_sum: f64) -> f64 {
    const BLOCK: usize = 1024;
    if !p_log_sum.is_finite() || !q_log_sum.is_finite() {
        return f64::NAN;
    }
    let (shift, constant) = (p_log_sum as f32, (q_log_sum - p_log_sum) as f32);
    // A token of probability 0 adds nothing, whatever its probability in the other run.
    let term = |p: f32, q: f32| {
        let share = exp(p - shift);
        if share > 0.0 { share * (p - q + constant) } else { 0.0 }
    };
    let block = |(p, q): (&[f32], &[f32])| {
        let mut lanes = [0f32; 8];
        let (whole, rest) = (p.len() / 8 * 8, p.len() % 8);
        for (p, q) in p[..whole].chunks_exact(8).zip(q[..whole].chunks_exact(8)) {
            for (lane, (&p, &q)) in lanes.iter_mut().zip(p.iter().zip(q)) {
                *lane += term(p, q);
            }
        }
        let rest: f32 = (whole..whole + rest).map(|i| term(p[i], q[i])).sum();
        f64::from(lanes.iter().sum::<f32>() + rest)
    };
    p.chunks(BLOCK).zip(q.chunks(BLOCK)).map(block).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Device};

    #[test]
    fn divergence_equals_both_forms_of_the_definition() {
        for d_vocab in [3, 30, 2048 + 5] {
            let random = || Tensor::randn(0f32, 3f32, (2, 10, d_vocab), &Device::Cpu).unwrap();
            let (p, q) = (random(), random());
            let rows = |x: &Tensor| x.reshape((20, d_vocab)).unwrap().to_vec2::<f32>().unwrap();
            let log_softmax = |row: &Vec<f32>| -> Vec<f64> {
                let log_sum = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                row.iter().map(|&x| f64::from(x) - log_sum).collect()
            };
            let ours = Predictions::new(p.clone()).unwrap().kl(&Predictions::new(q.clone()).unwrap()).unwrap();
            for ((p, q), ours) in rows(&p).iter().zip(&rows(&q)).zip(ours) {
                let (p, q) = (log_softmax(p), log_softmax(q));
                // sum p (log p - log q), and cross entropy less entropy.
                let direct: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
                let cross: f64 = p.iter().zip(&q).map(|(p, q)| -p.exp() * q).sum();
                let entropy: f64 = p.iter().map(|p| -p.exp() * p).sum();
                let bound = 1e-5 * (1.0 + direct);
                assert!((ours - direct).abs() < bound && (ours - (cross - entropy)).abs() < bound, "{ours} {direct}");
            }
        }
    }

    #[test]
    fn the_divergence_of_a_run_from_itself_is_zero() {
        let logits = Tensor::randn(0f32, 5f32, (1, 7, 1500), &Device::Cpu).unwrap();
        let run = Predictions::new(logits).unwrap();
        assert_eq!(run.kl(&run.clone()).unwrap(), [0.0; 7]);
        // A token that no run can say adds nothing; one that only the other cannot say makes the divergence infinite.
        let p = Predictions::new(Tensor::new(&[[[0f32, f32::NEG_INFINITY, 0.0]]], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(p.kl(&p).unwrap(), [0.0]);
        let q = Predictions::new(Tensor::new(&[[[0f32, 0.0, f32::NEG_INFINITY]]], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(p.kl(&q).unwrap(), [f64::INFINITY]);
        for value in [f32::INFINITY, f32::NAN] {
            let q = Predictions::new(Tensor::new(&[[[0f32, value, 1.0]]], &Device::Cpu).unwrap()).unwrap();
            assert!(p.kl(&q).unwrap()[0].is_nan() && q.kl(&p).unwrap()[0].is_nan() && q.kl(&q).unwrap()[0].is_nan());
        }
    }

    #[test]
    fn losses_are_those_of_the_function() {
        let logits = Tensor::randn(0f32, 4f32, (3, 5, 40), &Device::Cpu).unwrap();
        let tokens = TokenBatch::new(&[[1u32, 2, 3, 4, 5], [7, 39, 0, 1, 1], [9, 9, 9, 8, 8]]).unwrap();
        let ours = Predictions::new(logits.clone()).unwrap().loss(&tokens).unwrap();
        let theirs: Vec<f32> =
            next_token_loss_per_token(&logits, &tokens).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours.iter().map(|&l| l as f32).collect::<Vec<_>>(), theirs);
        let other = Predictions::new(logits.narrow(D::Minus1, 0, 39).unwrap()).unwrap();
        assert!(matches!(
            other.loss(&tokens),
            Err(Error::TokenOutOfVocabulary { id: 39, row: 1, pos: 1, d_vocab: 39 })
        ));
        assert!(matches!(Predictions::new(logits).unwrap().kl(&other), Err(Error::Shape { .. })));
    }
}
