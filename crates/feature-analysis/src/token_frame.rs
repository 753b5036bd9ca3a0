//! The token frame (the notebook's cell 19): one line per token, with the text around it.

use crate::Result;
use activation_store::{Origin, TokenRow};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use model_hooks::Tokenizer;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Where the text after a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ContextEnd {
    /// After `len_suffix` tokens or at the row's end.
    #[default]
    Full,
    /// As in the notebook, whose slice `[p + 1 : min(n - 1, p + 1 + len_suffix)]` never shows a row's last token. For parity only.
    Notebook,
}

/// How much text a context shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameOptions {
    /// Tokens shown before.
    pub len_prefix: usize,
    /// Tokens shown after.
    pub len_suffix: usize,
    /// Where the text after ends.
    pub suffix: ContextEnd,
}

impl Default for FrameOptions {
    fn default() -> Self {
        Self { len_prefix: 5, len_suffix: 3, suffix: ContextEnd::Full }
    }
}

impl FrameOptions {
    /// The positions shown before and after position `pos` of a row of `n` tokens.
    #[must_use]
    pub fn around(&self, pos: usize, n: usize) -> (Range<usize>, Range<usize>) {
        let end = match self.suffix {
            ContextEnd::Full => n,
            ContextEnd::Notebook => n.saturating_sub(1),
        };
        let (before, after) = (pos.saturating_sub(self.len_prefix), (pos + 1).saturating_add(self.len_suffix).min(end));
        (before..pos, pos + 1..after.max(pos + 1))
    }
}

/// One position of a row of tokens, and which batch and prompt of the loop the row was.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The row.
    pub row: &'a TokenRow,
    /// The position in it.
    pub pos: usize,
    /// The batch of the loop.
    pub batch: u64,
    /// The row's number in its batch.
    pub prompt: u32,
}

/// The token frame of one whole batch: every position of every row, in order. See [`token_frame_at`] for the columns.
///
/// # Errors
/// As [`token_frame_at`].
pub fn token_frame(
    rows: &[TokenRow],
    batch: u64,
    tokenizer: &Tokenizer,
    options: &FrameOptions,
) -> Result<RecordBatch> {
    let mut places = Vec::new();
    for (prompt, row) in (0..).zip(rows) {
        places.extend((0..row.tokens.len()).map(|pos| Place { row, pos, batch, prompt }));
    }
    token_frame_at(&places, tokenizer, options)
}

/// The token frame of chosen places only, in their order: contexts are built for these and no others.
///
/// | column | type | what |
/// |---|---|---|
/// | `str_tokens` | string | the token decoded alone, as TransformerLens prints it |
/// | `unique_token` | string | `token/pos` |
/// | `context` | string | `prefix\|token\|suffix` of such tokens |
/// | `prompt`, `pos` | u32 | the row's number in its batch, the position in the row |
/// | `label` | string | `prompt/pos` |
/// | `batch` | u64 | the batch of the loop |
/// | `readable`, `readable_context` | string | the same with whole characters where tokens split them ([`Tokenizer::readable`]) |
/// | `row` | u64 | the row's number in the stream: `(row, pos)` is the token's address |
/// | `file`, `document` | u32, u64 | where the document is; null for inserted tokens (BOS, separators) |
/// | `span_start`, `span_end` | u64 | the token's bytes in the document's text; null for inserted tokens |
/// | `token` | u32 | the token's id |
/// | `special` | bool | whether it is a special token or was inserted |
///
/// # Errors
/// A token id that the tokenizer does not know.
pub fn token_frame_at(places: &[Place<'_>], tokenizer: &Tokenizer, options: &FrameOptions) -> Result<RecordBatch> {
    let mut texts: [Vec<String>; 6] = Default::default();
    for place in places {
        let line = Line::new(place, tokenizer, options)?;
        for (column, text) in texts.iter_mut().zip(line.0) {
            column.push(text);
        }
    }
    let [str_tokens, unique_token, context, label, readable, readable_context] =
        texts.map(|column| -> ArrayRef { Arc::new(StringArray::from(column)) });
    let u32s =
        |of: &dyn Fn(&Place<'_>) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(places.iter().map(of))) };
    let u64s =
        |of: &dyn Fn(&Place<'_>) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(places.iter().map(of))) };
    let from_origin = |of: &dyn Fn(&Origin) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter(places.iter().map(|p| p.row.origin[p.pos].as_ref().map(of))))
    };
    let file = UInt32Array::from_iter(places.iter().map(|p| p.row.origin[p.pos].as_ref().map(|o| o.doc.file)));
    let special = places.iter().map(|p| Some(is_special(p.row, p.pos, tokenizer.special_ids())));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("str_tokens", str_tokens, false),
        ("unique_token", unique_token, false),
        ("context", context, false),
        ("prompt", u32s(&|p| p.prompt), false),
        ("pos", u32s(&|p| p.pos as u32), false),
        ("label", label, false),
        ("batch", u64s(&|p| p.batch), false),
        ("readable", readable, false),
        ("readable_context", readable_context, false),
        ("row", u64s(&|p| p.row.row), false),
        ("file", Arc::new(file), true),
        ("document", from_origin(&|o| o.doc.ordinal), true),
        ("span_start", from_origin(&|o| o.span.start), true),
        ("span_end", from_origin(&|o| o.span.end), true),
        ("token", u32s(&|p| p.row.tokens[p.pos]), false),
        ("special", Arc::new(BooleanArray::from_iter(special)), false),
    ])?)
}

/// Whether a token is a special token, or one that packing inserted.
fn is_special(row: &TokenRow, pos: usize, special: &BTreeSet<u32>) -> bool {
    row.origin[pos].is_none() || special.contains(&row.tokens[pos])
}

/// The text columns of one line, in the order in which `token_frame_at` names them.
struct Line([String; 6]);

impl Line {
    fn new(place: &Place<'_>, tokenizer: &Tokenizer, options: &FrameOptions) -> Result<Self> {
        let &Place { row, pos, prompt, .. } = place;
        let ids = &row.tokens;
        let (before, after) = options.around(pos, ids.len());
        let alone = |range: Range<usize>| -> Result<String> { Ok(tokenizer.to_str_tokens(&ids[range])?.concat()) };
        let token = alone(pos..pos + 1)?;
        let context = format!("{}|{token}|{}", alone(before.clone())?, alone(after.clone())?);
        let readable = readable_at(ids, pos, tokenizer)?;
        let whole = |range: Range<usize>| tokenizer.readable_text(&ids[range]);
        let readable_context = format!("{}|{readable}|{}", whole(before)?, whole(after)?);
        Ok(Self([
            token.clone(),
            format!("{token}/{pos}"),
            context,
            format!("{prompt}/{pos}"),
            readable,
            readable_context,
        ]))
    }
}

/// The token printed readably in its place: a character has at most four bytes, so three tokens before it are enough to complete it.
fn readable_at(ids: &[u32], pos: usize, tokenizer: &Tokenizer) -> Result<String> {
    let window = &ids[pos.saturating_sub(3)..=pos];
    Ok(tokenizer.readable(window)?.pop().unwrap_or_default())
}
