//! Hooked transformer forwards with TransformerLens' names and numbers.
//!
//! ```no_run
//! use model_hooks::{AddBos, Capture, Edit, LoadOptions, Processing, TokenBatch, load};
//!
//! # fn main() -> model_hooks::Result<()> {
//! let model = load("path/to/gpt2".as_ref(), &LoadOptions::new(Processing::TransformerLens))?;
//! let prompt = model.try_tokenizer()?.to_tokens("On Monday", AddBos::Always, Some(model.shape().n_ctx))?;
//! let tokens = TokenBatch::new(&[prompt.ids])?;
//!
//! // Look: run blocks 0..=6 and no more, keep what enters block 7.
//! let point = "blocks.7.hook_resid_pre".parse()?;
//! let mut capture = Capture::new([point]);
//! model.hooked().forward_until(&tokens, point, &mut capture)?;
//! println!("{:?}", capture.get(point)?.dims()); // [batch, pos, d_model]
//!
//! // Change: silence head 3 of block 5, and read what the model predicts without it.
//! let mut ablate = Edit::zero("blocks.5.attn.hook_z".parse()?).head(3);
//! let logits = model.hooked().forward(&tokens, &mut ablate)?; // [batch, pos, d_vocab]
//! # Ok(()) }
//! ```
//!
//! Where to read on: [`HookPoint`] (the places, in order, with their shapes), [`Tap`] (hooks that can be attached there),
//! [`HookedModel`] (the forward pass; a user's own model implements it with [`ForwardPass`]), [`load`] and [`Processing`].

// Linked for its `x86-v4` feature, which switches on AVX-512 inside the tensor library's matrix products.
use gemm as _;

mod activation_cache;
mod chat_template;
mod config;
mod error;
mod families;
mod folder;
mod forward;
mod generate;
pub mod gguf;
mod hook;
mod language_model;
mod load;
mod loss;
mod math;
mod ops;
mod patching;
mod processing;
mod prompt;
mod residual_map;
mod tap;
mod tokenizer;
mod tokens;
mod warning;
mod weights;

pub use activation_cache::{ActivationCache, ResidualStack};
pub use chat_template::{ChatTemplate, Conversation};
pub use error::{Error, Result};
pub use families::AnyModel;
pub use forward::kv_cache::KvCache;
pub use forward::model::{BlockPart, FinalNorm, HookedModel, ModelShape, OutputWeights, PostNorm, Start};
pub use forward::pass::{BlockPass, ForwardPass, Halt, PassResult, TapValue};
pub use generate::{
    Generate, GenerateOptions, GeneratedSequence, GeneratedText, GeneratedToken, GenerationOutput, Sampling,
    SamplingOptions, StopReason, generate,
};
pub use hook::{HookPoint, HookRows, HookSelector, NormSite, Site};
pub use language_model::LanguageModel;
pub use load::{LoadOptions, load};
pub use loss::{Predictions, next_token_loss, next_token_loss_per_token};
pub use patching::gradients::{Gradients, gradients, gradients_from};
pub use patching::interventions::{IndexRange, IndexSpec, Intervention, InterventionTap, Interventions, Op, Vector};
pub use patching::path::{Frozen, PathPatch};
pub use processing::{Processing, ProcessingSteps};
pub use prompt::{PositionReport, Prediction, PromptOptions, PromptReport, test_prompt, test_prompt_tokens};
pub use residual_map::{ResidualMap, residual_directions};
pub use tap::{Capture, Edit, Indices, Interest, NoTap, Place, Selection, Tap, TapContext, edit_at};
pub use tensor_kernels::{Arithmetic, Backend, Engine, Precision};
pub use tokenizer::{AddBos, Encoding, SpecialTokens, Tokenizer, Tokens};
pub use tokens::{PaddingSide, TokenBatch};
pub use warning::LoadWarning;
