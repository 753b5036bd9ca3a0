//! Keys and values that stay between runs: [`KvCache`].

use crate::run::{Cached, Columns};
use crate::{Error, ModelShape, Result, TokenBatch};
use std::ops::Range;

/// The keys (after rotation) and values of every layer, for all columns that have run so far.
///
/// [`Generate::forward_cached`](crate::Generate::forward_cached) reads and extends it: each call runs new columns only. Rows stay where
/// they are; of rows of different lengths the shorter ones begin with padding. Keys of new columns are written behind those that are
/// there; memory grows by doubling, or at once with [`reserve`](Self::reserve). It takes
///
/// ```text
/// 8 n_layers n_kv_heads d_head bytes for a column of a row
/// ```
/// times the room. A clone is a branch: two continuations of one prompt share nothing afterwards.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// `[keys, values]` of each layer, `[batch, room, width]`.
    layers: Vec<[Vec<f32>; 2]>,
    /// `n_kv_heads * d_head`
    width: usize,
    n_ctx: usize,
    columns: usize,
    room: usize,
    /// For each row the columns that hold tokens.
    real: Vec<Range<usize>>,
}

/// Room of a cache that grows for the first time.
const SMALLEST_ROOM: usize = 32;

impl KvCache {
    pub(crate) fn new(shape: &ModelShape) -> Self {
        Self {
            layers: vec![Default::default(); shape.n_layers],
            width: shape.n_kv_heads * shape.d_head,
            n_ctx: shape.n_ctx,
            columns: 0,
            room: 0,
            real: Vec::new(),
        }
    }

    /// Number of columns that have run, padding included.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of rows; 0 before the first run.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.real.len()
    }

    /// Whether nothing has run yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns of a row that hold its tokens; none of a row that is not there.
    #[must_use]
    pub fn real(&self, row: usize) -> Range<usize> {
        self.real.get(row).cloned().unwrap_or(0..0)
    }

    /// Bytes of memory that keys and values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(|x| x.capacity() * size_of::<f32>()).sum()
    }

    /// Forgets everything but the columns before `columns`, as if no others had run. With 0 the next run may have other rows.
    pub fn truncate(&mut self, columns: usize) {
        if columns < self.columns {
            self.columns = columns;
            self.real.iter_mut().for_each(|real| *real = real.start.min(columns)..real.end.min(columns));
        }
        if columns == 0 {
            self.real.clear();
        }
    }

    /// Makes room for so many columns in all, for the rows that are there or come with the next run, so that memory does not grow on the
    /// way. No more than the context is taken beyond what is needed.
    pub fn reserve(&mut self, columns: usize) {
        let columns = columns.min(self.n_ctx.max(self.columns));
        if columns > self.room {
            self.grow(self.batch(), columns);
        }
    }

    /// What the columns of a run on these tokens are.
    ///
    /// # Errors
    /// [`Error::CacheRows`], [`Error::PaddingInside`], [`Error::ContextExceeded`].
    pub(crate) fn plan(&self, tokens: &TokenBatch) -> Result<Columns> {
        if !self.is_empty() && tokens.batch() != self.batch() {
            return Err(Error::CacheRows { expected: self.batch(), found: tokens.batch() });
        }
        let real = (0..tokens.batch()).map(|row| self.extended(row, tokens.real(row))).collect::<Result<Vec<_>>>()?;
        match real.iter().map(ExactSizeIterator::len).max() {
            Some(longest) if longest > self.n_ctx => Err(Error::ContextExceeded { pos: longest, n_ctx: self.n_ctx }),
            _ => Ok(Columns::new(self.columns, tokens.pos(), real)),
        }
    }

    /// A row's tokens with these columns of the next run.
    fn extended(&self, row: usize, new: Range<usize>) -> Result<Range<usize>> {
        let (old, new) = (self.real(row), self.columns + new.start..self.columns + new.end);
        match (old.is_empty(), new.is_empty()) {
            (_, true) => Ok(old),
            (true, false) => Ok(new),
            (false, false) if old.end == new.start => Ok(old.start..new.end),
            (false, false) => Err(Error::PaddingInside { row, column: old.end }),
        }
    }

    /// Makes room for a run's columns.
    pub(crate) fn begin(&mut self, batch: usize, columns: &Columns) {
        if columns.end() > self.room {
            let doubled = (2 * self.room).max(SMALLEST_ROOM).min(self.n_ctx);
            self.grow(batch, columns.end().max(doubled));
        } else if self.is_empty() {
            self.grow(batch, self.room);
        }
    }

    /// Puts every row of every layer where it lies with more room.
    fn grow(&mut self, batch: usize, room: usize) {
        let (old, kept, len) = (self.room * self.width, self.columns * self.width, room * self.width);
        for layer in self.layers.iter_mut().flatten() {
            if kept == 0 && layer.len() == batch * len {
                continue;
            }
            let mut larger = vec![0.0; batch * len];
            if kept > 0 {
                let rows = larger.chunks_exact_mut(len).zip(layer.chunks_exact(old));
                rows.for_each(|(to, from)| to[..kept].copy_from_slice(&from[..kept]));
            }
            *layer = larger;
        }
        self.room = room;
    }

    /// Writes a layer's keys and values of this run, `[batch, pos, width]`, behind those of earlier ones. They count when the run has
    /// [ended](Self::commit).
    pub(crate) fn append(&mut self, layer: usize, columns: &Columns, new: [&[f32]; 2]) -> Result<()> {
        let (first, pos, room) = (columns.offset * self.width, columns.pos * self.width, self.room * self.width);
        let layers = self.layers.len();
        let held = self.layers.get_mut(layer).ok_or(Error::OutOfRange {
            what: "layer of the cache",
            found: layer,
            limit: layers,
        })?;
        for (held, new) in held.iter_mut().zip(new) {
            let rows = held.chunks_exact_mut(room.max(1)).zip(new.chunks_exact(pos.max(1)));
            rows.for_each(|(held, new)| held[first..first + pos].copy_from_slice(new));
        }
        Ok(())
    }

    /// Keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> Option<Cached<'_>> {
        let [keys, values] = self.layers.get(layer)?;
        Some(Cached { keys, values, room: self.room })
    }

    /// The run's columns are part of the cache from now on.
    pub(crate) fn commit(&mut self, batch: usize, columns: &Columns) {
        self.columns = columns.end();
        self.real = (0..batch).map(|row| columns.real(row)).collect();
    }

    /// Whether it was made for a model of this shape.
    ///
    /// # Errors
    /// [`Error::CacheOfOtherModel`].
    pub(crate) fn check_model(&self, shape: &ModelShape) -> Result<()> {
        let expected = [shape.n_layers, shape.n_kv_heads * shape.d_head, shape.n_ctx];
        let found = [self.layers.len(), self.width, self.n_ctx];
        if found == expected { Ok(()) } else { Err(Error::CacheOfOtherModel { expected, found }) }
    }
}
