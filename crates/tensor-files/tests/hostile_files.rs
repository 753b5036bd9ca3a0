//! Every file of `hostile/` against the verdict of its index, with the memory that each takes; and good files, cut and damaged.

use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tensor_files::{Error, NpzFile, TensorFile, TorchFile, open_tensors};
use tensor_kernels::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The allocator counts for the whole program: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What no hostile file, whatever it claims, may make a reader take.
const MOST: u64 = 16 << 20;

/// What something gives, and the most memory that it took at a time.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let before = CountingAllocator::live_bytes();
    CountingAllocator::reset_peak();
    let given = run();
    (given, CountingAllocator::peak_bytes().saturating_sub(before))
}

fn hostile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

fn index() -> Map<String, Json> {
    serde_json::from_str(&std::fs::read_to_string(hostile().join("index.json")).unwrap()).unwrap()
}

/// Opens a file by its name and reads every tensor of it. NaN and infinity are found in the values, so that the tensor was read.
fn read_all(path: &Path) -> Result<Vec<(String, Vec<usize>)>, Error> {
    let file: Box<dyn TensorFile> = match path.extension().unwrap().to_str().unwrap() {
        "npz" => Box::new(NpzFile::open(path)?),
        _ => Box::new(TorchFile::open(path)?),
    };
    let mut found = Vec::new();
    for name in file.names() {
        let shape = file.shape(&name).unwrap();
        match file.read_f32(&name, &shape) {
            Err(Error::Dtype { .. }) => drop(file.read_i64(&name, &shape)?),
            Ok(_) | Err(Error::NotFinite { .. }) => {}
            Err(other) => return Err(other),
        }
        found.push((name, shape));
    }
    Ok(found)
}

fn holds(about: &Json) -> Vec<(String, Vec<usize>)> {
    let size = |n: &Json| n.as_u64().unwrap() as usize;
    let shape = |shape: &Json| shape.as_array().unwrap().iter().map(size).collect();
    about["holds"]
        .as_object()
        .map(|held| held.iter().map(|(name, s)| (name.clone(), shape(s))).collect())
        .unwrap_or_default()
}

#[test]
fn every_hostile_file_comes_to_its_verdict_in_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    let index = index();
    assert!(index.len() >= 172);
    for (name, about) in &index {
        let path = hostile().join(name);
        let (result, peak) = peak_of(|| read_all(&path));
        let (by_magic, peak_by_magic) = peak_of(|| open_tensors(&path).map(|file| file.names().len()));
        if peak.max(peak_by_magic) > MOST {
            wrong.push(format!("{name}: {peak} bytes of memory"));
        }
        let sorted = |mut held: Vec<(String, Vec<usize>)>| {
            held.sort();
            held
        };
        match (about["verdict"].as_str().unwrap(), &result) {
            ("refuse" | "either", Err(error)) => {
                let text = error.to_string();
                let word = about["word"].as_str().unwrap_or_default();
                if !text.contains(word) || text.len() > 2000 {
                    wrong.push(format!("{name}: `{text}` does not name `{word}`, or is long"));
                }
            }
            ("read" | "either", Ok(held)) => {
                if by_magic.is_err() && name != "pt/first_byte_wrong.pt" && !name.contains("bytes_before") {
                    wrong.push(format!("{name}: by its first bytes {by_magic:?}"));
                }
                if about["holds"].is_object() && sorted(held.clone()) != sorted(holds(about)) {
                    wrong.push(format!("{name}: holds {held:?}"));
                }
            }
            (verdict, found) => wrong.push(format!("{name} ({verdict}, {}): {found:?}", about["why"])),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The good files among them: those that are read.
fn good() -> Vec<PathBuf> {
    index().iter().filter(|(_, about)| about["verdict"] == "read").map(|(name, _)| hostile().join(name)).collect()
}

#[test]
fn good_files_cut_or_damaged_anywhere_are_errors_or_values_and_never_large() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for path in good() {
        let bytes = std::fs::read(&path).unwrap();
        let copy = dir.path().join(path.file_name().unwrap());
        for round in 0..150 {
            let mut made = bytes.clone();
            if round % 3 == 0 {
                made.truncate(random(bytes.len()));
            }
            for _ in 0..round % 3 {
                let at = random(bytes.len());
                made[at] = if random(2) == 0 { random(256) as u8 } else { made[at] ^ 1 << random(8) };
            }
            std::fs::write(&copy, &made).unwrap();
            let (result, peak) = peak_of(|| read_all(&copy));
            assert!(peak <= MOST, "{}: {peak} bytes in round {round}", path.display());
            // A file that is cut has lost its directory: it must not be read.
            assert!(round % 3 != 0 || result.is_err(), "{}: cut to {} and read", path.display(), made.len());
        }
    }
}
