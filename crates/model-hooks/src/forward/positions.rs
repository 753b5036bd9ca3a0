//! Positions of the tokens of a forward pass: padding, and the columns of a cache before it.

use crate::TokenBatch;
use std::ops::Range;
use std::sync::Arc;

/// Positions of the columns of a run in their sequences. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    /// Columns before this run's first: those that a cache holds.
    pub offset: usize,
    /// Columns of this run.
    pub pos: usize,
    /// `None` where every column holds a token.
    ragged: Option<Arc<Ragged>>,
}

/// Columns that hold tokens.
#[derive(Debug)]
struct Ragged {
    /// For each row, among all columns up to this run's last.
    real: Vec<Range<usize>>,
    /// `[batch, offset + pos]`
    kept: Vec<bool>,
}

impl Positions {
    /// The columns of whole sequences.
    pub fn of(tokens: &TokenBatch) -> Self {
        Self::new(0, tokens.pos(), (0..tokens.batch()).map(|row| tokens.token_range(row)).collect())
    }

    /// `token_range` holds for each row the columns of its tokens, counted from the sequence's first column.
    pub fn new(offset: usize, pos: usize, real: Vec<Range<usize>>) -> Self {
        let end = offset + pos;
        if real.iter().all(|real| *real == (0..end)) {
            return Self { offset, pos, ragged: None };
        }
        let kept = real.iter().flat_map(|real| (0..end).map(|column| real.contains(&column))).collect();
        Self { offset, pos, ragged: Some(Arc::new(Ragged { real, kept })) }
    }

    /// The position in its sequence of the token in a column of this run. Padding before the first token is at position 0, padding after
    /// the last one at that one's.
    pub fn position(&self, row: usize, column: usize) -> usize {
        let column = self.offset + column;
        let Some(Range { start, end }) = self.ragged.as_ref().and_then(|ragged| ragged.real.get(row)) else {
            return column;
        };
        column.min(end.saturating_sub(1)).saturating_sub(*start)
    }

    /// More than any position.
    pub fn end(&self) -> usize {
        self.offset + self.pos
    }

    /// The position of a row's first column, where each further column is at the next position.
    pub fn steady(&self, row: usize) -> Option<usize> {
        let first = self.position(row, 0);
        let last = self.position(row, self.pos.saturating_sub(1));
        (last - first + 1 == self.pos).then_some(first)
    }

    /// The position of the first column, where all columns of all rows hold tokens.
    pub fn common(&self) -> Option<usize> {
        self.ragged.is_none().then_some(self.offset)
    }

    /// The columns of a row that hold tokens, counted from the sequence's first.
    pub fn token_range(&self, row: usize) -> Range<usize> {
        let real = self.ragged.as_ref().and_then(|ragged| ragged.real.get(row));
        real.cloned().unwrap_or(0..self.end())
    }

    /// `[batch, offset + pos]`: which columns hold tokens; `None` where all do.
    pub fn kept(&self) -> Option<&[bool]> {
        self.ragged.as_ref().map(|ragged| &*ragged.kept)
    }
}
