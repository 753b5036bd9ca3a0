//! Whether the tokens are text to this model: its loss on them against its loss on the same tokens in another order.

use super::Result;
use model_hooks::{LanguageModel, NoTap, PaddingSide, TokenBatch, next_token_loss};

/// Logits that are held at once, at most.
const LOGITS: usize = 1 << 26;
/// Maximum number of tokens.
const TOKENS: usize = 512;
/// Half of the tokens are enough where the difference of the losses is this many times above or below its limit.
const CLEAR: f64 = 3.0;

/// The mean losses in nats, as the tokens are and shuffled; `None` for rows of fewer than eight tokens. `limit` is the least difference that passes.
pub(super) fn losses(model: &LanguageModel, rows: &[Vec<u32>], limit: f64) -> Result<Option<(f64, f64)>> {
    let tokens = TOKENS.min(LOGITS / model.shape().d_vocab.max(1)).max(8);
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0).min(tokens);
    let count = (tokens / longest.max(1)).clamp(1, rows.len().max(1));
    let cut = |row: &Vec<u32>| row.iter().take(tokens).copied().collect::<Vec<u32>>();
    let chosen = (0..count).filter_map(|i| rows.get(i * rows.len() / count)).map(cut);
    let chosen: Vec<Vec<u32>> = chosen.filter(|row| row.len() >= 8).collect();
    if chosen.is_empty() {
        return Ok(None);
    }
    let every_other = |from: usize| chosen.iter().skip(from).step_by(2).cloned().collect::<Vec<_>>();
    let (mut n, (mut plain, mut shuffled)) = (0, (0.0, 0.0));
    for half in [every_other(0), every_other(1)] {
        if half.is_empty() {
            continue;
        }
        let others: Vec<Vec<u32>> = half.iter().map(|row| shuffle(row)).collect();
        plain += sum_of_losses(model, &half)?;
        shuffled += sum_of_losses(model, &others)?;
        n += half.len();
        let gain = (shuffled - plain) / n as f64;
        if !(limit / CLEAR..limit * CLEAR).contains(&gain) {
            break;
        }
    }
    Ok(Some((plain / n as f64, shuffled / n as f64)))
}

/// The sum of the rows' mean losses, so that a long row does not outweigh the others. All rows are in one forward pass: a tied unembedding is packed once a pass.
fn sum_of_losses(model: &LanguageModel, rows: &[Vec<u32>]) -> Result<f64> {
    let logits = model.hooked().forward(&TokenBatch::padded(rows, 0, PaddingSide::Right)?, &mut NoTap)?;
    let mut sum = 0.0;
    for (row, ids) in rows.iter().enumerate() {
        let of_row = logits.narrow(0, row, 1)?.narrow(1, 0, ids.len())?;
        sum += next_token_loss(&of_row, &TokenBatch::padded(std::slice::from_ref(ids), 0, PaddingSide::Right)?)?;
    }
    Ok(sum)
}

/// The row with its first token in place and the others in another order, the same every time.
fn shuffle(row: &[u32]) -> Vec<u32> {
    let mut out = row.to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (2..out.len()).rev() {
        // Knuth's constants; the high bits decide.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.swap(i, 1 + (state >> 33) as usize % i);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn shuffling_keeps_the_first_token_and_the_others() {
        let row: Vec<u32> = (0..50).collect();
        let mut shuffled = super::shuffle(&row);
        assert_eq!(shuffled[0], 0);
        assert!(shuffled.windows(2).filter(|w| w[1] == w[0] + 1).count() < 5);
        shuffled.sort_unstable();
        assert_eq!(shuffled, row);
    }
}
