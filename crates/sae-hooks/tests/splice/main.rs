//! SAEs inside the forward pass: the laws of a splice on small models, on every engine, what it refuses, and SAELens' numbers.

mod edits;
mod goldens;
mod laws;
mod refused;
mod support;
