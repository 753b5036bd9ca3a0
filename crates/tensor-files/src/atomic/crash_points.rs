//! For tests: a process that ends without any clean-up at the n-th step of this module's operations.

use std::sync::atomic::{AtomicU64, Ordering};

/// The exit status of a process that ended at the chosen step.
pub const EXIT_STATUS: i32 = 86;

/// Steps until the end; 0 for a process that does not end here.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Ends this process right before its `step`-th file step from now on, counted from 1. Nothing is dropped, flushed or removed.
pub fn exit_at(step: u64) {
    LEFT.store(step, Ordering::SeqCst);
}

/// A file step comes next.
pub(super) fn step() {
    if LEFT.load(Ordering::SeqCst) > 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::exit(EXIT_STATUS);
    }
}
