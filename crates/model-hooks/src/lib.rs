//! Hooked transformer forwards with TransformerLens' names and numbers.

mod error;
mod hook;
mod model;
mod tap;
mod tokenizer;
mod tokens;

pub use error::{Error, Result};
pub use hook::{HookPoint, NormSite, Site};
pub use model::{HookedModel, ModelShape, Start};
pub use tap::{Cx, Interest, Tap};
pub use tokenizer::{Bos, Encoding, SpecialTokens, Tokenizer, Tokens};
pub use tokens::TokenBatch;
