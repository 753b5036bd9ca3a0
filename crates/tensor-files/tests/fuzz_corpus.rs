//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/safetensors.rs"]
mod safetensors;

#[test]
fn safetensors_inputs() {
    harness::replay("safetensors", safetensors::read);
}
