//! What the fuzz targets and the replay tests (`crates/*/tests/fuzz_corpus.rs`) share: the bound on memory, and a folder for
//! inputs, because readers take paths.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tensor_kernels::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What reading may take whatever the input, and what it may take for each of its bytes.
const MOST_FREE: u64 = 16 << 20;
const MOST_EACH: u64 = 64;

/// Keeps other tests of the binary waiting: what they allocate counts too, and they share the folder.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads an input; panics when that takes more memory than `16 MiB + 64 n`.
pub fn bounded(data: &[u8], read: impl FnOnce(&[u8])) {
    let before = CountingAllocator::live_bytes();
    CountingAllocator::reset_peak();
    read(data);
    let taken = CountingAllocator::peak_bytes().saturating_sub(before);
    let most = MOST_FREE + MOST_EACH * data.len() as u64;
    assert!(taken <= most, "an input of {} bytes took {taken} bytes of memory, allowed are {most}", data.len());
}

/// Lets the reader under test catch panics of the crates below it, without a line for each. Others still end the target.
pub fn panics_can_be_caught() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or("", |at| at.file());
        if !["/parquet-", "/arrow-", "/tokenizers-"].iter().any(|name| at.contains(name)) {
            eprintln!("{panic}");
        }
    }));
}

/// The parts of an input that stands for several files: the first bytes of value 0 separate them.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// A folder of this process, in memory where the system has such a thing.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        root.join(format!("saescope-fuzz-{}", std::process::id()))
    });
    fs::create_dir_all(folder).expect("a folder for inputs");
    folder
}

/// Writes an input as a file of the folder.
pub fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, data).expect("an input is written");
    path
}

/// As [`file`], where empty means that there is none.
pub fn file_if_any(name: &str, data: &[u8]) {
    let path = folder().join(name);
    if data.is_empty() {
        let _ = fs::remove_file(path);
    } else {
        file(name, data);
    }
}

/// Reads every input of a target that is kept: a sample of what fuzzing reached, and what was once found.
pub fn replay(target: &str, read: fn(&[u8])) {
    let _alone = alone();
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs: Vec<PathBuf> = ["seeds", "findings"]
        .iter()
        .filter_map(|kind| fs::read_dir(fuzz.join(kind).join(target)).ok())
        .flatten()
        .map(|entry| entry.expect("an entry of the corpus").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "there are no inputs for {target}");
    panics_can_be_caught();
    let failed: Vec<String> = inputs
        .iter()
        .filter(|path| {
            let data = fs::read(path).expect("an input of the corpus");
            std::panic::catch_unwind(|| bounded(&data, read)).is_err()
        })
        .map(|path| path.display().to_string())
        .collect();
    let _ = fs::remove_dir_all(folder());
    assert!(failed.is_empty(), "{} of {} inputs fail: {failed:#?}", failed.len(), inputs.len());
}
