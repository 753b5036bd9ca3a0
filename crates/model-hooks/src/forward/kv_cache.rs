//! Keys and values that stay between runs: [`KvCache`].

use crate::forward::pass::Cached;
use crate::forward::positions::Positions;
use crate::{Error, ModelShape, Result, TokenBatch};
use std::ops::Range;
use tensor_kernels::{Engine, KeyValuePanels};

/// The keys (after rotation) and values of every layer, for all columns that have run so far.
///
/// [`Generate::forward_cached`](crate::Generate::forward_cached) reads and extends it: each call runs new columns only. Rows stay where
/// they are; of rows of different lengths the shorter ones begin with padding. Keys of new columns are written behind those that are
/// there; memory grows by doubling, or at once with [`reserve`](Self::reserve). It takes
///
/// ```text
/// 4 n_layers n_kv_heads (d_head + d) bytes for a column of a row, d = d_head           reference engine
///                                                                 d_head up to 32 n    kernels (bf16: half of it)
/// ```
/// times the room, which the kernels round up to a multiple of 32: they hold keys and values packed as attention reads them, so that
/// the cost of a token is that of its products; cached keys and values are not packed again. A clone is a branch: two continuations of one prompt
/// share nothing afterwards.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    engine: Engine,
    n_kv_heads: usize,
    d_head: usize,
    n_ctx: usize,
    columns: usize,
    /// The number of columns after the last run, which the cached keys are turned for.
    turned_for: usize,
    room: usize,
    /// Room that the next run makes at least.
    reserved: usize,
    /// For each row the columns that hold tokens.
    ranges: Vec<Range<usize>>,
}

/// Keys and values of a layer.
#[derive(Clone, Debug)]
enum Layer {
    /// `[keys, values]`, `[batch, room, n_kv_heads * d_head]`, for the reference engine.
    Plain([Vec<f32>; 2]),
    /// Packed for the kernels.
    Packed(KeyValuePanels),
}

/// Room of a cache that grows for the first time.
const SMALLEST_ROOM: usize = 32;

impl KvCache {
    pub(crate) fn new(shape: &ModelShape, engine: Engine) -> Self {
        let layer = || Layer::Plain(Default::default());
        Self {
            layers: std::iter::repeat_with(layer).take(shape.n_layers).collect(),
            engine,
            n_kv_heads: shape.n_kv_heads,
            d_head: shape.d_head,
            n_ctx: shape.n_ctx,
            columns: 0,
            turned_for: 0,
            room: 0,
            reserved: 0,
            ranges: Vec::new(),
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
        self.ranges.len()
    }

    /// The number of columns of the last run with those before it. It stays when columns are forgotten: rotary angles that depend on the
    /// length of a text are those of this length.
    pub(crate) fn turned_for(&self) -> usize {
        self.turned_for
    }

    /// Whether nothing has run yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns of a row that hold its tokens; none of a row that is not there.
    #[must_use]
    pub fn token_range(&self, row: usize) -> Range<usize> {
        self.ranges.get(row).cloned().unwrap_or(0..0)
    }

    /// Bytes of memory that keys and values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |layer: &Layer| match layer {
            Layer::Plain(both) => both.iter().map(|x| x.capacity() * size_of::<f32>()).sum(),
            Layer::Packed(panels) => panels.bytes(),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Forgets everything but the columns before `columns`, as if no others had run (except that under LongRoPE and dynamic scaling the keys
    /// stay turned for the longer text: [`Generate::keeps_angles`](crate::Generate::keeps_angles)). With 0 the next run may have other rows.
    pub fn truncate(&mut self, columns: usize) {
        if columns < self.columns {
            self.columns = columns;
            self.ranges.iter_mut().for_each(|range| *range = range.start.min(columns)..range.end.min(columns));
        }
        if columns == 0 {
            self.ranges.clear();
        }
    }

    /// Makes room for so many columns in all, for the rows that are there or come with the next run, so that memory does not grow on the
    /// way. No more than the context is taken beyond what is needed.
    pub fn reserve(&mut self, columns: usize) {
        self.reserved = self.reserved.max(columns.min(self.n_ctx.max(self.columns)));
    }

    /// What the columns of a run on these tokens are.
    ///
    /// # Errors
    /// [`Error::CacheRows`], [`Error::PaddingInside`], [`Error::ContextExceeded`].
    pub(crate) fn plan(&self, tokens: &TokenBatch) -> Result<Positions> {
        if !self.is_empty() && tokens.batch() != self.batch() {
            return Err(Error::CacheRows { expected: self.batch(), found: tokens.batch() });
        }
        let real =
            (0..tokens.batch()).map(|row| self.extended(row, tokens.token_range(row))).collect::<Result<Vec<_>>>()?;
        match real.iter().map(ExactSizeIterator::len).max() {
            Some(longest) if longest > self.n_ctx => Err(Error::ContextExceeded { pos: longest, n_ctx: self.n_ctx }),
            _ => Ok(Positions::new(self.columns, tokens.pos(), real)),
        }
    }

    /// A row's tokens with these columns of the next run.
    fn extended(&self, row: usize, new: Range<usize>) -> Result<Range<usize>> {
        let (old, new) = (self.token_range(row), self.columns + new.start..self.columns + new.end);
        match (old.is_empty(), new.is_empty()) {
            (_, true) => Ok(old),
            (true, false) => Ok(new),
            (false, false) if old.end == new.start => Ok(old.start..new.end),
            (false, false) => Err(Error::PaddingInside { row, column: old.end }),
        }
    }

    /// Makes room for a run's columns.
    pub(crate) fn begin(&mut self, batch: usize, columns: &Positions) -> Result<()> {
        let needed = columns.end().max(self.reserved);
        if needed > self.room {
            let doubled = (2 * self.room).max(SMALLEST_ROOM).min(self.n_ctx);
            let room = if self.reserved >= columns.end() { needed } else { columns.end().max(doubled) };
            self.grow(batch, room)
        } else if self.is_empty() {
            self.grow(batch, self.room)
        } else {
            Ok(())
        }
    }

    /// Puts every row of every layer where it lies with more room.
    fn grow(&mut self, batch: usize, room: usize) -> Result<()> {
        let (kept, width) = (self.columns, self.n_kv_heads * self.d_head);
        for layer in &mut self.layers {
            match (self.engine, layer) {
                (Engine::Kernels(arithmetic), layer) => {
                    let grown = match layer {
                        Layer::Packed(old) if kept > 0 => old.with_room(room, kept)?,
                        Layer::Packed(old) if (old.batch(), old.room()) == (batch, room) => continue,
                        _ => KeyValuePanels::new(arithmetic, batch, room, self.n_kv_heads, self.d_head)?,
                    };
                    *layer = Layer::Packed(grown);
                }
                (_, Layer::Plain(both)) => {
                    for x in both.iter_mut().filter(|x| kept > 0 || x.len() != batch * room * width) {
                        *x = with_room(x, [self.room * width, room * width], kept * width, batch);
                    }
                }
                (_, layer) => *layer = Layer::Plain([(); 2].map(|()| vec![0.0; batch * room * width])),
            }
        }
        self.room = match self.layers.first() {
            Some(Layer::Packed(panels)) => panels.room(),
            _ => room,
        };
        Ok(())
    }

    /// Writes a layer's keys and values of this run, `[batch, pos, width]`, behind those of earlier ones. They count when the run has
    /// [ended](Self::commit).
    pub(crate) fn append(&mut self, layer: usize, columns: &Positions, new: [&[f32]; 2]) -> Result<()> {
        let width = self.n_kv_heads * self.d_head;
        let (first, pos, room) = (columns.offset * width, columns.pos * width, self.room * width);
        let layers = self.layers.len();
        let held = self.layers.get_mut(layer).ok_or(Error::OutOfRange {
            what: "layer of the cache",
            found: layer,
            limit: layers,
        })?;
        let held = match held {
            Layer::Packed(panels) => return Ok(panels.append(columns.offset, columns.pos, new[0], new[1])?),
            Layer::Plain(both) => both,
        };
        for (held, new) in held.iter_mut().zip(new) {
            let rows = held.chunks_exact_mut(room.max(1)).zip(new.chunks_exact(pos.max(1)));
            rows.for_each(|(held, new)| held[first..first + pos].copy_from_slice(new));
        }
        Ok(())
    }

    /// Keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> Option<Cached<'_>> {
        Some(match self.layers.get(layer)? {
            Layer::Plain([keys, values]) => Cached::Plain { keys, values, room: self.room },
            Layer::Packed(panels) => Cached::Packed(panels),
        })
    }

    /// The run's columns are part of the cache from now on.
    pub(crate) fn commit(&mut self, batch: usize, columns: &Positions) {
        self.columns = columns.end();
        self.turned_for = columns.end();
        self.ranges = (0..batch).map(|row| columns.token_range(row)).collect();
    }

    /// Whether it was made for a model of this shape, computed by this engine.
    ///
    /// # Errors
    /// [`Error::CacheOfOtherModel`], [`Error::CacheOfOtherEngine`].
    pub(crate) fn check_model(&self, shape: &ModelShape, engine: Engine) -> Result<()> {
        let expected = [shape.n_layers, shape.n_kv_heads * shape.d_head, shape.n_ctx];
        let found = [self.layers.len(), self.n_kv_heads * self.d_head, self.n_ctx];
        if found != expected || self.d_head != shape.d_head {
            return Err(Error::CacheOfOtherModel { expected, found });
        }
        if self.engine != engine {
            return Err(Error::CacheOfOtherEngine { expected: engine, found: self.engine });
        }
        Ok(())
    }
}

/// Rows of `old[0]` with room for `old[1]`, their beginnings kept.
fn with_room(x: &[f32], [old, new]: [usize; 2], kept: usize, batch: usize) -> Vec<f32> {
    let mut larger = vec![0.0; batch * new];
    if kept > 0 {
        let rows = larger.chunks_exact_mut(new.max(1)).zip(x.chunks_exact(old.max(1)));
        rows.for_each(|(to, from)| to[..kept].copy_from_slice(&from[..kept]));
    }
    larger
}
