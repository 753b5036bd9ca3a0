//! From patterns to a sorted list of files.

use super::files::{KNOWN, by_name};
use crate::{Error, Result};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Files that the `datasets` library keeps beside the data: of a folder they are not read.
const BESIDE_THE_DATA: [&str; 5] =
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
/// How many files of other kinds a message names.
const SHOWN: usize = 8;

/// The files that the patterns name: sorted, each once however it was named.
pub(super) fn expand(patterns: &[&Path]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        match pattern.to_str() {
            // A file whose name happens to hold a wildcard is meant literally.
            Some(text) if text.contains(['*', '?', '[']) && !pattern.exists() => matching(text, &mut files)?,
            _ if pattern.is_dir() => inside(pattern, &mut files)?,
            _ => files.push(pattern.to_path_buf()),
        }
    }
    if files.is_empty() {
        return Err(Error::NothingMatches { pattern: "(no pattern)".into() });
    }
    files.sort();
    let mut seen = HashSet::new();
    let mut unique = Vec::with_capacity(files.len());
    for path in files {
        // Before its path is resolved, which a shell's `/dev/fd/63` has none to offer.
        if !std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?.is_file() {
            return Err(Error::NotAFile { path });
        }
        let real = path.canonicalize().map_err(|source| Error::Io { path: path.clone(), source })?;
        if seen.insert(real) {
            unique.push(path);
        }
    }
    Ok(unique)
}

/// As in a shell, a wildcard matches no hidden file or folder (`._x.jsonl` of macOS, `.ipynb_checkpoints`) unless the pattern names the dot.
struct Hidden(Vec<glob::Pattern>);

impl Hidden {
    fn of(pattern: &str) -> Self {
        let named = pattern.split(['/', std::path::MAIN_SEPARATOR]).filter(|part| part.starts_with('.'));
        Self(named.filter_map(|part| glob::Pattern::new(part).ok()).collect())
    }

    fn passes_over(&self, path: &Path) -> bool {
        path.components().any(|part| match part {
            std::path::Component::Normal(name) => {
                is_hidden(name) && !self.0.iter().any(|named| named.matches(&name.to_string_lossy()))
            }
            _ => false,
        })
    }
}

fn matching(pattern: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |e: glob::PatternError| Error::Pattern { pattern: pattern.into(), reason: e.to_string() };
    let before = files.len();
    let hidden = Hidden::of(pattern);
    for found in glob::glob(pattern).map_err(wrong)? {
        let path = found.map_err(|e| Error::Io { path: e.path().to_path_buf(), source: e.into() })?;
        if path.is_file() && !hidden.passes_over(&path) {
            files.push(path);
        }
    }
    if files.len() == before { Err(Error::NothingMatches { pattern: pattern.into() }) } else { Ok(()) }
}

fn is_hidden(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

/// The files in a folder and in the folders below it whose names say that they are read, as the `datasets` library takes a folder: nothing
/// hidden, no folders whose names begin with `__`, no results that the library has cached. Links to files are followed, links to folders
/// are not.
fn inside(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let before = files.len();
    let mut others = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let io = |source| Error::Io { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            if entry.file_type().map_err(io)?.is_dir() {
                if !name.to_string_lossy().starts_with("__") {
                    open.push(entry.path());
                }
            } else if entry.path().is_file() {
                if is_data(&name) { files.push(entry.path()) } else { others.push(entry.path()) }
            }
        }
    }
    if files.len() > before {
        return Ok(());
    }
    others.sort();
    let below = |path: &PathBuf| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let mut found: Vec<String> = others.iter().take(SHOWN).map(below).collect();
    if others.len() > SHOWN {
        found.push(format!("{} more", others.len() - SHOWN));
    }
    let found = if found.is_empty() { "no files".into() } else { found.join(", ") };
    Err(Error::NoTextInFolder { path: folder.to_path_buf(), expected: KNOWN, found })
}

fn is_data(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    let cached = text.starts_with("cache-") && text.ends_with(".arrow");
    by_name(Path::new(name)).is_some() && !cached && !BESIDE_THE_DATA.contains(&text.as_ref())
}
