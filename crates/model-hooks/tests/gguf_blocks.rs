//! Every tensor type expands to the bits that the Python `gguf` package gives (`golden/gguf`, `tools/goldens/golden_gguf.py`).

mod gguf_support;

use gguf_support::golden;
use model_hooks::gguf::{GgufFile, TensorType, dequantize};
use tensor_files::SafetensorsFile;

#[test]
fn every_type_expands_to_the_reference_bit_for_bit() {
    let file = GgufFile::open(golden("gguf/blocks.gguf")).unwrap();
    let expected = SafetensorsFile::open(golden("gguf/blocks.safetensors")).unwrap();
    assert_eq!(file.version(), 3);
    let mut seen = Vec::new();
    for (name, tensor) in file.tensors() {
        assert_eq!(tensor.kind.to_string(), name);
        seen.push(tensor.kind);
        let (got, want) = (file.load_f32(name).unwrap(), expected.load(name).unwrap());
        assert_eq!(got.dims(), want.dims(), "{name}");
        let bits = |t: candle_core::Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(got), bits(want), "{name}");
    }
    assert!(TensorType::ALL.iter().all(|t| seen.contains(t)), "a type has no fixture: {seen:?}");
}

#[test]
fn the_fixture_has_tiny_values_and_both_zeros() {
    let expected = SafetensorsFile::open(golden("gguf/blocks.safetensors")).unwrap();
    for kind in TensorType::ALL {
        let values: Vec<f32> = expected.load(&kind.to_string()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().any(|v| *v != 0.0 && v.abs() < 1e-4), "{kind} has no tiny value");
        if kind.block_len() == 1 {
            assert!(values.iter().any(|v| v.to_bits() == 0x8000_0000), "{kind} has no negative zero");
        }
    }
}

#[test]
fn many_blocks_expand_as_one_does() {
    // More than one task's worth, so that the parallel split is exercised; the last is not full.
    for kind in TensorType::ALL {
        let size = kind.block_bytes();
        let block: Vec<u8> = (0..size).map(|i| (i * 37 % 120) as u8).collect();
        let one = dequantize(kind, &block);
        assert_eq!(one.len(), kind.block_len());
        let many = dequantize(kind, &block.repeat(5000));
        assert!(many.chunks_exact(one.len()).all(|chunk| chunk == one), "{kind}");
        assert_eq!(many.len(), 5000 * one.len());
    }
}

#[test]
fn shapes_are_slowest_dimension_first_and_checked() {
    let file = GgufFile::open(golden("gguf/blocks.gguf")).unwrap();
    assert_eq!(file.tensor("F32").unwrap().shape, [2, 3, 16]);
    assert!(file.load_f32_shaped("F32", &[2, 3, 16]).is_ok());
    let wrong = file.load_f32_shaped("F32", &[16, 3, 2]).unwrap_err().to_string();
    assert!(wrong.contains("`F32` has shape [2, 3, 16], expected [16, 3, 2]"), "{wrong}");
    let missing = file.load_f32("F33").unwrap_err().to_string();
    assert!(missing.contains("`F33` is missing; the file holds BF16"), "{missing}");
}
