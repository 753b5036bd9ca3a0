//! A census file.

use crate::harness;
use feature_census::FeatureCensus;

pub fn read(data: &[u8]) {
    let path = harness::file("census.parquet", data);
    if let Ok(census) = FeatureCensus::load(&path, 4 << 20) {
        let _ = census.save(&harness::folder().join("again.parquet"));
    }
}
