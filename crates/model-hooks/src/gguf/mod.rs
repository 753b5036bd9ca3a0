//! Models in GGUF files, the single-file format of llama.cpp.
//!
//! [`GgufFile`] reads the file without trusting it, [`dequantize`] expands its blocks exactly as the reference does. What they
//! mean for a model is built on these two and reached through [`load`](crate::load()): the configuration, the weights under
//! Hugging Face's names and in its order of rows (`llama.rs`), and the tokenizer as the `tokenizer.json` it was made from
//! (`tokenizer.rs`, `pre_tokenizer.rs`, `sentencepiece.rs`).

mod dequant;
mod file;
mod header;
mod llama;
mod pre_tokenizer;
mod sentencepiece;
mod tensor_type;
mod tokenizer;
mod value;

pub use dequant::dequantize;
pub use file::{GgufFile, GgufTensor};
pub use tensor_type::TensorType;
pub use value::{Array, Value};

pub(crate) use llama::load_llama;
pub(crate) use tokenizer::read_tokenizer;
