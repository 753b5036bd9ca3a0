//! Memory for packed operands and scratch: aligned, zeroed, in huge pages where it is large, and reused.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every buffer: a cache line, and the row of an AMX tile.
const LINE: usize = 64;
/// A huge page of x86-64 and of most 64-bit Arm kernels.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed bytes at an address that any vector instruction accepts.
pub(crate) struct Buffer {
    at: NonNull<u8>,
    len: usize,
    /// Start of the allocation that contains `at`.
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory, and hands it out under the usual rules of `&self` and `&mut self`.
unsafe impl Send for Buffer {}
// SAFETY: as above; nothing is changed through `&self`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory of at least so many bytes, which will soon be used from end to end.
    pub fn new(bytes: usize) -> Self {
        Self::with_pages(bytes, true)
    }

    /// Zeroed memory of at least so many bytes, of which little may ever be used: the system gives it a small page at a time, when one is
    /// first written to.
    pub fn sparse(bytes: usize) -> Self {
        Self::with_pages(bytes, false)
    }

    fn with_pages(bytes: usize, huge: bool) -> Self {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        let len = bytes.max(LINE).next_multiple_of(LINE);
        // An allocator hands out large zeroed memory untouched only if no alignment is asked for; so the start is aligned here, and
        // what is cut off is never touched.
        let layout = Layout::from_size_align(len + align, 1).expect("callers check that sizes can be addressed");
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: less than `align` ahead, so `len` bytes are left.
        let at = unsafe { base.add(base.addr().get().next_multiple_of(align) - base.addr().get()) };
        if align == HUGE_PAGE {
            // Whole ones: a last one that is used in part would be resident as a whole, which many a weight matrix would double.
            advise_huge_pages(at.as_ptr(), len / HUGE_PAGE * HUGE_PAGE, huge);
        }
        Self { at, len, base, layout }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes it hold at least so many bytes; what it held is lost if it grows.
    pub fn reserve(&mut self, bytes: usize) {
        if self.len() < bytes {
            // The old memory first, so that the two are never held together.
            *self = Self::default();
            *self = Self::new(bytes);
        }
    }

    /// The memory as elements.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        // SAFETY: owned, aligned to 64, initialized; every bit pattern is a `T` (that is what `Element` promises).
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().cast(), self.len() / size_of::<T>()) }
    }

    /// The memory as elements.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.len() / size_of::<T>()) }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Plain numbers: any bits are a value.
///
/// # Safety
/// Every bit pattern must be a valid value, and the alignment at most 64.
pub(crate) unsafe trait Element: Copy {}
// SAFETY: plain numbers.
unsafe impl Element for u8 {}
// SAFETY: plain numbers.
unsafe impl Element for u16 {}
// SAFETY: plain numbers.
unsafe impl Element for f32 {}

/// Large buffers are touched once per batch from end to end: with 4 KiB pages the faults and the address look-ups cost more than
/// some kernels do. Where they are not wanted, they are refused, since some systems give them by default.
#[cfg(target_os = "linux")]
fn advise_huge_pages(at: *mut u8, len: usize, wanted: bool) {
    let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: the range was just allocated; the advice changes no contents. A refusal is no error: pages stay as they are.
    unsafe { libc::madvise(at.cast(), len, advice) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: *mut u8, _: usize, _: bool) {}
