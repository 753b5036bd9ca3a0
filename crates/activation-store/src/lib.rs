//! From documents to activations.
//!
//! The data's way through this crate: [`Documents`] reads text or token files piece by piece in bounded memory,
//! [`TokenRows`] tokenises the pieces and packs them into rows of one context length, each token with its [`Origin`].

mod cut;
mod document;
mod error;
mod packing;
mod token_rows;
mod tokenise;

pub use document::{Content, DocId, DocumentSource, Piece};
pub use error::{Error, Place, Result};
pub use packing::{PackingOptions, PackingReport, TokenDocuments};
pub use token_rows::{Origin, TokenRow, TokenRows};
pub use tokenise::{Tokenise, Tokenised};
