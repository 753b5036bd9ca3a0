#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/sae-core/tests/fuzz/saelens.rs"]
mod saelens;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, saelens::read));
