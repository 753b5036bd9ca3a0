//! Hooked transformer forwards with TransformerLens' names and numbers.

mod error;
mod hook;
mod model;
mod tap;
mod tokens;

pub use error::{Error, Result};
pub use hook::{HookPoint, NormSite, Site};
pub use model::{HookedModel, ModelShape, Start};
pub use tap::{Cx, Interest, Tap};
pub use tokens::TokenBatch;
