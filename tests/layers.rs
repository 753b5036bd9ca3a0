//! The layers of the workspace: which crate may use which, that libraries do not print, and that `lib.rs` only names and re-exports.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate, its floor, and the crates of lower floors that it may use. Tests, examples and benchmarks may use any crate of a lower floor.
struct Layer {
    name: &'static str,
    floor: u8,
    uses: &'static [&'static str],
}

const fn layer(name: &'static str, floor: u8, uses: &'static [&'static str]) -> Layer {
    Layer { name, floor, uses }
}

/// The table of allowed edges. An edge that is listed need not exist.
const LAYERS: &[Layer] = &[
    layer("tensor-kernels", 1, &[]),
    layer("tensor-files", 1, &[]),
    layer("model-hooks", 2, &["tensor-kernels", "tensor-files"]),
    layer("sae-core", 2, &["tensor-kernels", "tensor-files"]),
    layer("activation-store", 3, &["model-hooks", "sae-core", "tensor-files"]),
    layer("sae-hooks", 4, &["activation-store", "model-hooks", "sae-core"]),
    layer("feature-census", 4, &["activation-store", "sae-core", "tensor-kernels", "tensor-files"]),
    layer("pretrained", 4, &["activation-store", "model-hooks", "sae-core", "tensor-kernels", "tensor-files"]),
    layer(
        "feature-analysis",
        5,
        &[
            "sae-hooks",
            "feature-census",
            "activation-store",
            "model-hooks",
            "sae-core",
            "tensor-kernels",
            "tensor-files",
        ],
    ),
    layer(
        "saescope",
        6,
        &[
            "feature-analysis",
            "pretrained",
            "feature-census",
            "sae-hooks",
            "activation-store",
            "model-hooks",
            "sae-core",
            "tensor-kernels",
            "tensor-files",
        ],
    ),
];

/// Dev-dependencies that do not go to a lower floor, each with its reason.
const DEV_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("tensor-files", "tensor-kernels", "CountingAllocator, for the memory bounds of hostile files")];

/// Items that a `lib.rs` defines, each with its reason.
const LIB_EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("pretrained", "fn sae", "the short form of Hub::from_env()?.sae(..)"),
    ("pretrained", "fn model", "the short form of Hub::from_env()?.model(..)"),
    ("pretrained", "fn dataset", "the short form of Hub::from_env()?.dataset(..)"),
];

const TABLE: &str = "the table LAYERS in tests/layers.rs";

/// A package of the workspace: its name, its folder, and its edges to other packages of the workspace.
struct Member {
    name: String,
    folder: PathBuf,
    edges: Vec<Edge>,
}

struct Edge {
    to: String,
    dev: bool,
}

fn members() -> Vec<Member> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_string();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let packages = list(&metadata, "packages");
    let names: Vec<String> = packages.iter().map(|package| text(package, "name")).collect();
    let member = |package: &Value| {
        let name = text(package, "name");
        // A package that depends on itself for its tests switches a feature on.
        let ours = |dependency: &Value| {
            let to = text(dependency, "name");
            to != name && names.contains(&to)
        };
        let edge = |dependency: &Value| Edge { to: text(dependency, "name"), dev: dependency["kind"] == "dev" };
        let dependencies = list(package, "dependencies");
        let manifest = PathBuf::from(text(package, "manifest_path"));
        Member {
            edges: dependencies.iter().filter(|dependency| ours(dependency)).map(edge).collect(),
            folder: manifest.parent().expect("a manifest is in a folder").to_path_buf(),
            name,
        }
    };
    packages.iter().map(member).collect()
}

fn layer_of(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

/// What is wrong with an edge, if anything.
fn fault(from: &Layer, edge: &Edge) -> Option<String> {
    let to = layer_of(&edge.to)?;
    let (name, target) = (from.name, to.name);
    if edge.dev {
        let excepted = DEV_EXCEPTIONS.iter().any(|(from, to, _)| (*from, *to) == (name, target));
        return (to.floor >= from.floor && !excepted).then(|| {
            format!(
                "{name} -> {target} (dev): {target} is on floor {}, {name} on floor {}; in {TABLE}, \
                 dev-dependencies go to lower floors",
                to.floor, from.floor
            )
        });
    }
    (!from.uses.contains(&target))
        .then(|| format!("{name} -> {target}: {TABLE} allows {name} only {:?}, not {target}", from.uses))
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let mut faults = Vec::new();
    for member in members() {
        match layer_of(&member.name) {
            Some(layer) => faults.extend(member.edges.iter().filter_map(|edge| fault(layer, edge))),
            None => faults.push(format!("{0}: give {0} a floor and the crates it may use in {TABLE}", member.name)),
        }
    }
    assert!(faults.is_empty(), "edges between crates:\n{}", faults.join("\n"));
}

#[test]
fn the_table_goes_down() {
    for layer in LAYERS {
        for name in layer.uses {
            let used = layer_of(name).unwrap_or_else(|| panic!("{}: {name} is not in {TABLE}", layer.name));
            assert!(used.floor < layer.floor, "{} -> {name}: not a lower floor in {TABLE}", layer.name);
        }
    }
}

#[test]
fn a_forbidden_edge_is_named() {
    let edge = |to: &str, dev| Edge { to: to.to_string(), dev };
    let sae_core = layer_of("sae-core").unwrap();
    assert!(fault(sae_core, &edge("tensor-files", false)).is_none());
    let message = fault(sae_core, &edge("model-hooks", false)).unwrap();
    assert!(message.starts_with("sae-core -> model-hooks: ") && message.contains(TABLE), "{message}");
    let store = layer_of("activation-store").unwrap();
    assert!(fault(store, &edge("tensor-kernels", false)).is_some());
    assert!(fault(store, &edge("tensor-kernels", true)).is_none());
    assert!(fault(store, &edge("pretrained", true)).is_some());
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Replaces comments and the contents of strings and characters by spaces. Lines stay.
fn without_text(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    // The end of a literal in quotes that begins behind `i`.
    let quoted = |mut i: usize, quote: char| {
        while i < chars.len() && at(i) != quote {
            i += if at(i) == '\\' { 2 } else { 1 };
        }
        i + 1
    };
    let mut code = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let raw = (at(i) == 'r' && (i == 0 || !word(at(i - 1)) || at(i - 1) == 'b'))
            .then(|| chars[i + 1..].iter().take_while(|c| **c == '#').count());
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            ('/', '*') => {
                let mut depth = 0;
                let mut j = i;
                loop {
                    match (at(j), at(j + 1)) {
                        ('/', '*') => (depth, j) = (depth + 1, j + 2),
                        ('*', '/') => (depth, j) = (depth - 1, j + 2),
                        _ => j += 1,
                    }
                    if depth == 0 || j >= chars.len() {
                        break j;
                    }
                }
            }
            ('"', _) => quoted(i + 1, '"'),
            // A lifetime has no second quote.
            ('\'', second) if second == '\\' || at(i + 2) == '\'' => quoted(i + 1, '\''),
            _ => match raw {
                Some(hashes) if at(i + 1 + hashes) == '"' => {
                    let close = |j: usize| at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#');
                    (i + 2 + hashes..chars.len()).find(|&j| close(j)).map_or(chars.len(), |j| j + 1 + hashes)
                }
                _ => {
                    code.push(at(i));
                    i += 1;
                    continue;
                }
            },
        };
        let end = end.min(chars.len());
        code.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    code
}

/// The end of the item that begins at the start of `code`: behind its `;`, or behind its block.
fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The code without comments, strings and `#[cfg(test)]` items, and the names of modules in files that only tests compile.
fn without_tests(source: &str) -> (String, Vec<String>) {
    let mut code = without_text(source);
    let mut modules = Vec::new();
    let starts = ["#[cfg(test)]", "#[cfg(all(test"];
    while let Some(at) = starts.iter().filter_map(|start| code.find(start)).min() {
        // The attribute, then the item.
        let attribute = at + code[at..].find("]").map_or(1, |end| end + 1);
        let end = attribute + item_end(&code[attribute..]);
        let item = code[attribute..end].trim();
        if let Some((_, name)) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
            modules.push(name.trim().to_string());
        }
        let blank: String = code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..end, &blank);
    }
    (code, modules)
}

/// Whether a file is that of a test module, `<name>.rs` or `<name>/..`, of a file in a folder above it.
fn is_test_file(file: &Path, modules: &[(PathBuf, String)]) -> bool {
    modules.iter().any(|(folder, name)| {
        let inside = file.strip_prefix(folder).ok().and_then(|rest| rest.iter().next());
        inside.is_some_and(|first| Path::new(first).file_stem().is_some_and(|stem| *stem == **name))
    })
}

/// The files of a library with their code outside tests.
fn library_code(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    sources(&folder.join("src"), &mut files);
    files.sort();
    let mut modules = Vec::new();
    let mut found = Vec::new();
    for file in files {
        let (code, tests) = without_tests(&std::fs::read_to_string(&file).unwrap());
        let (parent, stem) = (file.parent().unwrap(), file.file_stem().unwrap());
        let own = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let below = if own { parent.to_path_buf() } else { parent.join(stem) };
        modules.extend(tests.into_iter().map(|name| (below.clone(), name)));
        found.push((file, code));
    }
    found.retain(|(file, _)| !is_test_file(file, &modules));
    found
}

/// The members whose library is published as one: all but a command.
fn libraries() -> impl Iterator<Item = Member> {
    members().into_iter().filter(|member| member.folder.join("src/lib.rs").exists())
}

/// The lines of the code, from 1, in which one of the macros is called.
fn calls(code: &str, macros: &[&str]) -> Vec<(usize, String)> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let called =
        |line: &str| macros.iter().any(|name| line.match_indices(name).any(|(at, _)| !line[..at].ends_with(word)));
    let lines = code.lines().enumerate().filter(|(_, line)| called(line));
    lines.map(|(number, line)| (number + 1, line.trim().to_string())).collect()
}

#[test]
fn libraries_do_not_print() {
    const MACROS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let mut printed = Vec::new();
    for member in libraries() {
        for (file, code) in library_code(&member.folder) {
            for (number, line) in calls(&code, MACROS) {
                printed.push(format!("{}:{number}: {line}", file.display()));
            }
        }
    }
    assert!(printed.is_empty(), "libraries return what they have to say; only commands print:\n{}", printed.join("\n"));
}

/// Types, traits and functions that a file defines at its top level, as `fn name`.
fn definitions(code: &str) -> Vec<String> {
    const KINDS: &[&str] = &["struct", "enum", "union", "trait", "fn", "impl", "macro_rules!"];
    let mut found = Vec::new();
    let mut rest = code;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        if rest.starts_with('#') {
            // An attribute belongs to the item behind it.
            let mut depth = 0usize;
            let end = rest.char_indices().find(|&(_, c)| {
                depth = if c == '[' { depth + 1 } else { depth.saturating_sub(usize::from(c == ']')) };
                c == ']' && depth == 0
            });
            rest = &rest[end.map_or(rest.len(), |(at, _)| at + 1)..];
            continue;
        }
        let item = &rest[..item_end(rest)];
        let words = item.split(|c: char| c.is_whitespace() || "({<;".contains(c));
        let visibility = |word: &&str| word.is_empty() || word.starts_with("pub") || word.ends_with(')');
        let words: Vec<&str> = words.skip_while(visibility).filter(|word| !word.is_empty()).collect();
        // `const fn` defines a function, `const F: fn()` a constant.
        let names_only = match words[..] {
            ["use" | "mod" | "static", ..] | [] => true,
            ["const", second, ..] => second != "fn",
            _ => false,
        };
        if let Some(at) = words.iter().position(|word| KINDS.contains(word))
            && !names_only
        {
            found.push(format!("{} {}", words[at], words.get(at + 1).unwrap_or(&"")));
        }
        rest = &rest[item.len()..];
    }
}

#[test]
fn lib_rs_defines_nothing() {
    let mut defined = Vec::new();
    for member in libraries() {
        let file = member.folder.join("src/lib.rs");
        let (code, _) = without_tests(&std::fs::read_to_string(&file).unwrap());
        for item in definitions(&code) {
            if !LIB_EXCEPTIONS.iter().any(|(name, excepted, _)| *name == member.name && *excepted == item) {
                defined.push(format!("{}: {item}", file.display()));
            }
        }
    }
    assert!(
        defined.is_empty(),
        "lib.rs declares modules and re-exports; move these to a module, or list them in LIB_EXCEPTIONS:\n{}",
        defined.join("\n")
    );
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let source = r####"
//! println!("doc")
/* dbg!(1) /* nested */ print!() */
fn a<'a>(x: &'a str) -> char { let _ = ("println!(\"\")", r#"eprintln!("#, b'"'); '\'' }
#[cfg(test)]
mod tests { fn b() { println!("{}", '}'); } }
#[cfg(test)]
#[path = "other.rs"]
mod more;
pub use x::{y, z};
#[derive(Debug)]
pub struct S<T>(T);
pub async fn c() { eprint!("here") }
impl S<u8> {}
"####;
    let (code, modules) = without_tests(source);
    assert_eq!(
        calls(&code, &["println!", "eprint!", "dbg!"]),
        [(13, "pub async fn c() { eprint!(      ) }".to_string())]
    );
    assert_eq!(modules, ["more"]);
    assert_eq!(definitions(&code), ["fn a", "struct S", "fn c", "impl S"]);
    let tests = [(PathBuf::from("src/kernel"), "bounds_test".to_string())];
    assert!(is_test_file(Path::new("src/kernel/bounds_test.rs"), &tests));
    assert!(is_test_file(Path::new("src/kernel/bounds_test/page.rs"), &tests));
    assert!(!is_test_file(Path::new("src/kernel/bounds.rs"), &tests));
}
