#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../../crates/model-hooks/tests/fuzz/rebuilt.rs"]
mod rebuilt;
#[path = "../../crates/model-hooks/tests/fuzz/tokenizer.rs"]
#[allow(dead_code)]
mod tokenizer;

libfuzzer_sys::fuzz_target!(init: harness::panics_can_be_caught(), |data: &[u8]| harness::bounded(data, rebuilt::sentencepiece));
