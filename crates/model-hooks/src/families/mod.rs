//! One file per model family, and what they share.

mod decoder;
pub(crate) mod gpt2;
pub(crate) mod llama;
pub(crate) mod rope;

pub use gpt2::Gpt2;
pub use llama::Llama;
