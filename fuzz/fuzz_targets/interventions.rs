#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/model-hooks/tests/fuzz/interventions.rs"]
mod interventions;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, interventions::read));
