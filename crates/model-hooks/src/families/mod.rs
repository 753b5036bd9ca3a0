//! One file per model family, and what they share.
//!
//! A [`Family`] reads its configuration and weights, and writes its equations in the words of [`Math`](crate::math::Math);
//! [`Decoder`] makes a [`HookedModel`](crate::HookedModel) of it, on either engine.

mod decoder;
pub(crate) mod gpt2;
pub(crate) mod llama;
pub(crate) mod rope;
mod steps;

pub(crate) use decoder::{Decoder, Family};
