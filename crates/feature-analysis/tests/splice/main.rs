//! SAEs inside the forward pass: the laws of a splice on small models, on every engine, and what it refuses.

mod edits;
mod laws;
mod refused;
mod support;
