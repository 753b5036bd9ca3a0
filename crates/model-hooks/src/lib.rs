//! Hooked transformer forwards with TransformerLens' names and numbers.

// Linked for its `x86-v4` feature, which switches on AVX-512 inside the tensor library's matrix products.
use gemm as _;

mod config;
mod error;
mod families;
mod folder;
mod hook;
mod language_model;
mod load;
mod loss;
mod model;
mod ops;
mod processing;
mod prompt;
mod run;
mod tap;
mod tokenizer;
mod tokens;
mod weights;

pub use error::{Error, Result};
pub use families::{Gpt2, Llama};
pub use hook::{HookPoint, NormSite, Site};
pub use language_model::LanguageModel;
pub use load::{LoadOptions, load};
pub use loss::{next_token_loss, next_token_loss_per_token};
pub use model::{HookedModel, ModelShape, Start};
pub use processing::{Processing, ProcessingSteps};
pub use prompt::{PositionReport, Prediction, PromptOptions, PromptReport, test_prompt};
pub use run::{Block, Halt, Stage, Step};
pub use tap::{Capture, Cx, Edit, Interest, NoTap, Tap, edit_at};
pub use tokenizer::{Bos, Encoding, SpecialTokens, Tokenizer, Tokens};
pub use tokens::TokenBatch;
