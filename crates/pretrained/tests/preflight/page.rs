//! `docs/preflight.md`.

use super::Row;
use pretrained::preflight::{PreflightReport, Severity, Thresholds};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "\
# Preflight: what is checked, where the limits lie, what they catch

Made by `crates/pretrained/tests/preflight.rs`; `UPDATE_DOCS=1 cargo test --release --workspace --test preflight -- --ignored` writes it anew. The words are
tested, the numbers are those of one machine (they differ in the last digits on others).

`pretrained::preflight` asks whether an SAE belongs to a model, processed as it is, on the tokens that are to be run. `tour` and `census` ask
first. First tokens of rows, special tokens, positions outside `seqpos_slice`, padding, and tokens of more than ten times the
median norm are left out of the measures.

## Limits

| limit | value | what is held against it | what it rests on |
|---|---|---|---|
";

const RIGHT: &str = "
## Right pairings

Fourteen SAEs (the demo's and `crates/pretrained/tests/pairings`) on three texts: the demo's held-out text, this project's source code, its documentation. Each cell: the
verdict, variance explained, L0. None fails; none warns. The last column is the least rank correlation with the frequencies in training.

| SAE | hook point | release: variance explained, L0 | demo text | code | docs | frequencies |
|---|---|---|---|---|---|---|
";

const WRONG: &str = "
## Wrong pairings

Each is a right pairing with one thing wrong. Cells: the verdict on each text with the release's numbers, and on the source code without them (then frequencies in training, which are in
the SAE's files, still are known). The reason is the first on the demo's text, with its margin. `warn` is what is asked for where the pairing may be meant or harms little.

| what is wrong | SAE | demo text | code | docs | code, no numbers | reason that caught it |
|---|---|---|---|---|---|---|
";

const TAIL: &str = "
## What is not caught

* Without the release's numbers, an SAE whose matrices were rounded to a bit passes: it still explains a quarter to a third of the variance, and only less than
  `variance_least` fails then.
* A layer's `hook_resid_mid` and the next `hook_resid_pre` differ by one block's output: read one for the other, an SAE may lose a tenth of its variance explained or less, which warns at most.
* A model that differs little from the right one (a fine-tune, another checkpoint near the end of training) passes where the SAE works on it as well.
* Text in another domain than the training text warns or fails by its variance explained; the preflight cannot tell it from a worse SAE.
* Transcoders are measured against what they are to write; what would help is not tried on them.
* The limits were set on the pairings of this page: SAEs of 96 to 2,048 features on a small model. PretrainedSae SAEs were not at hand. On others they may warn where they need not, or the
  other way round; `Thresholds` can be changed.
";

pub fn page(right: &[Row], wrong: &[Row]) -> String {
    let mut out = String::from(HEAD);
    for limit in Thresholds::default().table() {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", limit.name, limit.value, limit.meaning, limit.source);
    }
    out.push_str(RIGHT);
    for row in right {
        let expected = super::pairs::expected(row.name);
        let _ = write!(
            out,
            "| {} | `{}` | {:.2}, {:.1} |",
            row.name,
            row.what,
            expected.variance_explained.unwrap(),
            expected.l0.unwrap()
        );
        for verdict in &row.verdicts {
            let m = verdict.measured.as_ref().unwrap();
            let _ = write!(out, " {}: {:.2}, {:.1} |", verdict.level, m.variance_explained, m.l0);
        }
        out.push_str(&" |".repeat(3 - row.verdicts.len()));
        let ranks = row.verdicts.iter().filter_map(|v| v.measured.as_ref()?.frequency_correlation);
        let _ = writeln!(out, " {:.2} |", ranks.fold(f64::INFINITY, f64::min));
    }
    out.push_str(WRONG);
    for row in wrong {
        let _ = write!(out, "| {} | {} |", row.what, row.name);
        for verdict in row.verdicts.iter().chain(&row.without) {
            let _ = write!(out, " {} |", verdict.level);
        }
        let _ = writeln!(out, " {} |", reason(row, &row.verdicts[0]));
    }
    out.push_str(TAIL);
    out
}

fn reason(row: &Row, verdict: &PreflightReport) -> String {
    let made_for = row.check.and_then(|check| verdict.of(check).next());
    let first = verdict.reasons.iter().find(|r| r.level >= Severity::Warn);
    made_for.or(first).map_or_else(|| "none".into(), |r| format!("{}: {}; expected {}", r.check, r.found, r.expected))
}

/// The page must have these words; digits may differ.
pub fn check(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/preflight.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    for (found, made) in found.lines().zip(page.lines()) {
        assert_eq!(words(found), words(made), "docs/preflight.md is old: UPDATE_DOCS=1 writes it anew");
    }
    assert_eq!(found.lines().count(), page.lines().count(), "docs/preflight.md is old: UPDATE_DOCS=1 writes it anew");
}

fn words(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit() && !".-".contains(*c)).collect()
}
