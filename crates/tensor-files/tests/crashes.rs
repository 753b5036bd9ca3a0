//! Operations on files and folders, with the process ending at each of their steps: the old state or the new one, and the same call ends well afterwards.

mod crash;

use crash::{at_every_step, names};
use std::io::Write;
use std::path::Path;
use tensor_files::{AtomicFolder, Dtype, Error, remove_folder, rename_durably, stream_safetensors, write_atomically};

const OWN: [&str; 3] = ["key", "values", "extra"];

fn write(path: &Path, text: &str) {
    let io = |source| Error::Io { path: path.into(), source };
    write_atomically::<Error>(path, |file| file.write_all(text.as_bytes()).map_err(io)).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn put(folder: &Path, files: &[(&str, &str)]) {
    std::fs::create_dir_all(folder).unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
}

#[test]
fn a_file_is_old_or_new() {
    let operation = |dir: &Path| write(&dir.join("x"), "new");
    at_every_step(
        "a_file_is_old_or_new",
        |dir| std::fs::write(dir.join("x"), "old").unwrap(),
        operation,
        |dir, finished| {
            assert!(read(dir.join("x")) == "new" || !finished && read(dir.join("x")) == "old");
            operation(dir);
            assert_eq!((read(dir.join("x")), names(dir)), ("new".into(), vec!["x".to_string()]));
        },
    );
}

#[test]
fn a_file_in_new_folders() {
    let operation = |dir: &Path| write(&dir.join("a/b/x"), "new");
    at_every_step(
        "a_file_in_new_folders",
        |_| {},
        operation,
        |dir, _| {
            let path = dir.join("a/b/x");
            assert!(!path.exists() || read(&path) == "new");
            operation(dir);
            assert_eq!((read(path), names(&dir.join("a/b"))), ("new".into(), vec!["x".to_string()]));
        },
    );
}

#[test]
fn a_stream_of_tensors() {
    let operation = |dir: &Path| {
        let path = dir.join("x");
        let io = |source| Error::Io { path: path.clone(), source };
        let fill = |out: &mut dyn Write| out.write_all(&[1, 2, 3]).map_err(io);
        stream_safetensors::<Error>(&path, &[("a", Dtype::U8, vec![3])], fill).unwrap();
    };
    let value = |dir: &Path| tensor_files::SafetensorsFile::open(dir.join("x")).unwrap().read_i64("a", &[3]).unwrap();
    at_every_step(
        "a_stream_of_tensors",
        |_| {},
        operation,
        |dir, finished| {
            assert!(dir.join("x").exists() || !finished);
            if dir.join("x").exists() {
                assert_eq!(value(dir), [1, 2, 3]);
            }
            operation(dir);
            assert_eq!((value(dir), names(dir)), (vec![1, 2, 3], vec!["x".to_string()]));
        },
    );
}

#[test]
fn a_renamed_file() {
    at_every_step(
        "a_renamed_file",
        |dir| put(dir, &[("from", "new"), ("to", "old")]),
        |dir| rename_durably(&dir.join("from"), &dir.join("to")).unwrap(),
        |dir, finished| match read(dir.join("to")).as_str() {
            "new" => assert!(!dir.join("from").exists()),
            found => assert!(found == "old" && !finished),
        },
    );
}

#[test]
fn a_folder_appears() {
    let operation = |dir: &Path| {
        let target = dir.join("out");
        if !target.exists() {
            let folder = AtomicFolder::create(&target).unwrap();
            write(&folder.path().join("a"), "a");
            put(&folder.path().join("deeper"), &[("b", "b")]);
            folder.finish().unwrap();
        }
    };
    let whole = |dir: &Path| read(dir.join("out/a")) + &read(dir.join("out/deeper/b")) == "ab";
    at_every_step(
        "a_folder_appears",
        |_| {},
        operation,
        |dir, finished| {
            let there = dir.join("out").exists();
            assert!(if there { whole(dir) } else { !finished });
            operation(dir);
            assert!(whole(dir));
            if !there {
                assert_eq!(names(dir), ["out"]);
            }
        },
    );
}

/// Replaces `out`, where `extra` is in the old folder alone.
fn replace(dir: &Path) {
    let folder = AtomicFolder::create(&dir.join("out")).unwrap();
    put(folder.path(), &[("key", "new"), ("values", "new")]);
    folder.replace(&OWN).unwrap();
}

#[test]
fn a_folder_is_old_or_new() {
    at_every_step(
        "a_folder_is_old_or_new",
        |dir| put(&dir.join("out"), &[("key", "old"), ("values", "old"), ("extra", "old"), ("README.md", "mine")]),
        replace,
        |dir, finished| {
            let out = dir.join("out");
            let state = [read(out.join("key")), read(out.join("values")), out.join("extra").exists().to_string()];
            assert!(state == ["new", "new", "false"] || !finished && state == ["old", "old", "true"], "{state:?}");
            assert_eq!(read(out.join("README.md")), "mine");
            replace(dir);
            assert_eq!((read(out.join("key")), read(out.join("values"))), ("new".into(), "new".into()));
            assert_eq!(
                (names(dir), names(&out)),
                (vec!["out".into()], vec!["README.md".into(), "key".into(), "values".into()])
            );
        },
    );
}

#[test]
fn a_folder_with_folders_is_old_or_new_or_refused() {
    at_every_step(
        "a_folder_with_folders_is_old_or_new_or_refused",
        |dir| {
            put(&dir.join("out"), &[("key", "old"), ("values", "old"), ("extra", "old")]);
            put(&dir.join("out/other"), &[("x", "mine")]);
        },
        replace,
        |dir, finished| {
            let out = dir.join("out");
            if out.join("key").exists() {
                let state = [read(out.join("key")), read(out.join("values"))];
                assert!(state == ["new", "new"] || !finished && state == ["old", "old"], "{state:?}");
            }
            replace(dir);
            assert_eq!((read(out.join("key")), read(out.join("values"))), ("new".into(), "new".into()));
            assert_eq!(read(out.join("other/x")), "mine");
            assert_eq!(
                (names(dir), names(&out)),
                (vec!["out".into()], vec!["key".into(), "other".into(), "values".into()])
            );
        },
    );
}

#[test]
fn a_folder_disappears() {
    let operation = |dir: &Path| remove_folder(&dir.join("out")).unwrap();
    at_every_step(
        "a_folder_disappears",
        |dir| {
            put(&dir.join("out"), &[("a", "a"), ("b", "b")]);
            put(&dir.join("out/deeper"), &[("c", "c")]);
        },
        operation,
        |dir, finished| {
            if dir.join("out").exists() {
                assert!(!finished && names(&dir.join("out")) == ["a", "b", "deeper"]);
                operation(dir);
            }
            tensor_files::remove_stale_partials(dir);
            assert_eq!(names(dir), Vec::<String>::new());
        },
    );
}

#[test]
fn what_is_in_use_or_of_others_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = AtomicFolder::create(&dir.path().join("out")).unwrap();
    put(folder.path(), &[("a", "a")]);
    put(dir.path(), &[(".partial-out-notours", ""), (".partial", ""), (".partial-out-abc123", "stale")]);
    // Another one of the same name, and a sweep over all names.
    let other = AtomicFolder::create(&dir.path().join("out")).unwrap();
    assert!(!dir.path().join(".partial-out-abc123").exists());
    tensor_files::remove_stale_partials(dir.path());
    assert!(dir.path().join(".partial-out-notours").exists() && dir.path().join(".partial").exists());
    assert_eq!(read(folder.path().join("a")), "a");
    drop(other);
    folder.finish().unwrap();
    assert_eq!(read(dir.path().join("out/a")), "a");
}

#[test]
fn long_names_have_room() {
    let dir = tempfile::tempdir().unwrap();
    let name = "é".repeat(127);
    write(&dir.path().join(&name), "new");
    assert_eq!(names(dir.path()), [name]);
}
