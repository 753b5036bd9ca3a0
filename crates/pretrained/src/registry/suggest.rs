//! Names that resemble a name, and models that have several.

/// Names of one model, the hub's first.
const MODELS: &[&[&str]] = &[
    &["gpt2", "gpt2-small", "openai-community/gpt2"],
    &["openai-community/gpt2-medium", "gpt2-medium"],
    &["openai-community/gpt2-large", "gpt2-large"],
    &["openai-community/gpt2-xl", "gpt2-xl"],
    &["EleutherAI/pythia-70m-deduped", "pythia-70m-deduped"],
    &["EleutherAI/pythia-160m-deduped", "pythia-160m-deduped"],
    &["google/gemma-2b", "gemma-2b"],
    &["google/gemma-2b-it", "gemma-2b-it"],
    &["google/gemma-2-2b", "gemma-2-2b"],
    &["google/gemma-2-2b-it", "gemma-2-2b-it"],
    &["google/gemma-2-9b", "gemma-2-9b"],
    &["google/gemma-2-9b-it", "gemma-2-9b-it"],
    &["google/gemma-2-27b", "gemma-2-27b"],
    &["google/gemma-3-270m", "gemma-3-270m", "google/gemma-3-270m-pt"],
    &["mistralai/Mistral-7B-v0.1", "mistral-7b"],
    &["meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"],
    &["meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"],
    &["meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-3-8B-Instruct", "llama-3-8b-instruct"],
    &["meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b-instruct"],
    &["Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"],
    &["Qwen/Qwen3-0.6B", "qwen3-0.6b"],
    &["Qwen/Qwen3-1.7B", "qwen3-1.7b"],
    &["Qwen/Qwen3-4B", "qwen3-4b"],
    &["Qwen/Qwen3-8B", "qwen3-8b"],
    &["Qwen/Qwen3-14B", "qwen3-14b"],
    &["HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"],
];

/// All names of a model, the hub's first; the name alone for one that has no other.
pub(crate) fn model_names(name: &str) -> Vec<&str> {
    known(name).map_or_else(|| vec![name], <[_]>::to_vec)
}

fn known(name: &str) -> Option<&'static [&'static str]> {
    MODELS.iter().copied().find(|names| names.iter().any(|other| other.eq_ignore_ascii_case(name)))
}

/// Whether two names mean one model: `gpt2` and `gpt2-small`, `google/gemma-2-2b` and `gemma-2-2b`.
///
/// The owner of a repository and the case of letters do not count.
#[must_use]
pub fn is_same_model(a: &str, b: &str) -> bool {
    model_key(a) == model_key(b)
}

pub(super) fn model_key(name: &str) -> String {
    let hub = known(name).and_then(|names| names.first().copied()).unwrap_or(name);
    hub.rsplit('/').next().unwrap_or(hub).to_lowercase()
}

/// The names that are most like `name`, best first: few letters differ, or many words are shared.
pub(crate) fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>, count: usize) -> Vec<String> {
    let sought = name.to_lowercase();
    let mut found: Vec<(f64, &str)> = names
        .map(|other| (likeness(&sought, &other.to_lowercase()), other))
        .filter(|(likeness, _)| *likeness >= 0.4)
        .collect();
    found.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| super::search::natural(x, y)));
    // What is far behind the best is noise.
    let least = found.first().map_or(0.0, |(best, _)| best - 0.25);
    found.into_iter().take_while(|(likeness, _)| *likeness >= least).take(count).map(|(_, name)| name.into()).collect()
}

/// From 0 to 1.
fn likeness(a: &str, b: &str) -> f64 {
    let longest = a.chars().count().max(b.chars().count()).max(1);
    let letters = 1.0 - distance(a, b) as f64 / longest as f64;
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (of_a, of_b) = (words(a), words(b));
    let shared = of_a.iter().filter(|word| of_b.contains(word)).count();
    let all = (of_a.len() + of_b.len()).max(1);
    // Half of each: a letter wrong must rank before another number in the same place.
    0.5f64.mul_add(letters, shared as f64 / all as f64).max(letters)
}

/// Letters to insert, remove, replace or swap with their neighbor (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(256).collect(), b.chars().take(256).collect());
    // The distances of a prefix of `a` to every prefix of `b`: for this prefix of `a`, the last one and the one before.
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut second_last: Vec<usize> = Vec::new();
    let mut letter_before = None;
    for (i, x) in a.into_iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        let mut left = i + 1;
        row.push(left);
        for (j, (y, &[corner, above])) in b.iter().zip(last.array_windows()).enumerate() {
            let mut least = (above + 1).min(left + 1).min(corner + usize::from(x != *y));
            let y_before = j.checked_sub(1).and_then(|j| Some((b.get(j)?, second_last.get(j)?)));
            if let Some((y_before, far)) = y_before
                && x == *y_before
                && letter_before == Some(*y)
            {
                least = least.min(far + 1);
            }
            row.push(least);
            left = least;
        }
        second_last = std::mem::replace(&mut last, row);
        letter_before = Some(x);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("prae", "pre", 1), ("ab", "ba", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_model_has_several_names() {
        for (a, b) in [
            ("gpt2", "gpt2-small"),
            ("openai-community/gpt2", "gpt2-small"),
            ("google/gemma-2-2b", "gemma-2-2b"),
            ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
            ("someone/unknown", "UNKNOWN"),
        ] {
            assert!(is_same_model(a, b), "{a} {b}");
        }
        for (a, b) in [("gpt2", "gpt2-medium"), ("gemma-2-2b", "gemma-2-2b-it"), ("gemma-2b", "gemma-2-2b")] {
            assert!(!is_same_model(a, b), "{a} {b}");
        }
    }

    #[test]
    fn nothing_alike_is_nothing() {
        assert!(near("zzzzzz", ["gpt2-small-res-jb"].into_iter(), 5).is_empty());
    }
}
