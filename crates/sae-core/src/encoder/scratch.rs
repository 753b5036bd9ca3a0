use crate::encoder::selection::Row;
use std::sync::{Arc, Mutex, PoisonError};
use tensor_kernels::{PackedRows, SparseEncoder};

/// Scratch of [`Sae::encode_into`](crate::Sae::encode_into), kept by the caller so that a loop over batches reuses it.
#[derive(Default)]
pub struct EncodeScratch {
    /// Of a tile of rows, for rules that the kernels do not know and for the reference.
    pub(super) rows: Vec<Row>,
    /// The same for each cell of a product.
    pub(super) cells: Vec<Vec<Row>>,
    pub(super) packed_rows: PackedRows,
    pub(super) sparse_encoder: SparseEncoder,
}

/// Scratch for calls that bring none: as many as were ever under way at once, kept for the next ones.
#[derive(Clone, Default)]
pub(crate) struct ScratchPool(Arc<Mutex<Vec<EncodeScratch>>>);

impl ScratchPool {
    /// Lends one.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut EncodeScratch) -> R) -> R {
        let mut scratch = self.free(Vec::pop).unwrap_or_default();
        let result = work(&mut scratch);
        self.free(|free| free.push(scratch));
        result
    }

    fn free<R>(&self, use_it: impl FnOnce(&mut Vec<EncodeScratch>) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
