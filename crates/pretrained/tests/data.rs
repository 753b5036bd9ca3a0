//! The table holds what its summary counts, and the summary what the package's registry counts.

use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;

const SUMMARY: &str = include_str!("../data/summary.tsv");

fn table() -> String {
    let mut text = String::new();
    GzDecoder::new(pretrained::RELEASE_TABLE).read_to_string(&mut text).unwrap();
    text
}

/// What the summary would say of the table, in any order of lines but with equal keys added up.
fn counted(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut add = |key: String, by: usize| *counts.entry(key).or_insert(0) += by;
    let (mut columns, mut dialect, mut release, mut left) = (Vec::new(), "", "", 0_usize);
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[0] {
            "#saescope-registry" => assert_eq!(fields[1], "1"),
            "#" => columns = fields[1..].to_vec(),
            "#>" => assert_eq!(fields[1..], ["release", "repo", "dialect", "model", "saes", "config_overrides"]),
            ">" => {
                assert_eq!(left, 0, "{release} has fewer lines than it says");
                (release, dialect, left) = (fields[1], fields[3], fields[5].parse().unwrap());
                add("releases".into(), 1);
                add(format!("release\t{release}"), left);
            }
            _ => {
                left = left.checked_sub(1).unwrap_or_else(|| panic!("{release} has more lines than it says"));
                add("saes".into(), 1);
                add(format!("dialect\t{dialect}"), 1);
                for (column, _) in columns.iter().zip(&fields).filter(|(_, field)| !field.is_empty()) {
                    add(format!("column\t{column}"), 1);
                }
            }
        }
    }
    assert_eq!(left, 0, "{release} has fewer lines than it says");
    counts
}

#[test]
fn the_table_holds_what_the_summary_counts() {
    let parse = |line: &str| {
        let (key, count) = line.rsplit_once('\t').unwrap();
        (key.to_owned(), count.parse::<usize>().unwrap())
    };
    let summary: BTreeMap<String, usize> =
        SUMMARY.lines().filter(|line| !line.starts_with("sae-lens")).map(parse).collect();
    assert_eq!(counted(&table()), summary);
}

/// Totals of sae-lens 6.54.12's registry, counted by hand from its file.
#[test]
fn the_totals_are_the_registrys() {
    for line in
        ["sae-lens\t6.54.12", "releases\t170", "saes\t13857", "dialect\tgemma_scope_2\t8784", "dialect\tsaelens\t292"]
    {
        assert!(SUMMARY.lines().any(|found| found == line), "{line} is missing");
    }
}

#[test]
fn a_known_line_says_what_the_publisher_says() {
    let text = table();
    let at = text.find(">\tgpt2-small-res-jb\tjbloom/GPT2-Small-SAEs-Reformatted\tsaelens\tgpt2-small\t13\t").unwrap();
    assert!(text[at..].lines().next().unwrap().contains("\"center_writing_weights\": true"));
    let line = text[at..].lines().find(|line| line.starts_with("blocks.7.hook_resid_pre\t")).unwrap();
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!(
        fields,
        [
            "blocks.7.hook_resid_pre",
            "=",
            "blocks.7.hook_resid_pre",
            "",
            "",
            "",
            "54.0",
            "0.9",
            "",
            "gpt2-small/7-res-jb"
        ]
    );
}
