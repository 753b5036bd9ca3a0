use crate::{Result, SafetensorsFile};
use candle_core::{Device, Tensor};
use std::path::Path;

/// A file of named tensors, independent of its format.
///
/// Nothing is trusted: shapes are compared before memory is taken, and NaN or infinity in floats is an error.
pub trait TensorFile: Send + Sync {
    /// The file's path.
    fn path(&self) -> &Path;

    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, if the file holds it.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The values of a floating-point tensor, widened or narrowed to f32, row after row.
    ///
    /// # Errors
    /// [`Error::MissingTensor`](crate::Error::MissingTensor), [`Error::Shape`](crate::Error::Shape) unless it is `expected`,
    /// [`Error::Dtype`](crate::Error::Dtype) for integers, [`Error::NotFinite`](crate::Error::NotFinite), [`Error::Io`](crate::Error::Io).
    fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>>;

    /// The values of a tensor of whole numbers or truth values (0 and 1), row after row.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32); [`Error::Dtype`](crate::Error::Dtype) for floats.
    fn read_i64(&self, name: &str, expected: &[usize]) -> Result<Vec<i64>>;

    /// Whether the file holds a tensor of this name.
    fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// As [`read_f32`](Self::read_f32), as a tensor on the CPU.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32).
    fn load_f32_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.read_f32(name, expected)?, expected, &Device::Cpu)?)
    }
}

impl TensorFile for SafetensorsFile {
    fn path(&self) -> &Path {
        self.path()
    }

    fn names(&self) -> Vec<String> {
        self.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|info| info.shape.clone())
    }

    fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        self.read_f32(name, expected)
    }

    fn read_i64(&self, name: &str, expected: &[usize]) -> Result<Vec<i64>> {
        self.read_i64(name, expected)
    }
}
