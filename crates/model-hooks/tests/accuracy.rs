//! `docs/accuracy.md`: how far every hook point of every family is from TransformerLens.
//!
//! `cargo test --release --workspace --test accuracy -- --ignored` writes it anew. The bounds themselves are tested in `golden.rs`.

mod common;

use common::{Golden, MODELS, error, model_on, rms_error, tolerances};
use model_hooks::{Capture, Engine, HookPoint, Precision, Processing, Site};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// `(largest error of a value, rms of the errors)`, each over the rms of the point's golden values.
type Errors = BTreeMap<String, (f64, f64)>;

/// The worst over the layers at every point of a model, in both numeric modes.
fn errors(name: &str, engine: Engine) -> Errors {
    let golden = Golden::open(name);
    let mut worst = Errors::new();
    for (mode, processing) in [("raw", Processing::None), ("proc", Processing::TransformerLens)] {
        let model = model_on(name, processing, engine);
        let mut capture = Capture::all();
        model.hooked().forward(&golden.tokens(), &mut capture).unwrap();
        for (point, value) in capture.iter() {
            if golden.leaves_out(point) {
                continue;
            }
            let expected = golden.tensor(&format!("{mode}.{point}")).reshape(value.shape()).unwrap();
            let (largest, rms) = (error(value, &expected), rms_error(value, &expected));
            let entry =
                worst.entry(point.site().map_or_else(|| point.to_string(), |site| site.to_string())).or_default();
            *entry = (entry.0.max(largest), entry.1.max(rms));
        }
    }
    worst
}

fn names() -> Vec<String> {
    let outside = |point: HookPoint| point.to_string();
    let mut names = vec![outside(HookPoint::Embed), outside(HookPoint::PosEmbed)];
    names.extend(Site::all().filter(|site| !site.is_input_copy()).map(|site| site.to_string()));
    names.extend(["ln_final.hook_scale", "ln_final.hook_normalized", "logits"].map(String::from));
    names
}

fn table(out: &mut String, models: &[(&str, Errors)], of: impl Fn(&(f64, f64)) -> f64) {
    writeln!(out, "| point | {} |", models.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | ")).unwrap();
    writeln!(out, "|---|{}", "--:|".repeat(models.len())).unwrap();
    for name in names() {
        let cell = |(_, errors): &(&str, Errors)| errors.get(&name).map_or(String::new(), |e| format!("{:.1e}", of(e)));
        writeln!(out, "| `{name}` | {} |", models.iter().map(cell).collect::<Vec<_>>().join(" | ")).unwrap();
    }
}

#[test]
#[ignore = "writes docs/accuracy.md"]
fn docs_accuracy_md() {
    let of = |precision| -> Vec<(&str, Errors)> {
        MODELS.iter().map(|name| (*name, errors(name, Engine::kernels(precision)))).collect()
    };
    let mut out = String::from(
        "# Accuracy, by family and hook point\n\n\
         Largest error of any single value against TransformerLens 3.9 in f32, in parts of the rms of the point's values, the worst of all layers\n\
         and of both numeric modes (raw and processed weights), on the small models of `crates/model-hooks/tests/golden` (of `hook_result` one\n\
         layer in most).\n\
         Written by `cargo test --release --workspace --test accuracy -- --ignored`.\n\n",
    );
    out += &tolerances::statement();
    out.push('\n');
    writeln!(out, "## f32 ({})\n", Engine::kernels(Precision::F32)).unwrap();
    table(&mut out, &of(Precision::F32), |e| e.0);
    let bf16 = of(Precision::Bf16);
    writeln!(out, "\n## bf16 ({}): rms of the errors\n", Engine::kernels(Precision::Bf16)).unwrap();
    table(&mut out, &bf16, |e| e.1);
    std::fs::write(page(), out).unwrap();
}

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/accuracy.md")
}

/// The bounds that the page states are those that the tests use.
#[test]
fn docs_accuracy_md_states_the_bounds_of_the_tests() {
    let text = std::fs::read_to_string(page()).unwrap();
    let statement = tolerances::statement();
    let stated = || Some(text.find(tolerances::BEGIN)?..text.find(tolerances::END)? + tolerances::END.len());
    let range = stated().expect("docs/accuracy.md has the marks of the statement");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(page(), [&text[..range.start], &statement, &text[range.end..]].concat()).unwrap();
    }
    assert!(
        text[range] == statement,
        "docs/accuracy.md does not state the tests' bounds: run this test with UPDATE_DOCS=1"
    );
}

/// The README's two numbers are those of the tests.
#[test]
fn the_readme_states_the_bounds_of_the_tests() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let due = format!(
        "(f32: {:.0e} of the rms at every hook point, {:.0e} for an SAE)",
        tolerances::MODELS.f32,
        tolerances::SAES.f32
    );
    assert!(readme.contains(&due), "README.md does not say `{due}`");
}
