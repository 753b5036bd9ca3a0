//! Sparse autoencoders: what they compute, their sparse codes, and their files.
//!
//! Three types carry the crate:
//!
//! * [`Sae`]: weights and activation of one SAE or transcoder (standard ReLU, JumpReLU, Gated, and TopK in its variants). [`Sae::load`] opens
//!   a SAELens folder, [`Dictionary::load`] one of any architecture, [`formats::open`] the files of any other format.
//! * [`SparseFeatures`]: feature activations compressed by rows. Dense `[n, d_sae]` tensors exist only where asked for.
//! * [`SparseCoder`]: the trait that the rest of the workspace sees, so that a user's own dictionary works as well.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sae_core::{Sae, SaeParts, SparseCoder};
//!
//! # fn main() -> sae_core::Result<()> {
//! // Three features that look along the axes and along the diagonal.
//! let w_enc = Tensor::new(&[[1f32, 0., 1.], [0., 1., 1.]], &Device::Cpu)?;
//! let sae = Sae::new(SaeParts::new(w_enc.clone(), vec![0., 0., -2.], w_enc.t()?, vec![0., 0.]))?;
//! let codes = sae.encode(&Tensor::new(&[[2f32, -1.], [2., 3.]], &Device::Cpu)?)?;
//! assert_eq!(codes.features.row(0), (&[0u32][..], &[2f32][..]));
//! assert_eq!(codes.features.row(1), (&[0, 1, 2][..], &[2., 3., 3.][..]));
//! assert_eq!(sae.decode(&codes)?.to_vec2::<f32>()?, [[2., 0.], [5., 6.]]);
//! # Ok(())
//! # }
//! ```
//!
//! Loaders bring every format to the one convention of [`Sae`]; nothing after them asks where the weights came from.

// candle's products use AVX-512 because this workspace turns on `gemm`'s `x86-v4`; the crate is named only to link the feature.
use gemm as _;

mod activation;
mod coder;
mod codes;
mod decoder;
mod dictionary;
mod encoder;
mod error;
mod feature_subset;
mod fold;
pub mod formats;
mod matching_pursuit;
mod metadata;
mod normalization;
mod open_note;
mod parts;
mod sae;
mod slices;
mod sparse_features;
mod temporal;

pub use activation::Activation;
pub use coder::SparseCoder;
pub use codes::{ActLayout, Codes, Coupling, InputNorm, InputShape, Reconstruction};
pub use dictionary::Dictionary;
pub use encoder::EncodeScratch;
pub use error::{Error, Result};
pub use feature_subset::FeatureSubset;
pub use formats::saelens::LoadOptions;
pub use matching_pursuit::{MatchingPursuit, MatchingPursuitParts};
pub use metadata::{ExcludeSpecialTokens, SaeMetadata, SeparatorToken, SeqposSlice};
pub use normalization::Normalization;
pub use open_note::OpenNote;
pub use parts::SaeParts;
pub use sae::Sae;
pub use sparse_features::{FeatureId, SparseFeatures, check_feature_list};
pub use temporal::{TemporalLayerParts, TemporalLinear, TemporalParts, TemporalSae};
pub use tensor_kernels::{Arithmetic, Backend, Engine, Precision};
