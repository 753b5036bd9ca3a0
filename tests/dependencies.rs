//! What the workspace depends on, from `cargo metadata`: licenses, one version of each tensor and Arrow crate, what small crates never reach, no dependency that nothing uses.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Licenses that a user of MIT OR Apache-2.0 code can take without further duties on their own source.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages whose license is not in [`ALLOWED`], each with the reason why it may stay.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("option-ext", "MPL-2.0", "file-level copyleft, used unmodified (hf-hub uses dirs, which uses it)"),
    ("webpki-roots", "CDLA-Permissive-2.0", "a list of certificates, data under a permissive license"),
    ("webpki-root-certs", "CDLA-Permissive-2.0", "a list of certificates, data under a permissive license"),
];

/// Crates whose types appear in public signatures or whose kernels decide results: two versions of one would be two incompatible types.
fn must_be_unique(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "half",
        "ndarray",
        "linfa",
        "linfa-reduction",
        "safetensors",
        "tokenizers",
        "parquet",
        "rayon",
        "serde",
        "faer",
    ];
    NAMES.contains(&name)
        || name.starts_with("candle-")
        || name == "arrow"
        || name.starts_with("arrow-")
        || name == "gemm"
}

/// The resolved packages of this workspace on the platform of the test.
fn metadata() -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", HOST]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

const HOST: &str = if cfg!(target_os = "macos") {
    if cfg!(target_arch = "aarch64") { "aarch64-apple-darwin" } else { "x86_64-apple-darwin" }
} else if cfg!(windows) {
    "x86_64-pc-windows-msvc"
} else if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The packages that are built for this platform: those of the resolved graph.
fn packages(metadata: &Value) -> Vec<&Value> {
    let resolved: BTreeSet<&str> = list(&metadata["resolve"], "nodes").iter().map(|n| text(n, "id")).collect();
    list(metadata, "packages").iter().filter(|p| resolved.contains(text(p, "id"))).collect()
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    packages(metadata).into_iter().filter(|p| ids.contains(text(p, "id"))).collect()
}

/// Whether an SPDX expression can be satisfied by allowed licenses: `OR` binds weaker than `AND`, older manifests write `/` for `OR`.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let result = either(&mut rest, allowed);
    assert!(rest.is_empty(), "cannot read the license expression `{expression}`");
    result
}

fn either(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = both(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        result |= both(rest, allowed);
    }
    result
}

fn both(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        result &= one(rest, allowed);
    }
    result
}

fn one(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some((first, after)) = rest.split_first() else { panic!("a license expression ends too early") };
    *rest = after;
    if *first == "(" {
        let result = either(rest, allowed);
        assert_eq!(rest.first(), Some(&")"));
        *rest = &rest[1..];
        return result;
    }
    if let ["WITH", exception, after @ ..] = *rest {
        *rest = after;
        return allowed(&format!("{first} WITH {exception}"));
    }
    allowed(first)
}

#[test]
fn license_expressions_are_read_by_precedence() {
    let mit = |license: &str| license == "MIT";
    assert!(satisfied("MIT OR GPL-3.0 AND Zlib", &mit));
    assert!(!satisfied("(MIT OR GPL-3.0) AND Zlib", &mit));
    assert!(satisfied("Apache-2.0/MIT", &mit));
    assert!(!satisfied("MIT WITH some-exception", &mit));
}

#[test]
fn every_dependency_has_an_allowed_license() {
    let metadata = metadata();
    let packages = packages(&metadata);
    assert!(packages.len() > 100, "{} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| {
            let allowed = |license: &str| {
                let excepted =
                    EXCEPTIONS.iter().any(|(name, named, _)| *name == text(package, "name") && *named == license);
                excepted || ALLOWED.contains(&license)
            };
            !satisfied(text(package, "license"), &allowed)
        })
        .map(|package| {
            format!("{} {}: `{}`", text(package, "name"), text(package, "version"), text(package, "license"))
        })
        .collect();
    assert!(refused.is_empty(), "licenses that are not in the list of this test:\n{}", refused.join("\n"));
}

#[test]
fn tensor_and_arrow_crates_have_one_version() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages(&metadata) {
        versions.entry(text(package, "name")).or_default().insert(text(package, "version"));
    }
    assert!(versions.contains_key("candle-core") && versions.contains_key("arrow-array"));
    let twice: Vec<_> = versions.iter().filter(|(name, found)| must_be_unique(name) && found.len() > 1).collect();
    assert!(twice.is_empty(), "more than one version of {twice:?}");
}

/// Names of all packages that a package's library is built with, its own among them.
fn reached(metadata: &Value, package: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes").iter().map(|node| (text(node, "id"), node)).collect();
    let names: BTreeMap<&str, &str> =
        list(metadata, "packages").iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
    let member = members(metadata).into_iter().find(|member| text(member, "name") == package);
    let mut open = vec![text(member.expect("a member of the workspace"), "id")];
    let mut seen: BTreeSet<&str> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        let built = list(nodes[id], "deps")
            .iter()
            .filter(|dependency| list(dependency, "dep_kinds").iter().any(|kind| text(kind, "kind") != "dev"));
        open.extend(built.map(|dependency| text(dependency, "pkg")).filter(|id| seen.insert(*id)));
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

#[test]
fn small_crates_stay_small() {
    const WITHOUT: &[(&str, &[&str])] = &[
        ("feature-census", &["feature-analysis", "plotly", "maud", "linfa", "linfa-reduction", "faer", "ndarray"]),
        ("tensor-kernels", &["candle-core", "tensor-files", "serde"]),
    ];
    let metadata = metadata();
    assert!(reached(&metadata, "feature-analysis").contains("faer"));
    for (package, excluded) in WITHOUT {
        let reached = reached(&metadata, package);
        let found: Vec<_> = excluded.iter().filter(|name| reached.contains(**name)).collect();
        assert!(found.is_empty(), "{package} reaches {found:?}");
    }
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The folders of a package's code: the library, and what only tests, examples and benchmarks compile.
fn code(package: &Value, folders: &[&str]) -> String {
    let root = Path::new(text(package, "manifest_path")).parent().expect("a manifest lies in a folder");
    let mut files = Vec::new();
    folders.iter().for_each(|folder| sources(&root.join(folder), &mut files));
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Whether a path or `use` of this crate occurs in the code.
fn uses(code: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        !before.ends_with(word) && !after.starts_with(word) && (after.starts_with("::") || before.ends_with("use "))
    })
}

#[test]
fn every_declared_dependency_is_used() {
    let metadata = metadata();
    // Tests of several packages include this file by its path.
    let harness = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/harness.rs")).unwrap();
    let mut unused = Vec::new();
    for package in members(&metadata) {
        let library = code(package, &["src"]);
        let all = code(package, &["src", "tests", "examples", "benches"]) + &harness;
        for dependency in list(package, "dependencies") {
            let name = dependency["rename"].as_str().unwrap_or(text(dependency, "name"));
            // A package that depends on itself for its tests switches a feature on.
            if name == text(package, "name") {
                continue;
            }
            let code = if dependency["kind"].is_null() { &library } else { &all };
            if !uses(code, name) {
                unused.push(format!("{}: {name}", text(package, "name")));
            }
        }
    }
    assert!(unused.is_empty(), "dependencies that no code names: {unused:?}");
}
