//! A safetensors file, all of it.

use crate::harness;
use tensor_files::{SafetensorsFile, TensorFile};

pub fn read(data: &[u8]) {
    let Ok(file) = SafetensorsFile::open(harness::file("input.safetensors", data)) else { return };
    let _ = file.metadata();
    for name in file.names() {
        let shape = TensorFile::shape(&file, &name).expect("a tensor that is listed");
        let _ = file.load(&name);
        let _ = TensorFile::load_f32_shaped(&file, &name, &shape);
    }
}
