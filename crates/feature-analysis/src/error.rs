use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between activations and what people look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor or slice has another shape than the call needs.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which argument.
        what: &'static str,
        /// The shape in words, e.g. `[n, d]`.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A value that must be finite is NaN or infinite.
    #[error("{what} holds {value} at row {row}, column {column}; every value must be finite")]
    NotFinite {
        /// Which argument.
        what: &'static str,
        /// The value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A PCA of fewer than two rows: a variance needs two.
    #[error("a PCA needs at least 2 rows, found {rows}")]
    TooFewRows {
        /// Rows given.
        rows: usize,
    },
    /// A PCA with no components, or with more than the data can have.
    #[error("{asked} components asked of {rows} rows x {columns} columns; possible: 1 to {}", rows.min(columns))]
    Components {
        /// Components asked for.
        asked: usize,
        /// Rows given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// A component that the points do not have.
    #[error("component {component} of points with {components}, counted from 0")]
    ComponentRange {
        /// The component.
        component: usize,
        /// How many there are.
        components: usize,
    },
    /// An eigensolver gave an answer that its certificate refutes.
    #[error(
        "component {component} of the PCA fails its certificate: \
         |X'Xv - s^2 v| is {residual:e} of s1^2, allowed {allowed:e}"
    )]
    Uncertified {
        /// The component.
        component: usize,
        /// Its residual relative to the largest eigenvalue.
        residual: f64,
        /// The tolerance.
        allowed: f64,
    },
    /// The eigensolver gave up.
    #[error("the eigensolver did not converge on a symmetric {size} x {size} matrix")]
    NoConvergence {
        /// Side of the matrix.
        size: usize,
    },
    /// More features than there are, or none.
    #[error("{asked} features asked of an SAE of {d_sae}; possible: 1 to {d_sae}")]
    FeatureCount {
        /// How many were asked for.
        asked: usize,
        /// Number of features of the SAE.
        d_sae: usize,
    },
    /// A family of words none of which is a token.
    #[error("none of {words:?} is a single token of this tokenizer, with or without a space before it")]
    NoWordIsAToken {
        /// The words.
        words: Vec<String>,
    },
    /// A feature that is not among those that were collected.
    #[error("feature {feature} was not collected; collected were {collected:?}")]
    NotCollected {
        /// The feature.
        feature: u32,
        /// The collected features.
        collected: Vec<u32>,
    },
    /// An activation whose address has another token in the text at hand than in the text on which it was measured.
    #[error(
        "at row and position {at} the activation was measured on token {expected}, but this text has {}: it is another text, or its rows are \
         packed in another way; open the store with the files, context size, BOS rule, separator and tokenizer of the run that measured it",
        found.map_or("no token".to_owned(), |token| format!("token {token}"))
    )]
    OtherText {
        /// The address.
        at: activation_store::TokenPos,
        /// The token on which the activation was measured.
        expected: u32,
        /// The token at the address now, if there is one.
        found: Option<u32>,
    },
    /// An option has a value that makes no sense.
    #[error("option `{option}` is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The parts do not fit together: widths of model and SAE, say.
    #[error("{left} is {left_size}, but {right} is {right_size}; they must be equal")]
    SizeMismatch {
        /// One side.
        left: &'static str,
        /// Its size.
        left_size: usize,
        /// The other side.
        right: &'static str,
        /// Its size.
        right_size: usize,
    },
    /// A census refused.
    #[error(transparent)]
    Census(Box<feature_census::Error>),
    /// An SAE inside a forward pass refused; what its model, SAE, filter or tensors refused is [`Error::Model`], [`Error::Sae`], [`Error::Store`] or
    /// [`Error::Tensor`].
    #[error(transparent)]
    Hooks(Box<sae_hooks::Error>),
    /// An evaluation refused.
    #[error(transparent)]
    Eval(#[from] crate::evals::EvalError),
    /// An export refused.
    #[error(transparent)]
    Export(Box<crate::export::ExportError>),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written under its name.
    #[error(transparent)]
    Files(#[from] tensor_files::Error),
    /// The columnar library refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The Parquet writer refused.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The SAE refused. (The house's own errors are boxed: they are several times as large as all the others.)
    #[error(transparent)]
    Sae(Box<sae_core::Error>),
    /// The activation store refused.
    #[error(transparent)]
    Store(Box<activation_store::Error>),
    /// The model refused.
    #[error(transparent)]
    Model(Box<model_hooks::Error>),
    /// The kernels refused.
    #[error(transparent)]
    Kernels(#[from] tensor_kernels::Error),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<sae_core::Error> for Error {
    fn from(error: sae_core::Error) -> Self {
        Self::Sae(Box::new(error))
    }
}

impl From<feature_census::Error> for Error {
    fn from(error: feature_census::Error) -> Self {
        Self::Census(Box::new(error))
    }
}

impl From<crate::export::ExportError> for Error {
    fn from(error: crate::export::ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<sae_hooks::Error> for Error {
    fn from(error: sae_hooks::Error) -> Self {
        match error {
            sae_hooks::Error::Model(error) => Self::Model(error),
            sae_hooks::Error::Sae(error) => Self::Sae(error),
            sae_hooks::Error::Store(error) => Self::Store(error),
            sae_hooks::Error::Tensor(error) => Self::Tensor(error),
            error => Self::Hooks(Box::new(error)),
        }
    }
}

impl From<activation_store::Error> for Error {
    fn from(error: activation_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<model_hooks::Error> for Error {
    fn from(error: model_hooks::Error) -> Self {
        Self::Model(Box::new(error))
    }
}
