//! One operation in child processes that end at its first file step, at its second, and so on.

use std::path::Path;
use std::process::Command;
use tensor_files::crash_points;

const FOLDER: &str = "SAESCOPE_CRASH_FOLDER";
const STEP: &str = "SAESCOPE_CRASH_STEP";
/// More steps than any operation here has.
const MOST_STEPS: u64 = 500;

/// Runs `operation` on a folder that `prepare` fills, in a process of its own that ends at step 1, 2, ... until one gets to the end; calls `check` after each with
/// the folder and whether the operation was finished. `test` is the name of the test that calls this: the child runs it again.
pub fn at_every_step(
    test: &str,
    prepare: impl Fn(&Path),
    operation: impl Fn(&Path),
    mut check: impl FnMut(&Path, bool),
) {
    if let Ok(folder) = std::env::var(FOLDER) {
        crash_points::exit_at(std::env::var(STEP).unwrap().parse().unwrap());
        operation(Path::new(&folder));
        return;
    }
    for step in 1..MOST_STEPS {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test]).env(FOLDER, dir.path()).env(STEP, step.to_string());
        let output = child.output().unwrap();
        let said = || [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        let finished = match output.status.code() {
            Some(0) => true,
            Some(crash_points::EXIT_STATUS) => false,
            _ => panic!("step {step}: the child ended with {}: {}", output.status, said()),
        };
        assert!(!finished || said().contains("1 passed"), "no test is called {test}: {}", said());
        check(dir.path(), finished);
        if finished {
            assert!(step > 3, "the operation has {} steps: is it the right one?", step - 1);
            return;
        }
    }
    panic!("more than {MOST_STEPS} steps");
}

/// The names of what lies in a folder, sorted; half-written things among them.
#[allow(dead_code, reason = "each test file uses its own part")]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
