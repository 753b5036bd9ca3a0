//! Right pairings pass, wrong ones are caught with a reason; `docs/preflight.md` is made from what these tests see.
//!
//! Each pairing meets one text in every run of the tests, and all three, with and without the release's numbers, in the ignored one, which takes
//! minutes: `UPDATE_DOCS=1 cargo test --release --workspace --test preflight -- --ignored` writes the page anew.

#[path = "preflight/page.rs"]
mod page;
#[path = "preflight/pairs.rs"]
mod pairs;
#[path = "preflight/wrong.rs"]
mod wrong;

use model_hooks::TokenBatch;
use pairs::{CENTERED, Text, almanac, expected, home, sae, texts, told, with};
use pretrained::preflight::{
    Check, PreflightOptions, PreflightReport, PreflightSae, Severity, preflight, preflight_static,
};

/// One row of the page.
pub struct Row {
    /// What is wrong with it, or the hook point of a right one.
    pub what: String,
    /// The SAE.
    pub name: &'static str,
    /// With the release's numbers, on each text.
    pub verdicts: Vec<PreflightReport>,
    /// On the source code, without them.
    pub without: Option<PreflightReport>,
    /// The check that a mismatch was made for.
    pub check: Option<Check>,
}

/// With what the release says, and without.
fn options(name: &str, released: bool) -> PreflightOptions {
    let mut options = PreflightOptions::default();
    options.expected = released.then(|| expected(name));
    // The folder of the demo's model is called `lm`.
    options.aliases.push("demo-lm".into());
    options
}

fn right(name: &'static str, all: impl Fn() -> Vec<Text>, whole: bool) -> Row {
    let texts: Vec<Text> = if name == "pre2-jumprelu-almanac" { vec![almanac()] } else { all() };
    let sae = sae(name);
    let run =
        |text: &Text, released| preflight(home(&sae), &sae, &text.for_sae(&sae), &options(name, released)).unwrap();
    let row = Row {
        what: sae.metadata().hook_name.clone().unwrap(),
        name,
        verdicts: texts.iter().map(|text| run(text, true)).collect(),
        without: texts.get(1).filter(|_| whole).map(|text| run(text, false)),
        check: None,
    };
    for (text, verdict) in row.verdicts.iter().chain(&row.without).enumerate() {
        assert_eq!(verdict.level, Severity::Pass, "{name}, text {text}: {verdict}");
    }
    row
}

fn wrong(wrong: &wrong::Wrong, texts: &[Text]) -> Row {
    let pairing = wrong.pairing();
    let run = |text: &Text, released| {
        let options = options(wrong.name, released);
        preflight(pairing.model, &pairing.sae, &wrong.tokens(text, &pairing), &options).unwrap()
    };
    let row = Row {
        what: wrong.what.into(),
        name: wrong.name,
        verdicts: texts.iter().map(|text| run(text, true)).collect(),
        without: texts.get(1).map(|text| run(text, false)),
        check: wrong.check,
    };
    let least = if wrong.warns { Severity::Warn } else { Severity::Fail };
    for (text, verdict) in texts.iter().zip(&row.verdicts) {
        assert!(verdict.level >= least, "{} on {}: {verdict}", row.what, text.name);
        let named = wrong.check.is_none_or(|check| verdict.of(check).any(|r| r.level >= Severity::Warn));
        assert!(named, "{} on {} was caught by something else: {verdict}", row.what, text.name);
        let said =
            verdict.reasons.iter().all(|r| !r.change.is_empty() && !r.expected.is_empty() && !r.found.is_empty());
        assert!(said, "{verdict}");
    }
    row
}

/// One of the three texts, another one for each pairing.
fn one(i: usize) -> Vec<Text> {
    texts().into_iter().skip(i % 3).take(1).collect()
}

#[test]
fn right_pairings_pass() {
    right("demo", || one(0), false);
    for (i, name) in pairs::NAMES.into_iter().enumerate() {
        right(name, || one(i), false);
    }
}

#[test]
fn mismatches_are_caught() {
    wrong::all().iter().enumerate().for_each(|(i, mismatch)| drop(wrong(mismatch, &one(i))));
}

#[test]
#[ignore = "minutes: every pairing on every text; makes docs/preflight.md"]
fn the_page_is_what_happens() {
    let mut right_rows = vec![right("demo", || texts().into(), true)];
    right_rows.extend(pairs::NAMES.map(|name| right(name, || texts().into(), true)));
    let wrong_rows: Vec<Row> = wrong::all().iter().map(|mismatch| wrong(mismatch, &texts())).collect();
    assert!(wrong_rows.len() >= 20 && right_rows.iter().map(|row| row.verdicts.len()).sum::<usize>() >= 20);
    page::check(&page::page(&right_rows, &wrong_rows));
}

#[test]
fn static_checks_need_no_pass() {
    let (sae, text) = (sae("pre1-standard"), &texts()[0]);
    let tokens = text.rows(128, 1);
    let of =
        |sae: &sae_core::Sae, tokens: &TokenBatch| preflight_static(&CENTERED, sae, tokens, &options("demo", true));
    assert!(of(&sae, &tokens).is_pass());
    let nowhere = of(&told(&sae, |m| m.hook_name = None), &tokens);
    assert!(nowhere.is_fail() && nowhere.of(Check::Hook).count() == 1 && nowhere.measured.is_none());
    let misspelled = of(&told(&sae, |m| m.hook_name = Some("blocks.1.hook_resid_prae".into())), &tokens);
    assert!(misspelled.to_string().contains("near: `blocks.1.hook_resid_pre`"), "{misspelled}");
    let pattern = of(&told(&sae, |m| m.hook_name = Some("blocks.1.attn.hook_pattern".into())), &tokens);
    assert!(pattern.of(Check::Hook).count() == 1, "{pattern}");
    let late = sae_core::SeqposSlice { start: Some(200), ..Default::default() };
    let late = of(&told(&sae, |m| m.seqpos_slice = Some(late)), &tokens);
    assert!(late.of(Check::Positions).any(|r| r.level == Severity::Fail), "{late}");
    let outside = TokenBatch::new(&[vec![0, 6144]]).unwrap();
    assert!(of(&sae, &outside).of(Check::Vocabulary).count() == 1);
    let long = TokenBatch::new(&[vec![0; 129]]).unwrap();
    assert!(of(&sae, &long).of(Check::Context).any(|r| r.level == Severity::Fail));
}

/// A folder may be called anything: where the measures agree, another name is a note; where there is nothing to hold them against, it warns.
#[test]
fn another_name_warns_until_the_measures_agree() {
    let sae = sae("pre1-standard");
    let tokens = texts()[0].rows(128, 1);
    let verdict = preflight(&CENTERED, &sae, &tokens, &PreflightOptions::default()).unwrap();
    assert!(verdict.is_pass() && verdict.of(Check::ModelName).all(|r| r.level == Severity::Note), "{verdict}");
    let without = with(&sae, |parts| parts.sparsity = None);
    let verdict = preflight(&CENTERED, &without, &tokens, &PreflightOptions::default()).unwrap();
    assert!(verdict.of(Check::ModelName).any(|r| r.level == Severity::Warn), "{verdict}");
}

/// What a dictionary of one's own shows through the trait is enough for the measures.
#[test]
fn any_sparse_coder_can_be_checked() {
    let sae = sae("pre1-standard");
    let tokens = texts()[0].rows(128, 1);
    let verdict = preflight(&CENTERED, PreflightSae::of(&sae), &tokens, &options("pre1-standard", true)).unwrap();
    assert!(verdict.is_pass(), "{verdict}");
    let measured = verdict.measured.as_ref().unwrap();
    assert!(measured.b_dec_cosine.is_some() && measured.frequency_correlation.is_none());
    let json = verdict.to_json();
    assert_eq!(json["level"], "pass");
    assert!(json["measured"]["variance_explained"].as_f64().unwrap() > 0.7);
}

/// An exact oracle: the measures of a dictionary that keeps everything, and of one that keeps nothing.
#[test]
fn measures_of_the_identity_and_of_silence() {
    use candle_core::{DType, Device, Tensor};
    use sae_core::{Sae, SaeParts};
    let eye = Tensor::eye(256, DType::F32, &Device::Cpu).unwrap();
    let (w_enc, w_dec) =
        (Tensor::cat(&[&eye, &eye.neg().unwrap()], 1).unwrap(), Tensor::cat(&[&eye, &eye.neg().unwrap()], 0).unwrap());
    let identity = |bias: f32| {
        let mut parts = SaeParts::new(w_enc.clone(), vec![bias; 512], w_dec.clone(), vec![0.0; 256]);
        parts.metadata.hook_name = Some("blocks.1.hook_resid_pre".into());
        Sae::new(parts).unwrap()
    };
    let tokens = texts()[0].rows(64, 1);
    let all = preflight(&CENTERED, &identity(0.0), &tokens, &PreflightOptions::default()).unwrap().measured.unwrap();
    assert!(
        (all.variance_explained - 1.0).abs() < 1e-9
            && (all.cosine - 1.0).abs() < 1e-6
            && (all.best_scale - 1.0).abs() < 1e-6
    );
    assert!((all.l0 - 256.0).abs() < 1.0 && (all.norm_ratio - 1.0).abs() < 1e-6);
    assert_eq!((all.tokens, all.excluded.position), (12 * 63, 12));
    let none = preflight(&CENTERED, &identity(-1e6), &tokens, &PreflightOptions::default()).unwrap();
    assert!(none.is_fail() && none.of(Check::L0).count() == 1, "{none}");
    let none = none.measured.unwrap();
    assert_eq!((none.l0, none.norm_ratio, none.best_scale, none.dead), (0.0, 0.0, 0.0, 1.0));
}
