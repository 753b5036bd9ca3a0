//! Once a loop over batches has warmed up, nothing is allocated per batch, on any thread.
//!
//! One test in a program of its own: the allocator counts for the whole process.

mod common;

use common::normal;
use rayon::ThreadPoolBuilder;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tensor_kernels::{
    Activate, Activation, AddTo, Arithmetic, AttentionOptions, AttentionShape, AttentionTaps, CsrBuffer, FeatureTop,
    Gate, Grid, MatrixRef, Norm, PackedMatrix, PackedRows, RopeLayout, RopeShape, SparseActivation, SparseEncoder,
    Store, TopBottom, activate, add_to, attention, attention_mix, attention_scores, decode_rows, log_sum_exp, product,
    product_on, rope, scale_and_shift, softmax_rows,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, and a count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 66;
const WIDTH: usize = 96;
const COLS: usize = 700;
const SHAPE: (usize, usize, usize, usize, usize) = (2, ROWS / 2, 3, 1, WIDTH / 3);

/// What a model's block, an SAE and a census need, with all the memory that they keep.
struct Loop {
    arithmetic: Arithmetic,
    w: Vec<f32>,
    matrix: PackedMatrix,
    bias: Vec<f32>,
    rows: PackedRows,
    scale: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    z: Vec<f32>,
    scores: Vec<f32>,
    pattern: Vec<f32>,
    angles: Vec<f32>,
    counts: Vec<u64>,
    encoder: SparseEncoder,
    codes: CsrBuffer,
    extremes: TopBottom,
    top: FeatureTop,
}

impl Loop {
    fn new(arithmetic: Arithmetic) -> Self {
        let w = normal(WIDTH * COLS, 3, 0.1);
        let scores = SHAPE.0 * SHAPE.1 * SHAPE.1 * SHAPE.2;
        Self {
            arithmetic,
            matrix: PackedMatrix::pack(arithmetic, MatrixRef::row_major(&w, WIDTH, COLS).unwrap()).unwrap(),
            w,
            bias: normal(COLS, 4, 0.5),
            rows: PackedRows::new(),
            scale: vec![0.0; ROWS],
            normed: vec![0.0; ROWS * WIDTH],
            wide: vec![0.0; ROWS * COLS],
            z: vec![0.0; ROWS * WIDTH],
            scores: vec![0.0; scores],
            pattern: vec![0.0; scores],
            angles: vec![0.6; SHAPE.1 * WIDTH / 6],
            counts: vec![0; 4096],
            encoder: SparseEncoder::new(),
            codes: CsrBuffer::new(),
            extremes: TopBottom::new(ROWS, 5, 5).unwrap(),
            top: FeatureTop::new(COLS, 4),
        }
    }

    fn pack(&mut self, x: &[f32]) {
        let (backend, norm) = (self.arithmetic.backend(), Norm::rms(1e-5));
        self.rows.pack(self.arithmetic, x, WIDTH).unwrap();
        let write = |row: usize, out: &mut [f32]| _ = norm.row(backend, &x[row * WIDTH..][..WIDTH], out);
        self.rows.pack_with(self.arithmetic, ROWS, WIDTH, write).unwrap();
    }

    fn product(&mut self, _: &[f32]) {
        let bias = Some(&self.bias[..]);
        product(&self.rows, &self.matrix, Store::new(&mut self.wide, COLS, bias).unwrap()).unwrap();
        product(&self.rows, &self.matrix, AddTo::new(&mut self.wide, COLS, None).unwrap()).unwrap();
        let act = Activation::GeluTanh;
        product(&self.rows, &self.matrix, Activate::new(&mut self.wide, COLS, bias, act).unwrap()).unwrap();
        product(&self.rows, &self.matrix, Gate::new(&mut self.wide, COLS, None, Activation::Silu).unwrap()).unwrap();
    }

    fn product_of_a_plain_matrix(&mut self, _: &[f32]) {
        let plain = MatrixRef::row_major(&self.w, WIDTH, COLS).unwrap();
        product(&self.rows, plain, Store::new(&mut self.wide, COLS, None).unwrap()).unwrap();
    }

    fn product_on(&mut self, _: &[f32]) {
        let grid = Grid::new(&self.rows, COLS);
        product_on(&grid, &self.rows, &self.matrix, &mut self.counts, |count, tile| {
            *count += tile.sums.iter().filter(|&&sum| sum > 0.0).count() as u64;
        })
        .unwrap();
    }

    fn norms_and_activations(&mut self, x: &[f32]) {
        let backend = self.arithmetic.backend();
        for norm in [Norm::layer(1e-5), Norm::rms(1e-5)] {
            norm.scale(backend, x, WIDTH, &mut self.scale).unwrap();
            norm.normalize(backend, x, WIDTH, &self.scale, &mut self.normed).unwrap();
            norm.rows(backend, x, WIDTH, &mut self.normed).unwrap();
        }
        scale_and_shift(backend, &mut self.normed, WIDTH, Some(&self.bias[..WIDTH]), Some(&self.bias[..WIDTH]))
            .unwrap();
        activate(backend, Activation::GeluErf, &mut self.wide);
        add_to(backend, x, &mut self.normed).unwrap();
        softmax_rows(backend, &mut self.wide, COLS).unwrap();
        black_box(log_sum_exp(backend, &self.wide));
    }

    fn attention(&mut self, x: &[f32]) {
        let (batch, pos, heads, kv_heads, d_head) = SHAPE;
        let shape = AttentionShape::new(batch, pos, heads, kv_heads, d_head);
        let options = AttentionOptions::new((d_head as f32).sqrt());
        let rotated = RopeShape { pos, heads, d_head, d_rotary: d_head, pairs: RopeLayout::Half };
        rope(
            self.arithmetic.backend(),
            &mut self.normed,
            rotated,
            &self.angles[..pos * d_head / 2],
            &self.angles[..pos * d_head / 2],
        )
        .unwrap();
        let (q, k, v) = (&self.normed, &x[..batch * pos * kv_heads * d_head], &x[..batch * pos * kv_heads * d_head]);
        attention(self.arithmetic, &shape, &options, q, k, v, AttentionTaps::default(), &mut self.z).unwrap();
        let taps = AttentionTaps { scores: Some(&mut self.scores), pattern: Some(&mut self.pattern) };
        attention(self.arithmetic, &shape, &options, q, k, v, taps, &mut self.z).unwrap();
        attention_scores(self.arithmetic, &shape, &options, q, k, &mut self.scores).unwrap();
        attention_mix(self.arithmetic, &shape, &self.pattern, v, &mut self.z).unwrap();
    }

    fn sparse_rows_and_back(&mut self, _: &[f32]) {
        let (threshold, norms) = (&self.bias, Some(&self.bias[..]));
        let gated = SparseActivation::Gated { gain: &self.bias, b_mag: &self.bias };
        for rule in [
            SparseActivation::Relu,
            SparseActivation::JumpRelu { threshold },
            gated,
            SparseActivation::TopK { k: 8, norms: None },
        ] {
            self.codes.clear();
            self.encoder.encode(&self.rows, &self.matrix, norms, rule, &mut self.codes).unwrap();
        }
        let backend = self.arithmetic.backend();
        decode_rows(backend, self.codes.as_ref(), &self.w, WIDTH, None, Some(&self.bias[..WIDTH]), &mut self.z)
            .unwrap();
    }

    fn tops_of_features(&mut self, _: &[f32]) {
        for row in 0..self.codes.rows() {
            let (features, values) = self.codes.row(row);
            for (&feature, &value) in features.iter().zip(values) {
                self.top.offer(feature as usize, value, row as u64, 0);
            }
        }
    }

    fn extremes_of_rows(&mut self, seen: &mut usize) {
        self.extremes.scan(0, &self.rows, *seen * COLS, &self.matrix, Some(&self.bias)).unwrap();
        *seen += 1;
    }
}

/// Runs a step on batches, and answers how often the later ones allocated.
fn count(mut step: impl FnMut(usize) + Send) -> usize {
    (0..2).for_each(&mut step);
    let before = ALLOCATIONS.load(SeqCst);
    (2..6).for_each(&mut step);
    ALLOCATIONS.load(SeqCst) - before
}

type Step = fn(&mut Loop, &[f32]);
const STEPS: [(&str, Step); 8] = [
    ("packing", Loop::pack),
    ("product", Loop::product),
    ("product_on", Loop::product_on),
    ("product of a plain matrix", Loop::product_of_a_plain_matrix),
    ("norms and activations", Loop::norms_and_activations),
    ("attention", Loop::attention),
    ("sparse rows and back", Loop::sparse_rows_and_back),
    ("tops of features", Loop::tops_of_features),
];

/// The least of a few counts: the test harness's own thread may allocate in between, once, but what a batch allocates is in every count.
fn least(mut count: impl FnMut() -> usize) -> usize {
    (0..5).map(|_| count()).find(|&n| n == 0).unwrap_or_else(count)
}

#[test]
fn nothing_is_allocated_per_batch() {
    let batches = [normal(ROWS * WIDTH, 1, 1.0), normal(ROWS * WIDTH, 2, 1.0)];
    assert_eq!(count(|_| drop(black_box(vec![0u8; 8]))), 4, "the count counts");
    for threads in [1, 2] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for arithmetic in Arithmetic::available() {
            // Every thread's scratch: on each at once, so that none is left without work.
            pool.broadcast(|_| {
                let mut all = Loop::new(arithmetic);
                STEPS.iter().for_each(|(_, step)| step(&mut all, &batches[0]));
                all.extremes_of_rows(&mut 0);
            });
            let mut all = Loop::new(arithmetic);
            pool.install(|| {
                for (what, step) in STEPS {
                    let allocations = least(|| count(|i| step(&mut all, &batches[i % 2])));
                    assert_eq!(allocations, 0, "{what}: {arithmetic:?} on {threads} threads");
                }
                let mut seen = 0;
                let allocations = least(|| count(|_| all.extremes_of_rows(&mut seen)));
                assert_eq!(allocations, 0, "extremes of rows: {arithmetic:?} on {threads} threads");
            });
        }
    }
}
