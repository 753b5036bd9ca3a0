#![no_main]

#[path = "../../crates/feature-census/tests/fuzz/census.rs"]
mod census;
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, census::read));
