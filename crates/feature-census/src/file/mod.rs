//! A census as a Parquet file.
//!
//! # Format, version 2
//!
//! One row a feature, in order, in row groups of 4,096, zstd-compressed. `row`, `pos` and `token` are an address and the token there.
//!
//! | column | type | |
//! |---|---|---|
//! | `feature` | u32 | its number |
//! | `count` | u64 | tokens on which it fires |
//! | `density`, `mean`, `std` | f64 | for other programs; not read back |
//! | `min`, `max` | f32 | null where it never fired |
//! | `sum_high`, `sum_low` | i64, u64 | the sum of its activations, `(sum_high * 2^64 + sum_low) * 2^-64` |
//! | `squares_high`, `squares_low` | u64, u64 | the sum of their squares, `(squares_high * 2^64 + squares_low) * 2^-52` |
//! | `documents` | u64 | in how many documents it fires, counted anew in each run of rows; null where they were not counted |
//! | `histogram` | list of `bin` u8, `count` u64 | the bins that are not empty, rising |
//! | `top` | list of `row` u64, `pos` u32, `token` u32, `activation` f32 | strongest first |
//! | `samples` | list of `bin` u8, `row`, `pos`, `token`, `activation` | by bin and hash, rising |
//! | `together` | list of u64 | for each feature of `options.together`: tokens on which both fire |
//! | `edges` | list of u32 | `2 i` where it fired in the first document of run `i` of rows, `2 i + 1` in the last (of a run in one document: `2 i` alone) |
//!
//! The file's metadata has a key `saescope.census`: a JSON object with `format`, `version`, `d_sae`, `tokens`, `excluded`, `options`, `names` and `runs` (of rows:
//! `start`, `end`, `next_pos`, and the `[file, ordinal]` of the first and last document). Another key, `saescope.census.digest`, holds a 64-bit sum over all of
//! that, which is checked on reading. The bytes are a function of what was taken in: equal tokens give equal files, however they were cut and merged.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod digest;
mod header;
mod read;
#[allow(clippy::indexing_slicing, reason = "bins and features were checked by the reader")]
mod restore;
mod schema;
mod write;
