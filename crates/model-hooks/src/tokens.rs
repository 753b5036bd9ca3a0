//! A rectangular batch of token ids.

use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Token ids of equally long rows: what a forward pass reads. Shape `[batch, pos]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenBatch {
    ids: Vec<u32>,
    batch: usize,
    pos: usize,
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
        Ok(Self { ids, batch: rows.len(), pos })
    }

    /// Number of rows.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of positions in each row.
    #[must_use]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// All ids, row after row.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.ids.chunks_exact(self.pos)
    }

    /// The ids as a tensor `[batch, pos]` of u32.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.ids, (self.batch, self.pos), device)?)
    }
}
