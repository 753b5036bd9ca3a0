//! Whether the tokens are text to this model: its loss on them against its loss on the same tokens in another order.

use super::Result;
use model_hooks::{LanguageModel, NoTap, Side, TokenBatch, next_token_loss};

/// Logits that are held at once, at most.
const LOGITS: usize = 1 << 26;
/// Tokens that are looked at, at most.
const TOKENS: usize = 512;

/// The mean losses in nats, as the tokens are and shuffled; `None` for rows of one token.
pub(super) fn losses(model: &LanguageModel, rows: &[Vec<u32>]) -> Result<Option<(f64, f64)>> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    if longest < 8 {
        return Ok(None);
    }
    let tokens = TOKENS.min(LOGITS / model.shape().d_vocab.max(1));
    let count = (tokens / longest).clamp(1, rows.len());
    let chosen: Vec<Vec<u32>> = (0..count).map(|i| rows[i * rows.len() / count].clone()).collect();
    let loss = |rows: &[Vec<u32>]| -> Result<f64> {
        let mut sum = 0.0;
        for row in rows {
            let batch = TokenBatch::padded(std::slice::from_ref(row), 0, Side::Right)?;
            sum += next_token_loss(&model.hooked().forward(&batch, &mut NoTap)?, &batch)?;
        }
        Ok(sum / rows.len() as f64)
    };
    let long: Vec<Vec<u32>> = chosen.into_iter().filter(|row| row.len() >= 8).collect();
    if long.is_empty() {
        return Ok(None);
    }
    let shuffled: Vec<Vec<u32>> = long.iter().map(|row| shuffle(row)).collect();
    Ok(Some((loss(&long)?, loss(&shuffled)?)))
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
