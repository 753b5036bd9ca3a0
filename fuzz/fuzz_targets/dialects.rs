#![no_main]

#[path = "../../crates/sae-core/tests/fuzz/dialects.rs"]
mod dialects;
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, dialects::read));
