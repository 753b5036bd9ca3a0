use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of a tensor file; each with the path, the expected and the found value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not of the format: truncated, overlapping offsets, an oversized header ...
    #[error("{path}: not a valid {format} file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format that it should be of: `safetensors`, `npz`, `PyTorch`.
        format: &'static str,
        /// The reason.
        reason: String,
    },
    /// A pickle asks for more than plain values and tensors. It is not run, and nothing of it is kept.
    #[error("{path}: {part} names {what} at byte {at}; only plain values and tensors are read, and nothing is run")]
    ForbiddenPickle {
        /// The file.
        path: PathBuf,
        /// The pickle inside the file.
        part: String,
        /// Offset in the pickle.
        at: u64,
        /// The class, the function or the opcode.
        what: String,
    },
    /// A tensor that must be there is not.
    #[error("{path}: tensor `{name}` is missing; the file holds {held}")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor that was asked for.
        name: String,
        /// The names in the file, shortened.
        held: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{path}: tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape implied by the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot be used here.
    #[error("{path}: tensor `{name}` holds {found}, expected {expected}")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The types that are accepted.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("{path}: tensor `{name}` holds {value} at element {index}; weights must be finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The first bad value.
        value: f32,
        /// Its flat index.
        index: usize,
    },
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Whether a tensor was simply absent: callers with optional tensors branch on this.
    #[must_use]
    pub fn is_missing_tensor(&self) -> bool {
        matches!(self, Self::MissingTensor { .. })
    }

    pub(crate) fn missing(path: &Path, name: &str, names: &[String]) -> Self {
        let mut held = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > 12 {
            held.push_str(&format!(", ... ({} in all)", names.len()));
        }
        Self::MissingTensor { path: path.into(), name: name.into(), held }
    }

    pub(crate) fn shape(path: &Path, name: &str, expected: &[usize], found: &[usize]) -> Self {
        Self::Shape { path: path.into(), name: name.into(), expected: expected.into(), found: found.into() }
    }
}
