//! Effects of features on a prediction.

use crate::Result;
use crate::plot::{Align, Table, visible_token};
use model_hooks::Tokenizer;
use sae_hooks::Attribution;

/// The first `rows` effects of an attribution, for reading.
///
/// # Errors
/// The tokenizer's.
pub fn attribution_table(attribution: &Attribution, tokenizer: &Tokenizer, rows: usize) -> Result<Table> {
    let columns = [("feature", Align::Right), ("position", Align::Right), ("token", Align::Left)];
    let numbers = ["activation", "direct", "exact"].map(|name| (name, Align::Right));
    let mut table = Table::new(columns.into_iter().chain(numbers));
    for row in attribution.rows.iter().take(rows) {
        let token = visible_token(&tokenizer.readable(&[row.token])?.concat());
        let exact = row.exact.map_or_else(|| "–".into(), |exact| format!("{exact:+.4}"));
        let (activation, direct) = (format!("{:.3}", row.activation), format!("{:+.4}", row.direct));
        table.row([row.feature.to_string(), row.pos.to_string(), token, activation, direct, exact]);
    }
    Ok(table)
}
