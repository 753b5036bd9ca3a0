//! Tensors in files: reading safetensors without trusting them, and writing files whole or not at all.
//!
//! Two things live here, because every other crate needs them and none should write them twice:
//!
//! * [`SafetensorsFile`]: opens a file, checks its header against the file's real length, and reads one tensor at a time.
//!   Peak memory is the tensor asked for. Nothing is memory-mapped, so a file that changes underneath is an error, not a fault.
//! * [`write_atomically`] and [`save_safetensors`]: the file appears under its name complete, or not at all.

mod atomic;
mod error;
mod read;
mod source;
mod write;

pub use atomic::write_atomically;
pub use error::{Error, Result};
pub use read::{Dtype, SafetensorsFile, TensorInfo};
pub use source::TensorFile;
pub use write::save_safetensors;
