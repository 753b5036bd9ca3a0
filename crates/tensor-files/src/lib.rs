//! Tensors in files: reading safetensors, numpy's and PyTorch's files without trusting them, and writing files whole or not at all.
//!
//! | format | type | read |
//! |---|---|---|
//! | safetensors | [`SafetensorsFile`] | all types; the header is checked against the file's length |
//! | `.npz` of numpy | [`NpzFile`] | floats, whole numbers, truth values; stored or deflated, any byte order, rows or columns first |
//! | `.pt`, `.pth`, `.bin` of `torch.save` | [`TorchFile`] | tensors and views of them, and plain values ([`Value`]); the zip format and the one before torch 1.6 |
//!
//! [`open_tensors`] finds out which by the first bytes. All of them are a [`TensorFile`], read one tensor at a time: peak memory is the
//! tensor asked for. Nothing is memory-mapped, so a file that changes underneath is an error, not a fault. A small file never makes a
//! reader take much memory, whatever it claims, and no pickle is ever run: [`TorchFile`] lists the classes that it knows.
//!
//! [`read_bounded`] reads the small files beside them: regular files, of bounded length; [`read_weight_map`] the index of a model in several files.
//!
//! [`write_atomically`], [`save_safetensors`] and [`stream_safetensors`]: the file appears under its name complete, or not at all; [`AtomicFolder`] and
//! [`remove_folder`] do the same for folders.
//!
//! [`contained`] makes an error of a panic in another crate's reader.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod atomic;
mod bounded;
mod bytes;
mod contained;
mod error;
mod finite;
mod index;
mod npy;
mod npz;
mod open;
mod pickle;
mod read;
mod source;
mod stream;
mod torch;
mod view;
mod write;
mod zip;

pub use atomic::{AtomicFolder, remove_folder, remove_stale_partials, rename_durably, write_atomically};

#[doc(hidden)]
pub use atomic::crash_points;
pub use bounded::{open_regular, read_bounded};
pub use contained::{Panicked, contained};
pub use error::{Error, Result};
pub use index::read_weight_map;
pub use npz::NpzFile;
pub use open::open_tensors;
pub use pickle::Value;
pub use read::{Dtype, SafetensorsFile, TensorInfo};
pub use source::TensorFile;
pub use stream::stream_safetensors;
pub use torch::TorchFile;
pub use write::save_safetensors;
