//! Names of one model: TransformerLens', the hub's, file names.

/// Names that TransformerLens gives to models of the hub under other names.
const ALIASES: [(&str, &str); 12] = [
    ("gpt2", "gpt2-small"),
    ("gpt2", "openai-community-gpt2"),
    ("gpt2-medium", "openai-community-gpt2-medium"),
    ("gpt2-large", "openai-community-gpt2-large"),
    ("gpt2-xl", "openai-community-gpt2-xl"),
    ("tinystories-1l-21m", "tiny-stories-1l-21m"),
    ("tinystories-33m", "tiny-stories-33m"),
    ("tinystories-instruct-33m", "tiny-stories-instruct-33m"),
    ("mistral-7b", "mistral-7b-v0.1"),
    ("meta-llama-3-8b", "llama-3-8b"),
    ("meta-llama-3.1-8b", "llama-3.1-8b"),
    ("meta-llama-3.1-8b-instruct", "llama-3.1-8b-instruct"),
];

/// Whether two names may well be of one model: the same but for the owner, case, separators, a GGUF's quantization, `-hf`, or an alias.
pub(super) fn same(a: &str, b: &str) -> bool {
    let (a, b) = (canonical(a), canonical(b));
    let alias =
        |x: &str| ALIASES.iter().find(|(_, alias)| *alias == x).map_or(x.to_owned(), |(name, _)| (*name).into());
    a == b || alias(&a) == alias(&b)
}

fn canonical(name: &str) -> String {
    let lower = name.trim().trim_end_matches('/').to_lowercase().replace('_', "-");
    let own = lower.rsplit('/').next().unwrap_or(&lower);
    let own = own.strip_suffix(".gguf").unwrap_or(own);
    // The quantization of a GGUF file: everything from the last separator that a type's name follows.
    let types = ["f32", "f16", "bf16", "q8-0", "q6-k", "q5-k-m", "q5-k-s", "q5-0", "q4-k-m", "q4-k-s", "q4-0", "q4-1"];
    let cut = types.iter().find_map(|t| own.strip_suffix(t).and_then(|rest| rest.strip_suffix(['-', '.'])));
    let own = cut.unwrap_or(own);
    own.strip_suffix("-hf").unwrap_or(own).to_owned()
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn names_of_one_model() {
        for (a, b) in [
            ("gpt2", "gpt2-small"),
            ("openai-community/gpt2", "gpt2"),
            ("google/gemma-2-2b", "gemma-2-2b"),
            ("Llama-2-7b-hf", "meta-llama/Llama-2-7b"),
            ("SmolLM2-135M.Q4_K_M.gguf", "HuggingFaceTB/SmolLM2-135M"),
            ("SmolLM2-135M-f16", "smollm2-135m"),
        ] {
            assert!(same(a, b) && same(b, a), "{a} {b}");
        }
        for (a, b) in [("gpt2", "gpt2-medium"), ("gemma-2-2b", "gemma-2-2b-it"), ("lm", "demo-lm"), ("q4-0", "f16")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
