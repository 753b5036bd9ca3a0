//! From the address of an activation back to its document: [`RowIndex`].

use crate::{Origin, TokenPos, TokenRow};
use std::collections::BTreeMap;

/// Which rows of tokens a store remembers, so that the addresses in its batches can be resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepRows {
    /// None: the caller keeps what it needs from [`crate::ActivationStore::get_batch_tokens`].
    #[default]
    Nothing,
    /// The latest so many. A shuffled row may wait longer in the ring than that.
    Latest(usize),
    /// Those that the ring or the batch of the latest `next_batch` still needs: every address of that batch resolves, and no
    /// more rows are held than the ring has slots, and a batch and a forward pass have rows.
    InUse,
    /// All. Grows with the text: about 40 bytes a token.
    All,
}

/// What is known of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The row of tokens.
    pub row: &'a TokenRow,
    /// The token.
    pub token: u32,
    /// Document and span; `None` for an inserted token.
    pub origin: Option<&'a Origin>,
}

/// Rows of tokens by number: resolves a [`TokenPos`] to document, token and span. Holds only what was put in.
#[derive(Clone, Debug, Default)]
pub struct RowIndex {
    rows: BTreeMap<u64, TokenRow>,
}

impl RowIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a row.
    pub fn insert(&mut self, row: TokenRow) {
        self.rows.insert(row.row, row);
    }

    /// Forgets all rows but the latest `count`.
    pub fn keep_latest(&mut self, count: usize) {
        while self.rows.len() > count {
            self.rows.pop_first();
        }
    }

    /// Forgets the rows for which `wanted` is false.
    pub fn retain(&mut self, mut wanted: impl FnMut(u64) -> bool) {
        self.rows.retain(|row, _| wanted(*row));
    }

    /// A row by its number.
    #[must_use]
    pub fn get(&self, row: u64) -> Option<&TokenRow> {
        self.rows.get(&row)
    }

    /// Token, document and span of an address; `None` when the row is not held or has no such position.
    #[must_use]
    pub fn locate(&self, at: TokenPos) -> Option<Located<'_>> {
        let row = self.rows.get(&at.row)?;
        let pos = usize::try_from(at.pos).ok()?;
        Some(Located { row, token: *row.tokens.get(pos)?, origin: row.origin.get(pos)?.as_ref() })
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &TokenRow> {
        self.rows.values()
    }

    /// Number of rows held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
