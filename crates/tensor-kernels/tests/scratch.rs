//! What threads keep between calls is bounded. One test in a program of its own: the allocator counts for the whole process.

mod common;

use common::normal;
use rayon::ThreadPoolBuilder;
use tensor_kernels::{
    Arithmetic, AttentionOptions, AttentionShape, AttentionTaps, CountingAllocator, MatrixRef, PackedRows, Store,
    attention, product,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const THREADS: u64 = 2;
/// Three buffers for each thread.
const BOUND: u64 = THREADS * 3 * (8 << 20) + (4 << 20);

#[test]
fn large_scratch_is_given_back() {
    let pool = ThreadPoolBuilder::new().num_threads(THREADS as usize).build().unwrap();
    for arithmetic in Arithmetic::available() {
        pool.install(|| {
            let shape = AttentionShape { queries: 128, ..AttentionShape::new(1, 40_000, 2, 2, 4) };
            let (q, k) = (normal(128 * 8, 1, 1.0), normal(40_000 * 8, 2, 1.0));
            let mut z = vec![0.0; q.len()];
            let (wide, mut out) = (200_000, vec![0.0; 40]);
            let (x, w) = (normal(wide, 3, 1.0), normal(wide * 40, 4, 1.0));
            let before = CountingAllocator::live_bytes();
            CountingAllocator::reset_peak();
            let (options, none) = (AttentionOptions::new(2.0), AttentionTaps::default());
            attention(arithmetic, &shape, &options, &q, &k, &k, none, &mut z).unwrap();
            let taken = CountingAllocator::peak_bytes() - before;
            assert!(taken > 12 << 20, "{arithmetic:?}: {taken} bytes are no large scratch");
            let mut rows = PackedRows::new();
            rows.pack_with(arithmetic, 1, wide, |_, out| out.copy_from_slice(&x)).unwrap();
            let plain = MatrixRef::row_major(&w, wide, 40).unwrap();
            product(&rows, plain, Store::new(&mut out, 40, None).unwrap()).unwrap();
            let packed = rows.bytes() as u64;
            let kept = (CountingAllocator::live_bytes() - before).saturating_sub(packed);
            assert!(kept <= BOUND, "{arithmetic:?}: {kept} bytes kept, at most {BOUND} allowed");
        });
    }
}
