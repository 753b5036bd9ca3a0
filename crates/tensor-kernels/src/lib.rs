//! Dense and sparse kernels on plain slices: weights packed once, products whose results are used before they reach memory.
//!
//! A product is `A B` with `A` the activations (rows of tokens) and `B` a weight matrix `[k, n]` that acts on rows from the right.
//! Both are packed: `B` once at load ([`PackedMatrix`]), `A` per batch ([`PackedRows`], reused). The sums of a tile of rows and
//! columns are handed to an [`Epilogue`] while they are in the cache; it adds a bias, applies a non-linearity, keeps the
//! few values above a threshold, or stores.
//!
//! ```
//! use tensor_kernels::{Arithmetic, MatrixRef, PackedMatrix, PackedRows, Precision, Store, product};
//!
//! # fn main() -> tensor_kernels::Result<()> {
//! let arithmetic = Arithmetic::new(Precision::F32); // the machine's best back end
//! let w = PackedMatrix::pack(arithmetic, MatrixRef::row_major(&[1., 2., 3., 4., 5., 6.], 2, 3)?)?;
//! let mut x = PackedRows::new();
//! x.pack(arithmetic, &[1., 0., 10., 1.], 2)?; // rows of width 2
//! let mut y = vec![0.0; 2 * 3];
//! product(&x, &w, Store::new(&mut y, 3, Some(&[0.5; 3]))?)?;
//! assert_eq!(y, [1.5, 2.5, 3.5, 14.5, 25.5, 36.5]);
//! # Ok(()) }
//! ```
//!
//! Every value is summed along `k` in an order that depends on the back end and on `k` alone: not on the number of rows, the
//! row's or column's place, the threads, or the other operands. So results are equal, bit for bit, for any batch size and thread count.

mod activation;
mod arithmetic;
mod attention;
mod buffer;
mod counting;
mod elementwise;
mod engine;
mod epilogue;
mod error;
mod feature_top;
mod floats;
mod grid;
mod kernel;
mod matrix;
mod memory;
mod norm;
mod parallel;
mod product;
mod rope;
mod rows;
mod scratch;
mod self_test;
mod simd;
mod softmax;
mod sparse;

pub use activation::{Activation, activate, activate_gated};
pub use arithmetic::{Arithmetic, Backend, Precision};
pub use attention::{
    AttentionOptions, AttentionShape, AttentionTaps, KeyValuePanels, KeyValues, attention, attention_mix,
    attention_scores,
};
pub use counting::{CountingAllocator, panels_packed};
pub use elementwise::{add_to, gather_rows, softcap};
pub use engine::Engine;
pub use epilogue::{Activate, AddTo, Epilogue, Gate, Store, Tile};
pub use error::{Error, Result};
pub use feature_top::{FeatureTop, TopEntry};
pub use floats::AlignedVec;
pub use grid::{Cell, Grid};
pub use matrix::{MatrixRef, PackedMatrix};
pub use memory::{prefer_huge_pages, prefetch};
pub use norm::{Norm, gain_and_bias_row, scale_and_shift};
pub use product::{Operand, product, product_on};
pub use rope::{RopeLayout, RopeShape, rope};
pub use rows::PackedRows;
pub use self_test::{KernelCheck, KernelFailure, SelfTest, self_test};
pub use softmax::{log_sum_exp, softmax_rows};
pub use sparse::{CsrBuffer, CsrRef, SparseActivation, SparseEncoder, TopBottom, decode_rows, extremes};

/// Columns of a tile: what an [`Epilogue`] sees at a time, and the width of a panel of packed columns.
pub const TILE_COLS: usize = 32;
