//! A folder in a pattern's place: which of its files are read.

use super::support::{Folder, options, refused, texts};
use activation_store::Documents;

#[test]
fn a_folder_is_its_files() {
    let dir = Folder::new();
    for (name, text) in [
        ("train/b.jsonl", "{\"text\": \"b\"}"),
        ("train/deep/er/a.txt", "a"),
        ("z.json", "[{\"text\": \"z\"}]"),
        // What is beside the data, and what other programs leave.
        ("README.md", "no text"),
        ("LICENSE", "no text"),
        ("dataset_info.json", "{\"features\": {}}"),
        ("train/state.json", "{\"_fingerprint\": \"1\"}"),
        ("dataset_dict.json", "{\"splits\": [\"train\"]}"),
        ("config.json", "{}"),
        (".cache/c.jsonl", "{\"text\": \"hidden\"}"),
        ("train/._b.jsonl", "\0\u{5}"),
        ("__pycache__/d.txt", "d"),
        ("train/cache-0123456789abcdef.arrow", "no text"),
    ] {
        dir.file(name, text);
    }
    let at = |name: &str| dir.path().join(name);
    let expected = [at("train/b.jsonl"), at("train/deep/er/a.txt"), at("z.json")];
    let documents = Documents::open(&[dir.path()], options()).unwrap();
    assert_eq!(documents.files(), expected);
    let found = texts(&[dir.path()], options()).unwrap();
    assert_eq!(found, [(0, 0, "b".into()), (1, 0, "a".into()), (2, 0, "z".into())]);
    // With a slash at the end, and beside a file in it: each file once.
    let slash = format!("{}/", dir.path().display());
    let documents = Documents::open(&[slash, expected[0].display().to_string()], options()).unwrap();
    assert_eq!(documents.files().len(), 3);
    // A file that a folder passes over is read where it is named.
    assert!(refused(&[at("config.json")], options()).contains("config.json, line 1: has no field"));
    // A wildcard matches files alone.
    assert!(refused(&[at("tr*")], options()).contains("matches no file"));
}

#[test]
fn a_folder_without_text() {
    let dir = Folder::new();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let error = refused(&[dir.path().join("empty")], options());
    assert!(
        error.contains("empty: a folder without a file that is read") && error.contains("it holds no files"),
        "{error}"
    );
    for i in 0..12 {
        dir.file(&format!("tables/{i:02}.csv"), "a,b");
    }
    let error = refused(&[dir.path().to_path_buf()], options());
    for words in [".txt, .jsonl", ".parquet", "it holds tables/00.csv, tables/01.csv", "tables/07.csv, 4 more"] {
        assert!(error.contains(words), "{error}");
    }
}

/// Files of the hub's cache are links; a folder may hold a link to itself.
#[cfg(unix)]
#[test]
fn links_in_a_folder() {
    let dir = Folder::new();
    let blob = dir.file("blobs/0123", "{\"text\": \"linked\"}");
    std::fs::create_dir(dir.path().join("snapshot")).unwrap();
    let at = |name: &str| dir.path().join("snapshot").join(name);
    std::os::unix::fs::symlink(blob, at("train.jsonl")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("snapshot"), at("again")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("nowhere"), at("broken.jsonl")).unwrap();
    assert_eq!(texts(&[dir.path().join("snapshot")], options()).unwrap(), [(0, 0, "linked".into())]);
    // The folder itself may be a link.
    std::os::unix::fs::symlink(dir.path().join("snapshot"), dir.path().join("link")).unwrap();
    assert_eq!(texts(&[dir.path().join("link")], options()).unwrap(), [(0, 0, "linked".into())]);
}

/// Text is read again to identify it and to start over, which a pipe cannot offer.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_text() {
    let dir = Folder::new();
    let pipe = dir.path().join("x.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe, "/dev/null".into()] {
        let error = refused(&[&path], options());
        assert!(error.contains(&path.display().to_string()) && error.contains("not a regular file"), "{error}");
    }
}
