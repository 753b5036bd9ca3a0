//! What is saved comes back, in every type, for any shape.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use tensor_files::{SafetensorsFile, save_safetensors};

proptest! {
    #[test]
    fn any_shape_any_type(shape in prop::collection::vec(0usize..5, 0..4), seed in any::<u32>()) {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((seed.wrapping_add(i as u32 * 37) % 251) as f32) / 8.0).collect();
        let base = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let types = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U32, DType::U8];
        let tensors: Vec<(String, Tensor)> =
            types.iter().map(|&d| (format!("{d:?}"), base.to_dtype(d).unwrap())).collect();
        save_safetensors(&path, &tensors, Some([("k".to_string(), "v".to_string())].into())).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        prop_assert_eq!(file.metadata(), [("k".to_string(), "v".to_string())].into());
        for (name, saved) in &tensors {
            let loaded = file.load(name).unwrap();
            prop_assert_eq!(loaded.dims(), saved.dims());
            prop_assert_eq!(loaded.dtype(), saved.dtype());
            let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            prop_assert_eq!(flat(&loaded), flat(saved));
        }
    }
}
