#![doc = include_str!("../README.md")]

pub use activation_store;
pub use feature_analysis;
pub use feature_census;
pub use model_hooks;
pub use pretrained;
pub use sae_core;
pub use sae_hooks;
pub use tensor_files;
pub use tensor_kernels;
