//! Attention divided into tasks: some heads and rows of queries that share a head of keys.

use super::masks::{extent, seen};
use super::{AttentionOptions, AttentionShape, KeyValues};
use crate::epilogue::SharedOut;
use crate::scratch::{self, Slot};
use crate::softmax::softmax_causal;
use crate::{Arithmetic, TILE_COLS};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of queries that are computed together, at least: as many as a panel has columns, so that little is computed beside the causal
/// diagonal.
const ROWS: usize = TILE_COLS;
/// Tasks that each thread should get.
const TASKS_PER_THREAD: usize = 4;
/// Multiply-adds below which a task is not worth handing to another thread.
const MIN_WORK: usize = 1 << 18;
/// Lanes times running sums of a softmax, on any back end divides this: ranges of keys start at multiples of it, so that a row's
/// sum is the same wherever the range starts.
const SUM_GROUP: usize = 64;

/// Everything that does not change from task to task.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub arithmetic: Arithmetic,
    pub shape: AttentionShape,
    pub options: AttentionOptions<'a>,
    /// Rows of queries that are computed together.
    pub rows: usize,
    /// Heads that are computed together, of one query each: more than one where there is one query, so that heads that share their keys
    /// read them once.
    heads: usize,
    /// Ranges of keys start at multiples of this, so that their sums are parked at the same places for every row.
    key_group: usize,
}

/// Destination of results.
pub(crate) struct Output<'a> {
    pub scores: Option<SharedOut<'a>>,
    pub pattern: Option<SharedOut<'a>>,
    pub z: Option<SharedOut<'a>>,
}

/// Rows of queries of one head, or one query of several heads that share their keys.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub batch: usize,
    /// The first head.
    pub head: usize,
    /// Number of heads.
    pub heads: usize,
    pub queries: Range<usize>,
    /// Keys that any of the rows has to do with; starts at a multiple of the job's group.
    pub keys: Range<usize>,
}

impl Block {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.heads * self.queries.len()
    }

    /// Head and query of each row.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let queries = self.queries.clone();
        (self.head..self.head + self.heads).flat_map(move |head| queries.clone().map(move |query| (head, query)))
    }
}

/// Blocks that share a head of keys and values.
struct Task {
    batch: usize,
    kv_head: usize,
    /// Numbers of blocks: heads of the group one after another, within each its rows.
    blocks: Range<usize>,
}

/// A thread's scratch, divided.
pub(crate) struct Scratch<'a> {
    /// Panels of keys.
    pub k_panels: &'a mut [u8],
    /// Panels of values.
    pub v_panels: &'a mut [u8],
    /// Rows of queries or of the pattern, packed.
    pub blocks: &'a mut [u8],
    /// Rows of queries on their way into blocks.
    pub rows: &'a mut [f32],
    /// Scores, then the pattern, of a block's rows.
    pub scores: &'a mut [f32],
    /// Sums of a tile.
    pub sums: &'a mut [f32],
}

impl<'a> Job<'a> {
    pub fn new(arithmetic: Arithmetic, shape: AttentionShape, options: AttentionOptions<'a>) -> Self {
        let kernel = arithmetic.kernel();
        let parked = kernel.k_block() * kernel.k_step();
        let key_group = parked / gcd(parked, SUM_GROUP) * SUM_GROUP;
        // As many as leave every thread something to do.
        let parts = rayon::current_num_threads().div_ceil((shape.batch * shape.n_kv_heads).max(1));
        let heads = if shape.queries == 1 { shape.group().div_ceil(parts).clamp(1, ROWS) } else { 1 };
        let rows = ROWS.min(shape.queries.max(1)).max(heads).next_multiple_of(kernel.block_rows());
        Self { arithmetic, shape, options, rows, heads, key_group }
    }

    /// Scores and, if the output has `z`, pattern and mix.
    pub fn attend(&self, q: &[f32], k: KeyValues<'_>, v: KeyValues<'_>, output: &Output<'_>) {
        self.for_each_task([k, v], |task, scratch| {
            let keys = self.keys_of(task, |block| self.seen_by(block));
            self.pack_keys(k, task.batch, task.kv_head, &keys, scratch.k_panels);
            let mix = output.z.is_some();
            let finite = mix && self.pack_values(v, task.batch, task.kv_head, &keys, scratch.v_panels);
            for block in task.blocks.clone() {
                let block = self.block(task, block, |block| self.seen_by(block));
                let width = block.keys.len();
                self.scores(q, k, &block, &keys, scratch);
                copy_out(output.scores.as_ref(), &self.shape, &block, scratch.scores, f32::NEG_INFINITY);
                if let Some(z) = &output.z {
                    let rows = &mut scratch.scores[..block.rows() * width];
                    let end = seen(&self.shape, &self.options, block.queries.start).end - block.keys.start;
                    softmax_causal(self.arithmetic.backend(), rows, width, end);
                    copy_out(output.pattern.as_ref(), &self.shape, &block, scratch.scores, 0.0);
                    self.mix_block(v, &block, &keys, finite, scratch, z);
                }
            }
        });
    }

    /// The mix of values by a pattern.
    pub fn mix(&self, pattern: &[f32], v: KeyValues<'_>, z: &SharedOut<'_>) {
        let keys = self.shape.keys;
        let rows_of = |block: &Block| {
            let first = (block.batch * self.shape.n_heads + block.head) * self.shape.queries;
            let first = first + block.queries.start;
            &pattern[first * keys..(first + block.rows()) * keys]
        };
        self.for_each_task([v, v], |task, scratch| {
            let range = |block: &Block| extent(rows_of(block), keys);
            let packed = self.keys_of(task, range);
            let finite = self.pack_values(v, task.batch, task.kv_head, &packed, scratch.v_panels);
            for block in task.blocks.clone() {
                let block = self.block(task, block, range);
                for (i, row) in rows_of(&block).chunks_exact(keys.max(1)).enumerate() {
                    let width = block.keys.len();
                    scratch.scores[i * width..(i + 1) * width].copy_from_slice(&row[block.keys.clone()]);
                }
                self.mix_block(v, &block, &packed, finite, scratch, z);
            }
        });
    }

    fn for_each_task(&self, held: [KeyValues<'_>; 2], work: impl Fn(&Task, &mut Scratch<'_>) + Sync) {
        let AttentionShape { batch, n_kv_heads, .. } = self.shape;
        let (shared, blocks) = (batch * n_kv_heads, self.shape.group().div_ceil(self.heads) * self.blocks_of_head());
        if shared * blocks == 0 {
            return;
        }
        let each = self.shape.queries * self.shape.keys * self.shape.d_head.max(1) * self.shape.group();
        let threads = rayon::current_num_threads();
        let wanted = if threads <= 1 {
            1
        } else {
            (each.saturating_mul(shared) / MIN_WORK).clamp(1, threads * TASKS_PER_THREAD)
        };
        let parts = wanted.div_ceil(shared).min(blocks);
        let run = |i: usize| {
            let (head, part) = (i / parts, i % parts);
            let blocks = part * blocks / parts..(part + 1) * blocks / parts;
            let task = Task { batch: head / n_kv_heads, kv_head: head % n_kv_heads, blocks };
            self.with_scratch(held, |scratch| work(&task, scratch));
        };
        if wanted == 1 {
            return (0..shared * parts).for_each(run);
        }
        (0..shared * parts).into_par_iter().for_each(run);
    }

    fn blocks_of_head(&self) -> usize {
        self.shape.queries.div_ceil(self.rows)
    }

    /// Block `i` of a task, with the keys that `range` says.
    fn block(&self, task: &Task, i: usize, range: impl Fn(&Block) -> Range<usize>) -> Block {
        let (first, rows) = (i / self.blocks_of_head() * self.heads, i % self.blocks_of_head() * self.rows);
        let queries = rows..(rows + self.rows).min(self.shape.queries);
        let (head, heads) = (task.kv_head * self.shape.group() + first, self.heads.min(self.shape.group() - first));
        let mut block = Block { batch: task.batch, head, heads, queries, keys: 0..0 };
        let keys = range(&block);
        block.keys = keys.start / self.key_group * self.key_group..keys.end;
        block
    }

    /// Keys that rows of queries see.
    fn seen_by(&self, block: &Block) -> Range<usize> {
        let first = seen(&self.shape, &self.options, block.queries.start);
        first.start..seen(&self.shape, &self.options, block.queries.end - 1).end
    }

    /// Keys that all blocks of a task have to do with.
    fn keys_of(&self, task: &Task, range: impl Fn(&Block) -> Range<usize>) -> Range<usize> {
        let blocks = task.blocks.clone().map(|i| self.block(task, i, &range).keys);
        blocks.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    fn with_scratch(&self, held: [KeyValues<'_>; 2], work: impl FnOnce(&mut Scratch<'_>)) {
        let kernel = self.arithmetic.kernel();
        let AttentionShape { keys, d_head, .. } = self.shape;
        let blocks = self.rows / kernel.block_rows();
        let f32s = |n: usize| n * size_of::<f32>();
        let plain = |held: KeyValues<'_>, bytes: usize| if matches!(held, KeyValues::Plain(_)) { bytes } else { 0 };
        let lengths = [
            plain(held[0], kernel.panel_bytes(d_head) * keys.div_ceil(TILE_COLS)),
            plain(held[1], kernel.panel_bytes(keys) * d_head.div_ceil(TILE_COLS)),
            blocks * kernel.block_bytes(d_head).max(kernel.block_bytes(keys)),
            f32s(self.rows * d_head),
            f32s(self.rows * keys),
            f32s(self.rows * TILE_COLS),
        ];
        let total = lengths.iter().map(|bytes| bytes.next_multiple_of(64)).sum();
        scratch::with(Slot::Attention, total, |buffer| {
            let mut rest = buffer.as_mut_slice::<u8>();
            let parts = lengths.map(|bytes| {
                let (part, more) = std::mem::take(&mut rest).split_at_mut(bytes.next_multiple_of(64));
                rest = more;
                &mut part[..bytes]
            });
            let [k_panels, v_panels, blocks, rows, scores, sums] = parts;
            let [rows, scores, sums] = [rows, scores, sums].map(crate::kernel::as_f32_mut);
            work(&mut Scratch { k_panels, v_panels, blocks, rows, scores, sums });
        });
    }
}

/// Copies rows of scores or pattern out, `outside` for the keys beside the block's.
fn copy_out(out: Option<&SharedOut<'_>>, shape: &AttentionShape, block: &Block, rows: &[f32], outside: f32) {
    let Some(out) = out else { return };
    let width = block.keys.len();
    for (row, (head, query)) in block.places().enumerate() {
        let at = (block.batch * shape.n_heads + head) * shape.queries + query;
        // SAFETY: no two blocks share a row.
        let out = unsafe { out.row(at, 0..shape.keys) };
        out[..block.keys.start].fill(outside);
        out[block.keys.clone()].copy_from_slice(&rows[row * width..][..width]);
        out[block.keys.end..].fill(outside);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
