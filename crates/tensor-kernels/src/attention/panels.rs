//! Keys and values of texts that grow, packed as attention reads them: [`KeyValuePanels`].

use super::masks::all_finite;
use crate::buffer::Buffer;
use crate::{Arithmetic, Error, MatrixRef, Result, TILE_COLS};
use rayon::prelude::*;
use std::fmt;

/// Keys and values that one kernel reads where they lie: each is packed once, when it is [appended](Self::append), so that the
/// cost of a query is that of its products.
///
/// ```text
/// keys    [batch, n_kv_heads, panels of 32 keys]      each [d_head, 32]
/// values  [batch, n_kv_heads, panels of 32 columns]   each [room, 32]
/// ```
/// They take `4 batch room n_kv_heads (d_head + d)` bytes, `d` being `d_head` rounded up to a multiple of 32 (bf16: half of it). Room that
/// nothing was written to is reserved but, on Linux, not resident.
pub struct KeyValuePanels {
    arithmetic: Arithmetic,
    batch: usize,
    /// A multiple of [`GROUP`].
    room: usize,
    n_kv_heads: usize,
    d_head: usize,
    keys: Buffer,
    values: Buffer,
    /// For each row and head whether all values so far were finite.
    finite: Vec<bool>,
}

/// Room comes in multiples of this: whole panels of keys, and whole steps of every kernel.
const GROUP: usize = 32;

impl KeyValuePanels {
    /// Room for so many keys and values of each row, rounded up to a multiple of 32. Nothing is held yet.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn new(arithmetic: Arithmetic, batch: usize, room: usize, n_kv_heads: usize, d_head: usize) -> Result<Self> {
        let room_of = || room.checked_next_multiple_of(GROUP);
        let too_large = Error::TooLarge { rows: batch.saturating_mul(room), cols: n_kv_heads.saturating_mul(d_head) };
        let room = room_of().ok_or(too_large.clone())?;
        let factors = [batch, room.max(64), n_kv_heads, d_head.max(64)];
        // Eight bytes a value is more than any kernel takes, and widths are padded to at most twice of what is 64 or more.
        let bytes = factors.iter().try_fold(16usize, |size, n| size.checked_mul((*n).max(1)));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(too_large);
        }
        let heads = batch * n_kv_heads;
        let mut new = Self {
            arithmetic,
            batch,
            room,
            n_kv_heads,
            d_head,
            keys: Buffer::default(),
            values: Buffer::default(),
            finite: vec![true; heads],
        };
        // A head's keys lie a whole room apart from the next one's: huge pages would be zeroed, and resident, for all of the room with
        // the first token.
        new.keys = Buffer::sparse(heads * new.key_bytes());
        new.values = Buffer::sparse(heads * new.value_bytes());
        Ok(new)
    }

    /// The arithmetic they are packed for.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Rows.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Keys and values that a row has memory for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.values.len()
    }

    /// Packs the next keys and values `[batch, pos, n_kv_heads, d_head]` of every row to the places from `first` on. What was there
    /// is replaced, and what lies behind counts no more.
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::Mismatch`] where there is no room.
    pub fn append(&mut self, first: usize, pos: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let width = self.n_kv_heads * self.d_head;
        if first.checked_add(pos).is_none_or(|end| end > self.room) {
            let (expected, found) = (format!("at most {}", self.room), format!("{first} + {pos}"));
            return Err(Error::Mismatch { what: "keys and values", expected, found });
        }
        for (what, x) in [("new keys", keys), ("new values", values)] {
            if x.len() != self.batch * pos * width {
                return Err(Error::Length { what, expected: self.batch * pos * width, found: x.len() });
            }
        }
        if pos == 0 || width == 0 || self.batch == 0 {
            return Ok(());
        }
        if first == 0 {
            self.finite.fill(true);
        }
        let new = New { arithmetic: self.arithmetic, first, pos, d_head: self.d_head, stride: width };
        let (n_kv_heads, key_bytes, value_bytes) = (self.n_kv_heads, self.key_bytes(), self.value_bytes());
        let panel_bytes = self.arithmetic.kernel().panel_bytes(self.room);
        let key_panels = self.keys.as_mut_slice::<u8>().par_chunks_exact_mut(key_bytes);
        let value_panels = self.values.as_mut_slice::<u8>().par_chunks_exact_mut(value_bytes);
        let heads = self.finite.par_iter_mut().zip(key_panels).zip(value_panels).enumerate();
        // Few of them are packed faster than they are handed to another thread.
        let at_once = if pos * new.d_head < MIN_PART { MIN_PART / (pos * new.d_head) } else { 1 };
        heads.with_min_len(at_once).for_each(|(i, ((finite, key_panels), value_panels))| {
            let start = i / n_kv_heads * pos * width + i % n_kv_heads * new.d_head;
            new.pack_keys(&keys[start..], key_panels);
            new.pack_values(&values[start..], value_panels, panel_bytes);
            *finite &= all_finite(new.arithmetic.backend(), &values[start..], pos, new.d_head, width);
        });
        Ok(())
    }

    /// The same with room for so many, of the first `kept` of which what they hold is kept.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Mismatch`] where less room is asked for than is kept.
    pub fn with_room(&self, room: usize, kept: usize) -> Result<Self> {
        if kept > room || kept > self.room {
            let (expected, found) = (format!("at most {}", room.min(self.room)), kept.to_string());
            return Err(Error::Mismatch { what: "keys and values that are kept", expected, found });
        }
        let mut new = Self::new(self.arithmetic, self.batch, room, self.n_kv_heads, self.d_head)?;
        new.finite.clone_from(&self.finite);
        let kernel = self.arithmetic.kernel();
        let copy = |from: &[u8], to: &mut [u8], pieces: [usize; 2], bytes: usize| {
            let pieces = from.chunks_exact(pieces[0].max(1)).zip(to.chunks_exact_mut(pieces[1].max(1)));
            pieces.for_each(|(from, to)| to[..bytes].copy_from_slice(&from[..bytes]));
        };
        let heads = self.batch * self.n_kv_heads;
        let key_bytes = kept.div_ceil(TILE_COLS) * kernel.panel_bytes(self.d_head);
        let (from, to) = (&self.keys.as_slice()[..heads * self.key_bytes()], new.key_bytes());
        copy(from, new.keys.as_mut_slice(), [self.key_bytes(), to], key_bytes);
        let (from, to) = (&self.values.as_slice()[..heads * self.value_bytes()], kernel.panel_bytes(new.room));
        copy(from, new.values.as_mut_slice(), [kernel.panel_bytes(self.room), to], kernel.panel_bytes(kept));
        Ok(new)
    }

    /// Bytes of the keys of a head of a row.
    fn key_bytes(&self) -> usize {
        self.room / TILE_COLS * self.arithmetic.kernel().panel_bytes(self.d_head)
    }

    /// Bytes of the values of a head of a row.
    fn value_bytes(&self) -> usize {
        self.d_head.div_ceil(TILE_COLS) * self.arithmetic.kernel().panel_bytes(self.room)
    }

    /// A panel of keys of a head of a row: those from `panel * TILE_COLS` on.
    pub(super) fn key_panel(&self, batch: usize, kv_head: usize, panel: usize) -> &[u8] {
        let bytes = self.arithmetic.kernel().panel_bytes(self.d_head);
        &self.keys.as_slice()[(batch * self.n_kv_heads + kv_head) * self.key_bytes() + panel * bytes..][..bytes]
    }

    /// A panel of values of a head of a row: its columns from `panel * TILE_COLS` on, for all of the room.
    pub(super) fn value_panel(&self, batch: usize, kv_head: usize, panel: usize) -> &[u8] {
        let bytes = self.arithmetic.kernel().panel_bytes(self.room);
        &self.values.as_slice()[(batch * self.n_kv_heads + kv_head) * self.value_bytes() + panel * bytes..][..bytes]
    }

    /// Whether all values of a head of a row are finite.
    pub(super) fn is_finite(&self, batch: usize, kv_head: usize) -> bool {
        self.finite[batch * self.n_kv_heads + kv_head]
    }

    /// Whether they are the keys and values of such heads.
    pub(super) fn fits(&self, arithmetic: Arithmetic, batch: usize, n_kv_heads: usize, d_head: usize) -> bool {
        (self.arithmetic, self.batch, self.n_kv_heads, self.d_head) == (arithmetic, batch, n_kv_heads, d_head)
    }
}

/// Values below which a piece of work is not worth handing to another thread.
const MIN_PART: usize = 1 << 14;

/// New keys and values of one head of a row, `stride` apart, on their way to the places from `first` on.
struct New {
    arithmetic: Arithmetic,
    first: usize,
    pos: usize,
    d_head: usize,
    stride: usize,
}

impl New {
    fn pack_keys(&self, keys: &[f32], panels: &mut [u8]) {
        let kernel = self.arithmetic.kernel();
        let bytes = kernel.panel_bytes(self.d_head);
        let mut done = 0;
        while done < self.pos {
            let (panel, within) = ((self.first + done) / TILE_COLS, (self.first + done) % TILE_COLS);
            let n = (TILE_COLS - within).min(self.pos - done);
            let matrix = MatrixRef::strided(&keys[done * self.stride..], self.d_head, n, 1, self.stride)
                .expect("lengths are checked before");
            let panel = &mut panels[panel * bytes..][..bytes];
            if within == 0 {
                matrix.pack_panel(self.arithmetic, 0, panel);
            } else {
                with_panel(bytes, |new| {
                    matrix.pack_panel(self.arithmetic, 0, new);
                    (0..n).for_each(|i| kernel.copy_column(new, i, panel, within + i));
                });
            }
            done += n;
        }
    }

    fn pack_values(&self, values: &[f32], panels: &mut [u8], panel_bytes: usize) {
        let kernel = self.arithmetic.kernel();
        let step = kernel.k_step();
        // The rest of a step that has begun, row by row; then whole steps.
        let within = self.first % step;
        let head = if within == 0 { 0 } else { (step - within).min(self.pos) };
        let rows = |done: usize, n: usize| {
            MatrixRef::strided(&values[done * self.stride..], n, self.d_head, self.stride, 1)
                .expect("lengths are checked before")
        };
        for (i, panel) in panels.chunks_exact_mut(panel_bytes).enumerate() {
            if head > 0 {
                with_panel(kernel.panel_bytes(step), |new| {
                    let begun = &mut panel[kernel.panel_bytes(self.first - within)..][..kernel.panel_bytes(step)];
                    rows(0, head).pack_panel(self.arithmetic, i * TILE_COLS, new);
                    // The rows of the step behind them are zeros in `new`.
                    (within..step).for_each(|row| kernel.copy_row(new, (row - within).min(head), begun, row));
                });
            }
            if head < self.pos {
                let bytes = kernel.panel_bytes(self.pos - head);
                let place = &mut panel[kernel.panel_bytes(self.first + head)..][..bytes];
                rows(head, self.pos - head).pack_panel(self.arithmetic, i * TILE_COLS, place);
            }
        }
    }
}

/// A panel that is needed for a moment.
fn with_panel(bytes: usize, work: impl FnOnce(&mut [u8])) {
    crate::scratch::with(crate::scratch::Slot::Operand, bytes, |buffer| work(&mut buffer.as_mut_slice()[..bytes]));
}

impl Clone for KeyValuePanels {
    fn clone(&self) -> Self {
        let copy = |buffer: &Buffer| {
            let mut new = Buffer::sparse(buffer.len());
            new.as_mut_slice::<u8>().copy_from_slice(buffer.as_slice());
            new
        };
        Self { keys: copy(&self.keys), values: copy(&self.values), finite: self.finite.clone(), ..*self }
    }
}

impl fmt::Debug for KeyValuePanels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, room, n_kv_heads, d_head, arithmetic, .. } = self;
        write!(f, "KeyValuePanels([{batch}, {room}, {n_kv_heads}, {d_head}], {arithmetic})")
    }
}

/// Keys or values that [`attention`](super::attention()) reads.
#[derive(Clone, Copy, Debug)]
pub enum KeyValues<'a> {
    /// `[batch, room, n_kv_heads, d_head]`; packed for each call.
    Plain(&'a [f32]),
    /// Packed already.
    Packed(&'a KeyValuePanels),
}

impl<'a> From<&'a [f32]> for KeyValues<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Plain(values)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for KeyValues<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::Plain(values)
    }
}

impl<'a> From<&'a Vec<f32>> for KeyValues<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::Plain(values)
    }
}

impl<'a> From<&'a KeyValuePanels> for KeyValues<'a> {
    fn from(panels: &'a KeyValuePanels) -> Self {
        Self::Packed(panels)
    }
}
