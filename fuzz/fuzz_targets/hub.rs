#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/pretrained/tests/fuzz/hub.rs"]
mod hub;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, hub::read));
