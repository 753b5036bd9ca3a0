use std::fmt;
use std::path::PathBuf;

/// Something about opened files that changes or limits what the SAE computes and is no error: programs print it.
///
/// [`SaeMetadata::notes`](crate::SaeMetadata::notes) holds those of an opened SAE. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
#[non_exhaustive]
pub enum OpenNote {
    /// Training multiplied activations by this factor; it was folded into the weights.
    NormFactorFolded {
        /// The factor.
        factor: f32,
        /// The file that names it; `None`: the caller gave it.
        path: Option<PathBuf>,
    },
    /// A file names a factor that was not applied: the caller gave another, or the configuration says that there is none.
    NormFactorUnused {
        /// The file.
        path: PathBuf,
        /// The factor in it.
        factor: f32,
        /// Why it was not applied.
        reason: &'static str,
    },
    /// Training whitened activations; the whitening was folded into the weights.
    WhiteningFolded {
        /// The file that holds it.
        path: PathBuf,
    },
    /// A file that is not needed to compute the SAE could not be used; the SAE was opened without it.
    FileSkipped {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Keys of a configuration that have no known meaning and were ignored because the caller named them.
    KeysIgnored {
        /// The file.
        path: PathBuf,
        /// The keys, in the order of the alphabet.
        keys: Vec<String>,
    },
}

impl fmt::Display for OpenNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NormFactorFolded { factor, path: Some(path) } => {
                write!(f, "norm factor {factor} of {} folded into the weights", path.display())
            }
            Self::NormFactorFolded { factor, path: None } => {
                write!(f, "norm factor {factor} (given) folded into the weights")
            }
            Self::NormFactorUnused { path, factor, reason } => {
                write!(f, "norm factor {factor} of {} not applied: {reason}", path.display())
            }
            Self::WhiteningFolded { path } => write!(f, "whitening of {} folded into the weights", path.display()),
            Self::FileSkipped { path, reason } => write!(f, "opened without {}: {reason}", path.display()),
            Self::KeysIgnored { path, keys } => {
                write!(f, "keys of {} ignored as named: {}", path.display(), keys.join(", "))
            }
        }
    }
}
