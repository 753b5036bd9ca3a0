//! Memory that forward passes borrow and give back.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tensor_kernels::{AlignedVec, PackedRows};

/// The buffers of a model: activations, and packed rows.
///
/// A forward pass takes what it needs and gives it back as soon as a value has been used, so a warm model runs without asking the
/// system for memory (whose first touch costs more than many an operation). Kept is what the forward passes that ever ran at the same
/// time needed at once. For each of them, with `t` tokens:
///
/// ```text
/// 4 t (d_model + max(4 n_heads d_head + d_model, d_mlp (gated: 2 d_mlp) + packed d_model + packed d_mlp)) bytes
/// ```
/// about, a packed row taking 4 bytes a value (in bf16 2).
/// The remaining allocations of a run are small and do not depend on the number of tokens: about 14 allocations a block, of 150
/// bytes each (shared rows, rayon's jobs).
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    floats: Mutex<Vec<AlignedVec>>,
    rows: Mutex<Vec<PackedRows>>,
    /// Number of allocations from the system.
    taken: AtomicUsize,
}

impl Workspace {
    /// `len` floats of any value.
    pub fn floats(self: &Arc<Self>, len: usize) -> Lent {
        let mut free = locked(&self.floats);
        // The smallest that is large enough; else the largest, to be replaced by a larger one.
        let fits = free.iter().enumerate().filter(|(_, x)| x.len() >= len).min_by_key(|(_, x)| x.len());
        let taken = fits.or_else(|| free.iter().enumerate().max_by_key(|(_, x)| x.len())).map(|(i, _)| i);
        let mut memory = taken.map(|i| free.swap_remove(i)).unwrap_or_default();
        drop(free);
        if memory.len() < len {
            drop(mem::take(&mut memory));
            memory = AlignedVec::new(len);
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        Lent { memory, len, home: self.clone() }
    }

    /// Packed rows of any content.
    pub fn rows(self: &Arc<Self>, bytes: usize) -> Packed {
        let mut free = locked(&self.rows);
        let fits = free.iter().enumerate().filter(|(_, x)| x.bytes() >= bytes).min_by_key(|(_, x)| x.bytes());
        let taken = fits.or_else(|| free.iter().enumerate().max_by_key(|(_, x)| x.bytes())).map(|(i, _)| i);
        let memory = taken.map(|i| free.swap_remove(i)).unwrap_or_default();
        if memory.bytes() < bytes {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        Packed { memory, home: self.clone() }
    }

    /// Number of allocations from the system so far. A warm model makes none.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A poisoned lock only means that another forward pass panicked; the list of free memory is whole at any time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Floats that go back to the workspace when they are dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    memory: AlignedVec,
    len: usize,
    home: Arc<Workspace>,
}

impl Deref for Lent {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        locked(&self.home.floats).push(mem::take(&mut self.memory));
    }
}

/// Packed rows that go back to the workspace when they are dropped.
#[derive(Debug)]
pub(crate) struct Packed {
    memory: PackedRows,
    home: Arc<Workspace>,
}

impl Deref for Packed {
    type Target = PackedRows;

    fn deref(&self) -> &PackedRows {
        &self.memory
    }
}

impl DerefMut for Packed {
    fn deref_mut(&mut self) -> &mut PackedRows {
        &mut self.memory
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        locked(&self.home.rows).push(mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_used_again() {
        let space = Arc::new(Workspace::default());
        let (small, large) = (space.floats(10), space.floats(1000));
        let at = [small.as_ptr(), large.as_ptr()];
        drop((small, large));
        let (large, small) = (space.floats(11), space.floats(3));
        assert_eq!([small.as_ptr(), large.as_ptr()], at, "the smallest that fits");
        assert_eq!((small.len(), large.len()), (3, 11));
        drop((small, large));
        let larger = space.floats(2000);
        assert_eq!(larger.len(), 2000);
        drop(larger);
        assert_eq!(space.floats.lock().unwrap().len(), 2, "the largest was replaced");
        assert_eq!(space.taken(), 3);
    }
}
