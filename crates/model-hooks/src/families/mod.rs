//! One file per model family, and what they share.
//!
//! A [`Family`] reads its configuration and weights, and writes its equations in the words of [`Math`](crate::math::Math);
//! [`Decoder`] makes a [`HookedModel`](crate::HookedModel) of it, on either engine; [`KNOWN`] says which one a `model_type` means.

pub(crate) mod angles;
mod any;
mod decoder;
#[cfg(test)]
mod flat_cost;
mod gemma;
mod gemma2;
mod gemma3;
pub(crate) mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gptj;
mod grouped;
pub(crate) mod llama;
mod long_rope;
mod mistral;
mod olmo2;
mod phi3;
#[cfg(test)]
mod published;
mod qwen2;
mod qwen3;
mod read;
pub(crate) mod rope;
pub(crate) mod rope_scaling;
mod steps;

pub use any::AnyModel;
pub(crate) use decoder::{Decoder, Family};
