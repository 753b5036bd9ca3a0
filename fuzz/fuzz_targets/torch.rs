#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/tensor-files/tests/fuzz/torch.rs"]
mod torch;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, torch::read));
