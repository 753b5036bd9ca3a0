#![no_main]

#[path = "../../crates/model-hooks/tests/fuzz/gguf.rs"]
mod gguf;
#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/model-hooks/tests/fuzz/tokenizer.rs"]
mod tokenizer;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, gguf::read));
