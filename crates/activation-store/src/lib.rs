//! From documents to activations.
//!
//! The data's way through this crate: [`Documents`] reads text or token files piece by piece in bounded memory,
//! [`TokenRows`] tokenizes the pieces and packs them into rows of one context length, each token with its [`Origin`];
//! [`Harvest`] runs the model on them up to a hook point, and [`Shuffled`] sends the rows through a [`Ring`] of fixed size.
//! [`ActivationStore`] is these stages put together, with SAELens' parameter names.

mod address;
mod concatenate;
mod cut;
mod document;
mod documents;
mod error;
mod filter;
mod harvest;
mod joining;
mod options;
mod packing;
mod ring;
mod row_index;
mod shuffled;
mod source;
mod spec;
mod store;
mod stream_id;
mod token_rows;
mod tokenize;

pub mod parquet_checks;
pub mod sample_hash;

pub use address::TokenPos;
pub use concatenate::{ConcatenateOptions, ConcatenateVersion, ConcatenatedRows, tokenize_and_concatenate};
pub use document::{Content, DocId, DocumentSource, Piece};
pub use documents::{DocumentOptions, DocumentReport, Documents, TextSplit};
pub use error::{Error, Place, Result};
pub use filter::{Exclusion, ExclusionCounts, ResolvedFilter, SpecialTokenPolicy, TokenFilter};
pub use harvest::{Harvest, StoreReport, TokenRowBatch};
pub use joining::LongDocuments;
pub use model_hooks::{HookRows, HookSelector};
pub use options::StoreOptions;
pub use packing::{PackingOptions, PackingReport, PretokenizedRows};
pub use ring::Ring;
pub use row_index::{KeepRows, Located, RowIndex};
pub use shuffled::{ShuffleOptions, Shuffled};
pub use source::{ActivationBatch, ActivationSource};
pub use spec::{ActivationSpec, Shuffle, memory_bytes};
pub use store::ActivationStore;
pub use stream_id::{BatchOrder, FileDigest, StreamDifference, StreamId, sha256_hex};
pub use token_rows::{Origin, TokenRow, TokenRows};
pub use tokenize::{Tokenize, TokenizedText};
