//! A numpy archive, all of it.

use crate::harness;
use tensor_files::{NpzFile, TensorFile, open_tensors};

pub fn read(data: &[u8]) {
    let path = harness::file("input.npz", data);
    let _ = open_tensors(&path);
    let Ok(file) = NpzFile::open(&path) else { return };
    for name in file.names() {
        let shape = file.shape(&name).expect("an array that is listed");
        assert!(file.descr(&name).is_some());
        let _ = file.read_f32(&name, &shape);
        let _ = file.read_i64(&name, &shape);
    }
}
