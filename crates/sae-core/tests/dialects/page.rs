//! `docs/formats.md`: what each format's reader rests on, made from the fixtures themselves.
//!
//! The test fails when the page is not what the fixtures say, or an error is above what the page states;
//! `UPDATE_DOCS=1 cargo test --release --workspace --test dialects` writes it anew.

use super::{Fixture, common, rounds};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

const HEAD: &str = include_str!("page_head.md");

/// The worst error over the engines that do not round weights, as the page writes it: one digit, rounded up.
fn stated(worst: f64) -> String {
    if worst == 0.0 {
        return "0".into();
    }
    let power = worst.log10().floor() as i32;
    format!("{}e{power}", (worst / 10f64.powi(power)).ceil())
}

fn measured(fixture: &Fixture) -> Option<f64> {
    fixture.expected()?;
    let exact = common::engines().into_iter().filter(|engine| !rounds(*engine));
    Some(exact.map(|engine| fixture.worst(engine)).fold(0.0, f64::max))
}

/// Who computed what is compared with.
fn reference(fixture: &Fixture) -> String {
    let publisher = fixture.expected().is_some_and(|file| file.contains("publisher.acts"));
    if publisher { "the publisher's formula (see below)".into() } else { fixture.text("reference").to_owned() }
}

fn by_hand(fixture: &Fixture) -> bool {
    fixture.text("written_by").contains("by hand")
}

/// The page, with the errors that `error` gives for a fixture (`None`: its files must be refused).
fn page(error: impl Fn(&Fixture) -> String) -> String {
    let mut by_dialect: BTreeMap<&'static str, Vec<Fixture>> = BTreeMap::new();
    for fixture in Fixture::all() {
        by_dialect.entry(fixture.format().name()).or_default().push(fixture);
    }
    let mut out = String::from(HEAD);
    out.push_str("\n## What each reader rests on\n\n| format | files written by its tool | files by hand | |\n|---|--:|--:|---|\n");
    for (format, fixtures) in &by_dialect {
        let hand = fixtures.iter().filter(|fixture| by_hand(fixture)).count();
        let mark = if *format == "saelens" {
            "version 6: the 39 folders of `tests/golden`, written by SAELens; older versions by hand"
        } else if hand == fixtures.len() {
            "**unverified**: no file of its tool was read"
        } else {
            ""
        };
        writeln!(out, "| `{format}` | {} | {hand} | {mark} |", fixtures.len() - hand).unwrap();
    }
    out.push_str("\n## Every fixture\n\n| format | fixture | files written | compared with | largest error |\n|---|---|---|---|--:|\n");
    for (format, fixtures) in &by_dialect {
        for fixture in fixtures {
            let (written, reference, error) = (fixture.text("written_by"), reference(fixture), error(fixture));
            writeln!(out, "| `{format}` | `{}` | {written} | {reference} | {error} |", fixture.name).unwrap();
        }
    }
    out
}

/// The errors that a page states, by fixture.
fn errors_of(page: &str) -> BTreeMap<String, String> {
    let cells = page.lines().map(|line| line.split(" | ").collect::<Vec<_>>()).filter(|cells| cells.len() == 5);
    cells.map(|cells| (cells[1].trim_matches('`').into(), cells[4].trim_end_matches(" |").into())).collect()
}

#[test]
fn docs_dialects_md_is_what_the_fixtures_show() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let page = page(|fixture| measured(fixture).map_or_else(|| "refused".into(), stated));
        return std::fs::write(path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let errors = errors_of(&found);
    let due = page(|fixture| errors.get(&fixture.name).cloned().unwrap_or_default());
    assert!(found == due, "docs/formats.md is not what the fixtures show: run this test with UPDATE_DOCS=1");
    for fixture in Fixture::all() {
        let said = &errors[&fixture.name];
        match measured(&fixture) {
            None => assert_eq!(said, "refused", "{}", fixture.name),
            // Sums are grouped otherwise on other machines.
            Some(worst) => {
                let said: f64 = said.parse().unwrap_or_else(|_| panic!("{}: `{said}` is no error", fixture.name));
                assert!(
                    said <= 1e-4 && worst <= 3.0 * said.max(1e-7),
                    "{}: {worst:e}, the page says {said:e}",
                    fixture.name
                );
            }
        }
    }
}
