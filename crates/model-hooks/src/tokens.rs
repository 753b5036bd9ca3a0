//! A rectangular batch of token ids, with padding where its rows are of different lengths.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// Token ids: what a forward pass reads. Shape `[batch, pos]`; the second axis counts columns.
///
/// Rows of different lengths are [padded](Self::padded). Which columns of a row hold its tokens is part of the batch, one range for each
/// row; the others hold padding. Positions count from a row's first token, no query attends to padding, and the values at padded
/// columns are finite and mean nothing. So a row has the same values as it has alone, at the columns of its tokens. (One exception, as in
/// transformers: LongRoPE and dynamic scaling turn a batch by the length of its longest row.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenBatch {
    ids: Vec<u32>,
    batch: usize,
    pos: usize,
    /// For each row the columns that hold tokens; empty where all do.
    real: Vec<Range<usize>>,
}

/// Side of the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaddingSide {
    /// Before a row's tokens: rows end together, and can be carried on.
    Left,
    /// After a row's tokens: rows begin together, and columns are positions.
    Right,
}

impl TokenBatch {
    /// A batch from rows of equal, non-zero length.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] without rows or with empty rows, [`Error::RaggedBatch`] when lengths differ.
    pub fn new<R: AsRef<[u32]>>(rows: &[R]) -> Result<Self> {
        let pos = rows.first().map_or(0, |r| r.as_ref().len());
        if pos == 0 {
            return Err(Error::EmptyBatch { rows: rows.len() });
        }
        let mut ids = Vec::with_capacity(rows.len() * pos);
        for (row, r) in rows.iter().map(AsRef::as_ref).enumerate() {
            if r.len() != pos {
                return Err(Error::RaggedBatch { row, expected: pos, found: r.len() });
            }
            ids.extend_from_slice(r);
        }
        Ok(Self { ids, batch: rows.len(), pos, real: Vec::new() })
    }

    /// A batch from rows of any non-zero length, as wide as the longest, the others filled up with `pad_id` on one side. The id must be
    /// one of the model's; which one it is changes nothing at the tokens.
    ///
    /// ```
    /// use model_hooks::{PaddingSide, TokenBatch};
    /// let tokens = TokenBatch::padded(&[vec![5, 6, 7], vec![8]], 0, PaddingSide::Left)?;
    /// assert_eq!(tokens.ids(), [5, 6, 7, 0, 0, 8]);
    /// assert_eq!((tokens.token_range(0), tokens.token_range(1)), (0..3, 2..3));
    /// # Ok::<(), model_hooks::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] without rows, [`Error::EmptyRow`] for a row without tokens.
    pub fn padded<R: AsRef<[u32]>>(rows: &[R], pad_id: u32, side: PaddingSide) -> Result<Self> {
        let lengths = || rows.iter().map(|row| row.as_ref().len());
        if let Some(row) = lengths().position(|len| len == 0) {
            return Err(Error::EmptyRow { row });
        }
        let pos = lengths().max().ok_or(Error::EmptyBatch { rows: 0 })?;
        let place = |len| match side {
            PaddingSide::Left => pos - len..pos,
            PaddingSide::Right => 0..len,
        };
        let mut ids = vec![pad_id; rows.len() * pos];
        for (row, to) in rows.iter().map(AsRef::as_ref).zip(ids.chunks_exact_mut(pos)) {
            to[place(row.len())].copy_from_slice(row);
        }
        let real = if lengths().all(|len| len == pos) { Vec::new() } else { lengths().map(place).collect() };
        Ok(Self { ids, batch: rows.len(), pos, real })
    }

    /// One column: the next token of each row, of which only some go on; the others have no token in it.
    pub(crate) fn column(ids: Vec<u32>, goes_on: impl Iterator<Item = bool>) -> Self {
        let real: Vec<Range<usize>> = goes_on.map(|on| 0..usize::from(on)).collect();
        let all = real.iter().all(|real| !real.is_empty());
        Self { batch: ids.len(), pos: 1, ids, real: if all { Vec::new() } else { real } }
    }

    /// These rows, which end together, each with more tokens; rows that get fewer than others are filled up with `pad_id`.
    pub(crate) fn continued(&self, more: &[&[u32]], pad_id: u32) -> Self {
        let added = more.iter().map(|more| more.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(self.batch * (self.pos + added));
        for (row, more) in self.rows().zip(more) {
            ids.extend_from_slice(row);
            ids.extend_from_slice(more);
            ids.extend(std::iter::repeat_n(pad_id, added - more.len()));
        }
        let real: Vec<_> =
            (0..).zip(more).map(|(row, more)| self.token_range(row).start..self.pos + more.len()).collect();
        let pos = self.pos + added;
        let all = real.iter().all(|real| *real == (0..pos));
        Self { ids, batch: self.batch, pos, real: if all { Vec::new() } else { real } }
    }

    /// Number of rows.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of columns: positions in each row, padding included.
    #[must_use]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// All ids, row after row, padding included.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The rows, padding included.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.ids.chunks_exact(self.pos)
    }

    /// Whether any column holds padding.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        !self.real.is_empty()
    }

    /// The columns of a row that hold its tokens; none of a row that is not there.
    #[must_use]
    pub fn token_range(&self, row: usize) -> Range<usize> {
        match self.real.get(row) {
            Some(real) => real.clone(),
            None if row < self.batch && self.real.is_empty() => 0..self.pos,
            None => 0..0,
        }
    }

    /// Whether each column holds a token, `[batch, pos]` as [`ids`](Self::ids): false for padding.
    #[must_use]
    pub fn mask(&self) -> Vec<bool> {
        let of_row = |row| {
            let real = self.token_range(row);
            (0..self.pos).map(move |column| real.contains(&column))
        };
        (0..self.batch).flat_map(of_row).collect()
    }

    /// The ids as a tensor `[batch, pos]` of u32.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.ids, (self.batch, self.pos), device)?)
    }
}
