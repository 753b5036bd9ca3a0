//! The examples as programs: each with a standard output that nobody reads, and with flags that cannot work. `cargo test --test examples -- WORD` runs the
//! cases whose name has the word.
//!
//! This test is its own example: called under the name of one, it is that one.

#![allow(dead_code, clippy::duplicate_mod)] // Each example has a copy of `examples/common` and uses a part of it.

#[path = "../examples/capture.rs"]
mod capture;
#[path = "../examples/census.rs"]
mod census;
#[path = "../examples/encode.rs"]
mod encode;
#[path = "../examples/evaluate_sae.rs"]
mod evaluate_sae;
#[path = "../examples/export.rs"]
mod export;
#[path = "../examples/generate.rs"]
mod generate;
#[path = "../examples/logit_lens.rs"]
mod logit_lens;
#[path = "../examples/pretrained.rs"]
mod pretrained_saes;
#[path = "../examples/steer.rs"]
mod steer;
#[path = "../examples/top_activations.rs"]
mod top_activations;
#[path = "../examples/tour.rs"]
mod tour;

#[cfg(unix)]
#[path = "support/sae_flags.rs"]
mod sae_flags;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// An example by its name.
type Example = (&'static str, fn() -> ExitCode);

/// Every example.
const EXAMPLES: [Example; 11] = [
    ("capture", capture::main),
    ("census", census::main),
    ("encode", encode::main),
    ("evaluate_sae", evaluate_sae::main),
    ("export", export::main),
    ("generate", generate::main),
    ("logit_lens", logit_lens::main),
    ("pretrained", pretrained_saes::main),
    ("steer", steer::main),
    ("top_activations", top_activations::main),
    ("tour", tour::main),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    if let Some((_, example)) = EXAMPLES.iter().find(|(example, _)| *example == name) {
        return example();
    }
    // Examples are called by a name of their own, which only Unix gives a program.
    #[cfg(unix)]
    {
        let word = args.filter_map(|arg| arg.into_string().ok()).find(|arg| !arg.starts_with('-')).unwrap_or_default();
        let cases: [(&str, fn()); 6] = [
            ("every_example_prints_by_the_one_writer", every_example_prints_by_the_one_writer),
            ("nobody_reads_standard_output", nobody_reads_standard_output),
            ("a_full_disk_behind_standard_output_is_said", a_full_disk_behind_standard_output_is_said),
            ("flags_that_cannot_work", flags_that_cannot_work),
            ("text_that_is_too_short", text_that_is_too_short),
            ("flags_of_an_sae", sae_flags::flags_of_an_sae),
        ];
        for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(&word)) {
            println!("case {name} ...");
            case();
        }
    }
    ExitCode::SUCCESS
}

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo");

/// An empty folder of a case.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("examples").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The demo's first documents: some rows of 128 tokens.
fn text(folder: &Path) -> String {
    let all = std::fs::read_to_string(Path::new(DEMO).join("text.jsonl")).unwrap();
    let path = folder.join("text.jsonl");
    std::fs::write(&path, all.lines().take(6).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A run of an example that has ended.
struct Ended {
    code: Option<i32>,
    stderr: String,
}

#[cfg(unix)]
fn run(example: &str, args: &[&str], stdout: Stdio) -> Ended {
    run_with(example, args, stdout, &[])
}

/// A run in an environment with these variables; one that is set to nothing is taken away.
#[cfg(unix)]
fn run_with(example: &str, args: &[&str], stdout: Stdio, environment: &[(&str, &Path)]) -> Ended {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg0(example).args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    for (name, value) in environment {
        if value.as_os_str().is_empty() {
            command.env_remove(name)
        } else {
            command.env(name, value)
        };
    }
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // A panic ends with a code that no case expects.
    Ended { code: output.status.code(), stderr }
}

/// A pipe whose reader is gone before the first word.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Whoever prints by `println!` ends in a panic where nobody reads.
fn every_example_prints_by_the_one_writer() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&entry).unwrap();
                for word in ["println!", "print!", "eprint", "dbg!", "io::stdout", "io::stderr"] {
                    let allowed = entry.ends_with("common/out.rs") && word.starts_with("io::");
                    assert!(allowed || !source.contains(word), "{}: {word}", entry.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= EXAMPLES.len());
}

#[cfg(unix)]
fn nobody_reads_standard_output() {
    let out = folder("closed");
    let text = text(&out);
    let at = |name: &str| out.join(name).to_str().unwrap().to_owned();
    let text = ["--text", &text];
    let whole = |example: &str, args: &[&str], files: &[&str]| {
        let ended = run(example, args, closed());
        assert_eq!(ended.code, Some(0), "{example} {args:?}:\n{}", ended.stderr);
        for file in files {
            let bytes = std::fs::read(out.join(file)).unwrap_or_else(|e| panic!("{example}: {file}: {e}"));
            assert!(!bytes.is_empty(), "{example}: {file} is empty");
            assert!(!file.ends_with(".html") || bytes.trim_ascii_end().ends_with(b"</html>"), "{example}: {file}");
        }
    };
    let hooks = "blocks.2.hook_resid_pre";
    whole(
        "capture",
        &["--hooks", hooks, "--text", "On Monday", "--out", &at("acts.safetensors")],
        &["acts.safetensors"],
    );
    let encode = ["--input", &at("acts.safetensors"), "--key", hooks, "--out", &at("codes.safetensors")];
    whole("encode", &encode, &["codes.safetensors"]);
    let census = ["--no-preflight", "--out", &at("census")];
    whole("census", &[&text[..], &census].concat(), &["census/census.parquet", "census/census.html"]);
    let evaluation = ["--resamples", "10", "--rows", "4", "--json", &at("evaluation.json")];
    whole("evaluate_sae", &[&text[..], &evaluation].concat(), &["evaluation.json", "evaluation.html"]);
    let export = ["--format", "delphi", "--rows", "4", "--hookpoint", "hook", "--out", &at("latents")];
    whole("export", &[&text[..], &export].concat(), &["latents/hook/config.json"]);
    whole("generate", &["--bos", "--max-new-tokens", "4"], &[]);
    whole("logit_lens", &["--features", "767"], &[]);
    whole("pretrained", &["search", "gpt2", "layer", "7"], &[]);
    whole("pretrained", &["show", "gpt2-small-res-jb", "blocks.7.hook_resid_pre"], &[]);
    whole("steer", &["--strengths=0,10", "--page", &at("steer.html")], &["steer.html"]);
    let top = ["--batches", "1", "--out", &at("top.html")];
    whole("top_activations", &[&text[..], &top].concat(), &["top.html"]);
    let tour =
        ["--batches", "1", "--family-batches", "1", "--features", "random:20", "--no-preflight", "--out", &at("tour")];
    whole("tour", &[&text[..], &tour].concat(), &["tour/tour.html", "tour/examples.parquet"]);
}

/// What cannot be printed for another reason is an error at the end.
#[cfg(unix)]
fn a_full_disk_behind_standard_output_is_said() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let ended = run("logit_lens", &["--features", "767"], full.into());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("standard output"), "{}", ended.stderr);
}

/// Each is refused in words: with exit code 2 where the flag alone is wrong, with 1 where it does not fit what was loaded.
#[cfg(unix)]
fn flags_that_cannot_work() {
    let out = folder("flags");
    let text = text(&out);
    let at = |name: &str| out.join(name).to_str().unwrap().to_owned();
    std::fs::write(out.join("file"), "a file, no folder").unwrap();
    for (name, json) in [("none", "[]"), ("empty", "[[]]"), ("ragged", "[[1],[2,3]]"), ("outside", "[[999999]]")] {
        std::fs::write(out.join(format!("{name}.json")), json).unwrap();
    }
    let wrong = std::cell::RefCell::new(Vec::new());
    let bad = |example: &str, args: &[&str], code: i32, says: &str| {
        let Ended { code: found, stderr } = run(example, args, Stdio::null());
        if found != Some(code) || !stderr.contains("error: ") || !stderr.contains(says) {
            let call = format!("{example} {}", args.join(" "));
            wrong.borrow_mut().push(format!("{call}\n  {found:?}, expected {code} and `{says}`:\n  {stderr}"));
        }
    };
    let (unwritable, missing) = (at("file/below"), at("missing"));
    let hooks = "blocks.2.hook_resid_pre";

    // Prompts without tokens.
    bad("generate", &["--prompt", ""], 1, "prompt");
    bad("capture", &["--hooks", hooks, "--text", "", "--out", &at("o")], 1, "empty");
    bad("steer", &["--follow", "", "--strengths=0", "--page", &at("o")], 1, "--follow is empty");

    // Features, rows, batches, tokens and strengths that are none.
    let text = ["--text", text.as_str()];
    let with_text = |args: &[&'static str]| [&text[..], args].concat();
    bad("logit_lens", &["--features", "999999"], 1, "999999");
    bad("logit_lens", &["--features", ""], 2, "feature numbers");
    bad("logit_lens", &["--features", "random:0"], 1, "0 features");
    bad("top_activations", &with_text(&["--feature", "999999", "--batches", "1"]), 1, "999999");
    bad("steer", &["--feature", "999999", "--page", &at("o")], 1, "999999");
    bad("evaluate_sae", &["--rows", "0"], 2, "0 is not in");
    bad("evaluate_sae", &with_text(&["--batch", "0"]), 1, "batch_size_prompts");
    bad("evaluate_sae", &with_text(&["--context", "0"]), 1, "context_size");
    bad("evaluate_sae", &with_text(&["--context", "100000"]), 1, "context");
    bad("export", &[&text[..], &["--format", "delphi", "--rows", "0", "--out", &at("o")]].concat(), 2, "0 is not in");
    bad("export", &[&text[..], &["--format", "delphi", "--splits", "0", "--out", &at("o")]].concat(), 1, "n_splits");
    bad(
        "export",
        &[&text[..], &["--format", "neuronpedia", "--rows", "0", "--out", &at("o")]].concat(),
        2,
        "0 is not in",
    );
    bad("tour", &["--batches", "0"], 2, "0 is not in");
    bad("tour", &["--family-batches", "0"], 2, "0 is not in");
    bad("top_activations", &["--batches", "0"], 2, "0 is not in");
    bad("census", &["--tokens", "0"], 2, "0 is not in");
    let census = ["--no-preflight", "--out"];
    bad("census", &[&text[..], &["--batch", "0"], &census, &[&at("o")]].concat(), 1, "store_batch_size_prompts");
    bad("census", &[&text[..], &["--context", "0"], &census, &[&at("o")]].concat(), 1, "context_size");
    bad("evaluate_sae", &with_text(&["--rows", "20", "--resamples", "4294967295"]), 1, "resamples");
    bad("steer", &["--strengths="], 2, "strengths");
    bad("steer", &["--strengths=1e300", "--page", &at("o")], 1, "1e300");
    bad("steer", &["--strengths=nan", "--page", &at("o")], 1, "finite");
    bad("steer", &["--strengths=1,inf", "--page", &at("o")], 1, "finite");
    bad("generate", &["--temperature", "nan"], 1, "temperature");
    bad("generate", &["--temperature", "-1"], 2, "");
    bad("generate", &["--temperature=-1"], 1, "temperature");
    bad("generate", &["--temperature", "1", "--top-k", "0"], 1, "top_k");
    bad("generate", &["--temperature", "1", "--top-p", "nan"], 1, "top_p");
    bad("generate", &["--threads", "0"], 1, "--threads");
    bad("generate", &["--threads", "99999999"], 1, "--threads");
    bad("tour", &["--seed", "-1"], 2, "");

    // Numbers that ask for more than there is get what there is.
    let all = run("top_activations", &with_text(&["--batches", "1", "--top", "99999999999"]), Stdio::null());
    assert_eq!(all.code, Some(0), "{}", all.stderr);

    // The demo's SAE was trained behind BOS: a prompt of nothing else is one token.
    let tour = ["--prompt", "", "--batches", "1", "--family-batches", "1", "--no-preflight", "--out", &at("tour")];
    let empty = run("tour", &[&text[..], &tour].concat(), Stdio::null());
    assert_eq!(empty.code, Some(0), "{}", empty.stderr);

    // SAEs of random weights.
    let random = |spec: &'static str, says: &str| bad("logit_lens", &["--sae", spec, "--features", "0"], 1, says);
    random("random:0@blocks.1.hook_resid_pre", "random:0@");
    random("random:99999999999999999999@blocks.1.hook_resid_pre", "random:D_SAE@HOOK");
    random("random:18446744073709551615@blocks.1.hook_resid_pre", "random:18446744073709551615@");
    random("random:16@blocks.99.hook_resid_pre", "blocks.99.hook_resid_pre");
    random("random:16@blocks.1.attn.hook_pattern", "hook_pattern");

    // Files that are not there, that are no files, and places where none can be written.
    bad("capture", &["--model", &missing, "--hooks", hooks, "--text", "a", "--out", &at("o")], 1, "missing");
    bad("logit_lens", &["--sae", &missing], 1, "missing");
    bad("tour", &["--text", &missing, "--out", &at("o")], 1, "missing");
    bad("encode", &["--input", &missing, "--key", "x", "--out", &at("o")], 1, "missing");
    bad("encode", &["--input", DEMO, "--key", "x", "--out", &at("o")], 1, "demo");
    bad("capture", &["--hooks", "", "--text", "a", "--out", &at("o")], 1, "hook");
    bad("capture", &["--hooks", "blocks.1.nonsense", "--text", "a", "--out", &at("o")], 1, "blocks.1.nonsense");
    for (ids, says) in
        [("none", "row"), ("empty", "token"), ("ragged", "row"), ("outside", "999999"), ("absent", "absent")]
    {
        let ids = at(&format!("{ids}.json"));
        bad("capture", &["--hooks", hooks, "--token-ids", &ids, "--out", &at("o")], 1, says);
    }
    bad("capture", &["--hooks", hooks, "--text", "a", "--out", &unwritable], 1, "below");
    bad("steer", &["--strengths=0", "--page", &unwritable], 1, "below");
    bad("census", &[&text[..], &census, &[&unwritable]].concat(), 1, "below");
    bad("export", &[&text[..], &["--format", "delphi", "--out", &unwritable]].concat(), 1, "below");
    bad("export", &[&text[..], &["--format", "saelens", "--out", &unwritable]].concat(), 1, "below");
    bad("evaluate_sae", &[&text[..], &["--rows", "1", "--json", &unwritable]].concat(), 1, "below");
    bad("top_activations", &[&text[..], &["--batches", "1", "--out", &unwritable]].concat(), 1, "below");
    let tour = ["--batches", "1", "--family-batches", "1", "--no-preflight", "--out", &unwritable];
    bad("tour", &[&text[..], &tour].concat(), 1, "below");
    bad("pretrained", &["show", "no-such-release"], 1, "no-such-release");
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow().join("\n"));
    assert!(!out.join("o").exists(), "a run that failed wrote something");
}

/// A text of no row, of nothing, and of blanks: said, not divided by.
#[cfg(unix)]
fn text_that_is_too_short() {
    let out = folder("short");
    let at = |name: &str| out.join(name).to_str().unwrap().to_owned();
    for (name, content) in [("nothing.txt", ""), ("blank.txt", " \n "), ("short.txt", "On Monday")] {
        std::fs::write(out.join(name), content).unwrap();
        let text = ["--text", &at(name)];
        for (example, more) in [
            ("tour", vec!["--out".to_owned(), at("tour")]),
            ("census", vec!["--out".to_owned(), at("census")]),
            ("evaluate_sae", vec!["--json".to_owned(), at("evaluation.json")]),
            ("export", vec!["--format".to_owned(), "delphi".to_owned(), "--out".to_owned(), at("latents")]),
        ] {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let ended = run(example, &[&text[..], &more].concat(), Stdio::null());
            assert_eq!(ended.code, Some(1), "{example} on {name}:\n{}", ended.stderr);
            assert!(ended.stderr.contains("error: "), "{example} on {name}:\n{}", ended.stderr);
        }
    }
}
