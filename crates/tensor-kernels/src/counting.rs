//! Counters for tests and benchmarks, which do not measure time: memory ([`CountingAllocator`]), and weights that were packed
//! ([`panels_packed`]).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PANELS: Cell<u64> = const { Cell::new(0) };
}

/// Number of panels of [`TILE_COLS`](crate::TILE_COLS) columns that this thread has packed so far: of weights, once when they are loaded and
/// again in every product with a plain matrix, and of keys and values that attention was given unpacked. A test that counts them runs
/// on a pool of one thread.
#[must_use]
pub fn panels_packed() -> u64 {
    PANELS.get()
}

/// A panel has been packed.
pub(crate) fn panel_packed() {
    PANELS.set(PANELS.get() + 1);
}

/// The system's allocator, counting. A test or benchmark makes it the allocator of its whole binary:
///
/// ```
/// use tensor_kernels::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let (before, calls) = (CountingAllocator::live_bytes(), CountingAllocator::calls());
/// let kept = vec![0u8; 1000];
/// assert_eq!(CountingAllocator::live_bytes() - before, 1000);
/// assert_eq!(CountingAllocator::calls() - calls, 1);
/// # drop(kept);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

impl CountingAllocator {
    /// Bytes allocated and not freed.
    #[must_use]
    pub fn live_bytes() -> u64 {
        LIVE.load(Relaxed)
    }

    /// The most bytes that were allocated at a time since the start or the latest [`reset_peak`](Self::reset_peak).
    #[must_use]
    pub fn peak_bytes() -> u64 {
        PEAK.load(Relaxed)
    }

    /// Starts the peak again at what is allocated now.
    pub fn reset_peak() {
        PEAK.store(LIVE.load(Relaxed), Relaxed);
    }

    /// Number of allocations, reallocations included.
    #[must_use]
    pub fn calls() -> u64 {
        CALLS.load(Relaxed)
    }

    fn taken(bytes: usize) {
        CALLS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        PEAK.fetch_max(live, Relaxed);
    }

    fn freed(bytes: usize) {
        LIVE.fetch_sub(bytes as u64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, and its answer comes back unchanged; counting touches
// atomics only and neither allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::taken(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::taken(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::freed(layout.size());
        Self::taken(new_size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::freed(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
