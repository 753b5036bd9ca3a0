//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/gguf.rs"]
mod gguf;
#[path = "fuzz/interventions.rs"]
mod interventions;
#[path = "fuzz/model_folder.rs"]
mod model_folder;
#[path = "fuzz/tokenizer.rs"]
mod tokenizer;

#[test]
fn gguf_inputs() {
    harness::replay("gguf", gguf::read);
}

#[test]
fn interventions_inputs() {
    harness::replay("interventions", interventions::read);
}

#[test]
fn model_folder_inputs() {
    harness::replay("model_folder", model_folder::read);
}

#[test]
fn tokenizer_inputs() {
    harness::replay("tokenizer", tokenizer::read);
}
