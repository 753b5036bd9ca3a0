//! A file of `torch.save`, zipped or not: its values, and every tensor.

use crate::harness;
use tensor_files::{TensorFile, TorchFile, Value, open_tensors};

pub fn read(data: &[u8]) {
    let path = harness::file("input.pt", data);
    let _ = open_tensors(&path);
    let Ok(file) = TorchFile::open(&path) else { return };
    let names = file.names();
    assert_eq!(tensors(file.values()), names.len(), "tensors in the tree and by name");
    for name in names {
        let shape = file.shape(&name).expect("a tensor that is listed");
        let _ = file.read_f32(&name, &shape);
        let _ = file.read_i64(&name, &shape);
    }
}

fn tensors(value: &Value) -> usize {
    match value {
        Value::Tensor(_) => 1,
        Value::Dict(pairs) => pairs.iter().map(|(_, value)| tensors(value)).sum(),
        other => other.items().unwrap_or_default().iter().map(tensors).sum(),
    }
}
