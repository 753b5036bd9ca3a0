//! `test_prompt` against TransformerLens 3.9's on the demo model (under its default processing), and its explicit errors.

use model_hooks::{
    AddBos, Error, LanguageModel, LoadOptions, NoTap, Processing, PromptOptions, PromptReport, load, test_prompt,
    test_prompt_tokens,
};
use std::path::Path;
use std::sync::LazyLock;

static DEMO: LazyLock<LanguageModel> = LazyLock::new(|| {
    let mut options = LoadOptions::default();
    options.processing = Processing::TransformerLens.into();
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/lm"), &options).unwrap()
});

fn ask(prompt: &str, answers: &[&str], options: &PromptOptions) -> Result<PromptReport, Error> {
    test_prompt(&DEMO, prompt, answers, options, &mut NoTap)
}

/// Text, rank, logit and percentage as TransformerLens prints them, to its two decimals.
fn printed(predictions: &[model_hooks::Prediction]) -> Vec<(&str, usize, String, String)> {
    let line = |p: &model_hooks::Prediction| (format!("{:.2}", p.logit), format!("{:.2}", 100.0 * p.probability));
    predictions.iter().map(|p| (p.text.as_str(), p.rank, line(p).0, line(p).1)).collect()
}

fn row(text: &str, rank: usize, logit: &str, percent: &str) -> (String, usize, String, String) {
    (text.into(), rank, logit.into(), percent.into())
}

macro_rules! assert_rows {
    ($found:expr, [$($row:expr),* $(,)?]) => {
        let found: Vec<_> = printed($found).into_iter().map(|(t, r, l, p)| (t.to_owned(), r, l, p)).collect();
        assert_eq!(found, vec![$($row),*]);
    };
}

#[test]
fn an_answer_of_three_tokens() {
    let options = PromptOptions { top_k: 5, ..Default::default() };
    let report = ask("The concert was on Monday, and on", &["Tuesday the play"], &options).unwrap();
    assert_eq!(report.prompt, ["<|endoftext|>", "The", " conc", "ert", " was", " on", " Monday", ",", " and", " on"]);
    assert_eq!(report.answers, [[" Tuesday", " the", " play"]]);
    assert_eq!(report.ranks(), [[(" Tuesday", 0)], [(" the", 0)], [(" play", 0)]]);
    assert_rows!(
        &report.positions[0].top,
        [
            row(" Tuesday", 0, "16.44", "97.98"),
            row(" Wednesday", 1, "11.41", "0.64"),
            row("_", 2, "10.58", "0.28"),
            row(" Monday", 3, "10.40", "0.23"),
            row(" of", 4, "10.13", "0.18"),
        ]
    );
    assert_rows!(&report.positions[1].expected, [row(" the", 0, "17.05", "75.34")]);
    assert_rows!(&report.positions[2].expected, [row(" play", 0, "12.58", "25.20")]);
    let print = report.to_string();
    assert!(print.contains("Answer token 3 of 3:\n  rank 0      logit  12.58  prob  25.20%  | play|\n"), "{print}");
    assert!(print.ends_with(r#"Ranks of the answer tokens: [(" Tuesday", 0), (" the", 0), (" play", 0)]"#), "{print}");
}

#[test]
fn several_answers_are_compared_by_their_first_token() {
    let options = PromptOptions { top_k: 3, ..Default::default() };
    let report = ask("The week has seven days: Monday, Tuesday,", &["Wednesday", "Friday", "zebra"], &options).unwrap();
    assert_eq!(report.answers[2], [" z", "eb", "ra"]);
    assert_eq!(report.positions.len(), 1);
    assert_rows!(
        &report.positions[0].expected,
        [row(" Wednesday", 0, "18.07", "99.72"), row(" Friday", 80, "4.58", "0.00"), row(" z", 4330, "-0.99", "0.00")]
    );
    assert_rows!(
        &report.positions[0].top,
        [
            row(" Wednesday", 0, "18.07", "99.72"),
            row(" Tuesday", 1, "11.60", "0.15"),
            row(" Thursday", 2, "10.22", "0.04"),
        ]
    );
}

#[test]
fn spaces_and_bos_are_the_callers_choice() {
    let bare = PromptOptions { bos: AddBos::Never, prepend_space_to_answer: false, top_k: 0 };
    let report = ask("On", &["Monday"], &bare).unwrap();
    assert_eq!((report.prompt.join("|"), report.answers.concat().concat()), ("On".into(), "Monday".into()));
    assert!(report.positions[0].top.is_empty());
    let everything = ask("On", &[" Monday"], &PromptOptions { top_k: usize::MAX, ..bare }).unwrap();
    assert_eq!(everything.answers, [[" Monday"]]);
    let top = &everything.positions[0].top;
    assert_eq!(top.len(), DEMO.shape().d_vocab);
    assert!((top.iter().map(|p| p.probability).sum::<f64>() - 1.0).abs() < 1e-9);
    let expected = &everything.positions[0].expected[0];
    assert_eq!(top[expected.rank], *expected);
}

#[test]
fn nothing_to_predict_is_an_error() {
    let options = PromptOptions::default();
    let never = PromptOptions { bos: AddBos::Never, ..options };
    let message = |result: Result<PromptReport, Error>| result.unwrap_err().to_string();
    assert!(message(ask("a", &[], &options)).contains("list of answers is empty"));
    assert!(message(ask("a", &["b", ""], &options)).contains("answer is empty"));
    assert!(message(ask("", &["b"], &never)).contains("prompt is empty"));
    assert!(ask("", &["b"], &options).is_ok());
    assert!(message(ask(&"word ".repeat(200), &["b"], &options)).contains("128"));
}

/// Predicted ids are accepted as answers without decoding: `\u{2502}` is three tokens, none of which is valid text alone.
#[test]
fn predicted_ids_are_followed_without_a_way_through_text() {
    let tokenizer = DEMO.try_tokenizer().unwrap();
    let prompt = tokenizer.to_tokens("\u{2502}", AddBos::Always, None).unwrap().ids;
    let likeliest = test_prompt_tokens(&DEMO, &prompt, &[], 10, &mut NoTap).unwrap();
    assert!(likeliest.positions.len() == 1 && likeliest.positions[0].expected.is_empty());
    let top = &likeliest.positions[0].top;
    let ids: Vec<[u32; 1]> = top.iter().map(|p| [p.token]).collect();
    let answers: Vec<&[u32]> = ids.iter().map(|id| &id[..]).collect();
    let followed = test_prompt_tokens(&DEMO, &prompt, &answers, 1, &mut NoTap).unwrap();
    assert_eq!(&followed.positions[0].expected, top);
    assert_eq!(followed.answers.len(), 10);
    // Some of these cannot be written and read again, which is why they must stay ids.
    let lost = top.iter().filter(|p| tokenizer.encode(&p.text).unwrap().ids != [p.token]).count();
    assert!(lost > 0, "{top:?}");
}

#[test]
fn answers_that_no_run_checks_are_checked() {
    let d_vocab = DEMO.shape().d_vocab as u32;
    let ask = |prompt: &[u32], answers: &[&[u32]]| test_prompt_tokens(&DEMO, prompt, answers, 3, &mut NoTap);
    let beyond = ask(&[0, 5], &[&[1], &[2, d_vocab]]).unwrap_err();
    assert!(matches!(beyond, Error::TokenOutOfVocabulary { id, row: 1, pos: 1, .. } if id == d_vocab), "{beyond}");
    assert!(matches!(ask(&[], &[]), Err(Error::EmptyPrompt { what: "prompt" })));
    assert!(matches!(ask(&[0], &[&[]]), Err(Error::EmptyPrompt { what: "answer" })));
}

/// A tokenizer with more tokens than the model: of several answers, only the prompt runs through the model.
#[test]
fn an_answer_outside_the_models_vocabulary_is_an_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(folder.join("tests/golden/llama").join(file), dir.path().join(file)).unwrap();
    }
    std::fs::copy(folder.join("../../assets/demo/lm/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let model = load(dir.path(), &LoadOptions::new(Processing::None)).unwrap();
    let options = PromptOptions { bos: AddBos::Never, ..Default::default() };
    let within = model.try_tokenizer().unwrap().encode("a").unwrap().ids;
    assert!(within.iter().all(|id| *id < 384), "{within:?}");
    for answers in [&["a", "Wednesday"][..], &["Wednesday"], &["Wednesday", "a"]] {
        let error = test_prompt(&model, "a", answers, &options, &mut NoTap).unwrap_err();
        assert!(matches!(error, Error::TokenOutOfVocabulary { d_vocab: 384, .. }), "{answers:?}: {error}");
    }
}
