//! Hints to the memory system about plain slices. They change no contents and nothing but speed.

/// Large pages of x86-64 and of most 64-bit Arm kernels.
const HUGE_PAGE: usize = 2 << 20;

/// Starts to bring `slice[at]` into the cache; past the end it does nothing. Worth it where the next accesses are known and scattered over more
/// memory than the caches hold.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = slice.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction; it faults on no address, and this one is of a live element.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, at);
}

/// Asks for huge pages under a large slice that is about to be used all over; best before it is touched. A refusal is no error.
pub fn prefer_huge_pages<T>(slice: &mut [T]) {
    let bytes = size_of_val(slice);
    let start = slice.as_mut_ptr().cast::<u8>();
    let skip = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
    if bytes < skip + HUGE_PAGE {
        return;
    }
    let len = (bytes - skip) / HUGE_PAGE * HUGE_PAGE;
    #[cfg(target_os = "linux")]
    // SAFETY: the range is inside the slice, which is borrowed exclusively, and is of whole pages; the advice changes no contents.
    unsafe {
        libc::madvise(start.add(skip).cast(), len, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = len;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_change_nothing() {
        let mut numbers: Vec<u64> = (0..1_000_000).collect();
        prefer_huge_pages(&mut numbers);
        prefer_huge_pages(&mut numbers[..3]);
        prefer_huge_pages::<u64>(&mut []);
        (0..1_000_010).step_by(999).for_each(|at| prefetch(&numbers, at));
        prefetch::<u8>(&[], 0);
        assert!(numbers.iter().copied().eq(0..1_000_000));
    }
}
