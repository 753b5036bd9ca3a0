//! Products of which only a few values matter: sparse rows of active features, the extremes of each row, and the way back.
//!
//! The dense sums exist for one tile at a time. A vectorized test ([`scan`]) answers for whole rows of a tile whether anything in it can
//! matter; what does is looked at value by value.
//!
//! ```
//! use tensor_kernels::{
//!     Arithmetic, MatrixRef, PackedRows, Precision, SparseEncoder, CsrBuffer, SparseActivation, decode_rows, extremes,
//! };
//!
//! # fn main() -> tensor_kernels::Result<()> {
//! let arithmetic = Arithmetic::new(Precision::F32);
//! // Three features that look along the axes and along the diagonal.
//! let w = MatrixRef::row_major(&[1., 0., 1., 0., 1., 1.], 2, 3)?;
//! let mut x = PackedRows::new();
//! x.pack(arithmetic, &[2., -1., 2., 3.], 2)?;
//! let mut codes = CsrBuffer::new();
//! SparseEncoder::new().encode(&x, w, Some(&[0., 0., -2.]), SparseActivation::Relu, &mut codes)?;
//! assert_eq!(codes.row(0), (&[0][..], &[2.][..]));
//! assert_eq!(codes.row(1), (&[0, 1, 2][..], &[2., 3., 3.][..]));
//!
//! let mut y = [0.; 4];
//! decode_rows(arithmetic.backend(), codes.as_ref(), &[1., 0., 0., 1., 1., 1.], 2, None, Some(&[0., 0.]), &mut y)?;
//! assert_eq!(y, [2., 0., 5., 6.]);
//!
//! let ends = extremes(&x, w, None, 1, 1)?;
//! assert_eq!(ends.top(1).collect::<Vec<_>>(), [(2, 5.)]);
//! assert_eq!(ends.bottom(0).collect::<Vec<_>>(), [(1, -1.)]);
//! # Ok(()) }
//! ```

mod best;
mod decode;
mod encoder;
mod extremes;
mod out;
mod rule;
mod scan;
mod stream;
mod top;

pub use decode::decode_rows;
pub use encoder::SparseEncoder;
pub use extremes::{TopBottom, extremes};
pub use out::{CsrBuffer, CsrRef};
pub use rule::SparseActivation;
