//! The contract between a model and the taps: a forward pass, the positions of its tokens, and the cache of keys and values.

pub(crate) mod kv_cache;
pub(crate) mod model;
pub(crate) mod pass;
pub(crate) mod positions;
