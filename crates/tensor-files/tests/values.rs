//! What numpy and torch wrote comes back, value by value. The files and what they hold: `hostile/index.json`.

use std::path::{Path, PathBuf};
use tensor_files::{NpzFile, TensorFile, TorchFile, Value, open_tensors};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(name)
}

fn counted(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

fn floats(file: &dyn TensorFile, name: &str) -> Vec<f32> {
    file.read_f32(name, &file.shape(name).unwrap()).unwrap()
}

fn whole(file: &dyn TensorFile, name: &str) -> Vec<i64> {
    file.read_i64(name, &file.shape(name).unwrap()).unwrap()
}

#[test]
fn orders_of_bytes_and_of_rows_and_compression() {
    for (name, arrays) in [
        ("npz/read_stored.npz", &[("w", 24)][..]),
        ("npz/read_deflated.npz", &[("w", 24), ("v", 6)]),
        ("npz/read_fortran_order.npz", &[("w", 24)]),
        ("npz/read_big_endian.npz", &[("w", 24), ("v", 24)]),
    ] {
        let npz = NpzFile::open(file(name)).unwrap();
        assert_eq!(npz.names().len(), arrays.len());
        for &(array, n) in arrays {
            assert_eq!(floats(&npz, array), counted(n), "{name}: {array}");
        }
    }
    let npz = NpzFile::open(file("npz/read_shapes.npz")).unwrap();
    assert_eq!(npz.read_f32("scalar", &[]).unwrap(), [3.5]);
    assert_eq!(npz.read_f32("empty", &[0, 5]).unwrap(), [0f32; 0]);
    for name in ["pt/read_protocol_3.pt", "pt/read_protocol_4.pt", "pt/read_protocol_5.pt", "pt/legacy_without_zip.pt"]
    {
        assert_eq!(floats(&TorchFile::open(file(name)).unwrap(), "w"), counted(24), "{name}");
    }
    assert_eq!(floats(&TorchFile::open(file("pt/big_endian.pt")).unwrap(), "w"), counted(16));
}

#[test]
fn every_type() {
    let (npz, pt) =
        (NpzFile::open(file("npz/read_types.npz")).unwrap(), TorchFile::open(file("pt/read_types.pt")).unwrap());
    for file in [&npz as &dyn TensorFile, &pt] {
        for name in file.names() {
            match name.as_str() {
                "bool" => assert_eq!(whole(file, &name), [0, 1, 1, 1]),
                name if name.contains('f') => assert_eq!(floats(file, name), counted(4), "{name}"),
                name => {
                    assert_eq!(whole(file, name), [0, 1, 2, 3], "{name}");
                    let error = file.read_f32(name, &[4]).unwrap_err().to_string();
                    assert!(error.contains("expected") && error.contains(name), "{error}");
                }
            }
        }
    }
    assert!(pt.read_i64("f32", &[4]).unwrap_err().to_string().contains("holds F32"));
    assert_eq!(npz.descr("float16"), Some("<f2"));
}

#[test]
fn views_of_one_storage() {
    let file = TorchFile::open(file("pt/read_views.pt")).unwrap();
    let all = counted(24);
    let at = |i: usize, j: usize| all[6 * i + j];
    let transposed: Vec<f32> = (0..6).flat_map(|j| (0..4).map(move |i| (i, j))).map(|(i, j)| at(i, j)).collect();
    assert_eq!(floats(&file, "all"), all);
    assert_eq!(floats(&file, "transposed"), transposed);
    assert_eq!(floats(&file, "corner"), [8., 9., 10., 14., 15., 16.]);
    assert_eq!(floats(&file, "column"), [1., 7., 13., 19.]);
    assert_eq!(floats(&file, "one"), [5.]);
    assert_eq!(floats(&file, "empty"), [0f32; 0]);
    assert_eq!(floats(&file, "expanded"), [0.; 3]);
}

#[test]
fn values_that_are_no_tensors() {
    let file = TorchFile::open(file("pt/read_tree.pt")).unwrap();
    let values = file.values();
    let get = |key: &str| values.get(key).unwrap();
    assert_eq!(floats(&file, "model.w"), counted(24));
    assert_eq!(get("model").get("w"), Some(&Value::Tensor("model.w".into())));
    assert_eq!(get("step").as_i64(), Some(7));
    assert_eq!(get("big").as_i64(), Some(1 << 40));
    assert_eq!(get("lr").as_f64(), Some(0.5));
    assert_eq!(get("name").as_str(), Some("x"));
    assert_eq!(get("none"), &Value::None);
    assert_eq!(get("yes").as_bool(), Some(true));
    assert_eq!(get("shape"), &Value::Tuple(vec![Value::Int(1), Value::Int(2)]));
    assert_eq!(get("several").items().unwrap()[2], Value::Tuple(vec![Value::Float(3.0)]));
    assert_eq!(get("bytes"), &Value::Bytes(b"ab".to_vec()));
}

/// The formats of published SAEs: as torch and numpy wrote them, each opens by its first bytes and all its tensors are read.
#[test]
fn files_of_published_formats() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-core/tests/golden/dialects");
    let mut waiting = vec![root];
    let mut read = 0;
    while let Some(folder) = waiting.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                waiting.push(path);
            } else if ["npz", "pt", "pth", "safetensors"].contains(&ending.as_str()) {
                let file = open_tensors(&path).unwrap_or_else(|e| panic!("{e}"));
                for name in file.names() {
                    let shape = file.shape(&name).unwrap();
                    let values = file.read_f32(&name, &shape).map(|v| v.len());
                    let values = values.or_else(|_| file.read_i64(&name, &shape).map(|v| v.len()));
                    assert_eq!(
                        values.unwrap_or_else(|e| panic!("{e}")),
                        shape.iter().product::<usize>(),
                        "{path:?}: {name}"
                    );
                }
                read += 1;
            }
        }
    }
    assert!(read > 60, "{read} files");
}
