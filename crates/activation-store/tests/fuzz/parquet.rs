//! Documents in a Parquet file.

use crate::harness;
use activation_store::DocumentOptions;

pub fn read(data: &[u8]) {
    super::documents::pieces(&harness::file("a.parquet", data), DocumentOptions::default());
}
