#![no_main]

#[path = "../../crates/activation-store/tests/fuzz/documents.rs"]
mod documents;
#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/activation-store/tests/fuzz/parquet.rs"]
mod parquet;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, parquet::read));
