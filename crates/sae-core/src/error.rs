use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of an SAE, its codes or its files; each with the expected and the found value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A configuration file is not JSON, or not an object.
    #[error("{path}: not a JSON object: {reason}")]
    NotJson {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// A configuration file is not YAML, or not a mapping, or larger than what is read.
    #[error("{path}: not a YAML mapping: {reason}")]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// A configuration key that must be there is not.
    #[error("{path}: key `{key}` is missing, expected {expected}")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A configuration key holds something that cannot be used.
    #[error("{path}: key `{key}` is {found}, expected {expected}")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected value.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// A current configuration holds keys that no known version writes, which could change what the SAE computes.
    #[error(
        "{path}: unknown keys {keys:?}; they could change what the SAE computes, so they must be named in `LoadOptions::ignore_keys` (`--ignore-keys` of the examples) to be ignored"
    )]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// The keys, in the order of the alphabet.
        keys: Vec<String>,
    },
    /// An architecture that this version does not compute.
    #[error("{path}: architecture `{found}` is not supported; supported are {supported}")]
    UnsupportedArchitecture {
        /// The file.
        path: PathBuf,
        /// The architecture in the file.
        found: String,
        /// The architectures that can be loaded.
        supported: String,
    },
    /// A folder that holds another kind of dictionary than an [`Sae`](crate::Sae).
    #[error("{path}: architecture `{found}` is no `Sae`, it is a type of its own: open it with `Dictionary::load`")]
    NotAnSae {
        /// The folder.
        path: PathBuf,
        /// Its architecture.
        found: &'static str,
    },
    /// Files that look like no format that can be read.
    #[error("{path}: {held}, which looks like no format that can be read; if you know the format, name it as `format`")]
    UnknownDialect {
        /// The folder or file.
        path: PathBuf,
        /// A description of the files found.
        held: String,
    },
    /// The weights file holds tensors that the architecture does not have.
    #[error("{path}: tensors {names:?} do not belong to architecture `{architecture}`")]
    UnknownTensors {
        /// The file.
        path: PathBuf,
        /// The tensors, in the order of the alphabet.
        names: Vec<String>,
        /// The architecture that the configuration names.
        architecture: String,
    },
    /// A `scaling_factor` that is not all ones, while the configuration does not say that it is a fine-tuned decoder scale.
    #[error(
        "{path}: tensor `scaling_factor` is {found} at element {index}, expected 1 everywhere unless cfg.json says `finetuning_scaling_factor: true`"
    )]
    ScalingFactor {
        /// The weights file.
        path: PathBuf,
        /// The first value that is not one.
        found: f32,
        /// Its index.
        index: usize,
    },
    /// A tensor file could not be read or written, or holds something else than the configuration implies.
    #[error(transparent)]
    File(#[from] tensor_files::Error),
    /// The SAE cannot be expressed in the format that was asked for.
    #[error("cannot be saved as a SAELens folder: {what}")]
    CannotSave {
        /// The property that the format cannot hold.
        what: &'static str,
    },
    /// A weight has another shape than the others imply.
    #[error("`{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The weight.
        name: &'static str,
        /// The expected shape.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A weight or an input holds NaN or infinity.
    #[error("`{name}` holds {value} at row {row}, column {column}; it must be finite")]
    NotFinite {
        /// Name of the weight or input.
        name: &'static str,
        /// The first such value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A parameter is outside its range.
    #[error("`{name}` is {found}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its range.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// The input's last dimensions are not those of the SAE.
    #[error("input has shape {found:?}, expected {expected}")]
    InputShape {
        /// The shapes that this SAE takes.
        expected: String,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// The input has an element type that is not floating point.
    #[error("input holds {found:?}, expected a floating-point type")]
    InputType {
        /// The type that was given.
        found: candle_core::DType,
    },
    /// A feature that the SAE does not have.
    #[error("feature {feature} is outside this SAE, whose features are 0..{d_sae}")]
    FeatureOutOfRange {
        /// The feature that was asked for.
        feature: u32,
        /// The number of features.
        d_sae: usize,
    },
    /// A list of features without any.
    #[error("no features given; at least one of 0..{d_sae} is needed")]
    NoFeatures {
        /// The number of features of the SAE.
        d_sae: usize,
    },
    /// A feature named twice in one list.
    #[error("feature {feature} is listed twice, at places {first} and {second}")]
    FeatureTwice {
        /// The feature.
        feature: u32,
        /// Its first place in the list.
        first: usize,
        /// Its second place.
        second: usize,
    },
    /// Sparse features that break an invariant of the format.
    #[error("not valid sparse features: {reason}")]
    Sparse {
        /// The invariant that is broken, and where.
        reason: String,
    },
    /// Codes that do not fit this SAE.
    #[error("codes do not fit this SAE: {what} is {found}, expected {expected}")]
    CodesMismatch {
        /// The property that does not fit.
        what: &'static str,
        /// The SAE's value.
        expected: String,
        /// The codes' value.
        found: String,
    },
    /// A fold that would change what the SAE computes.
    #[error("{fold} would change what this SAE computes: {reason}")]
    CannotFold {
        /// The fold.
        fold: &'static str,
        /// Why it is not a mere rewriting.
        reason: &'static str,
    },
    /// Training multiplied activations by a factor that is neither in the weights nor known.
    #[error(
        "this SAE reads activations multiplied by a norm factor (`normalize_activations: expected_average_only_in`), and that factor is not known; \
         SAELens writes it to `activation_scaler.json` beside the weights (`scaling_factor`), the table of releases has it for published SAEs \
         (open them by release and name), and sqrt(d_in) / (mean norm of the activations) estimates it; give it as \
         `OpenOptions::norm_scaling_factor` or to `fold_norm_factor` (`--norm-factor` of the examples), 1 for activations as they are"
    )]
    NormFactorMissing,
    /// Training multiplied activations by a factor that the files do not hold; the table of releases alone does.
    #[error(
        "{path}: the norm factor of this SAE is not in its files, only in the table of releases: open it by name, release `{release}`, \
         with `pretrained::sae`, or give the factor as `OpenOptions::norm_scaling_factor` (`--norm-factor` of the examples), 1 for \
         activations as they are"
    )]
    NormFactorOfRelease {
        /// The configuration of the files.
        path: PathBuf,
        /// The release of the table that lists it.
        release: &'static str,
    },
    /// A file that changes what the SAE computes cannot be used.
    #[error("{path}: {reason}; it changes what the SAE computes, expected {expected}")]
    BadAuxiliary {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
        /// The expected contents, or the option that replaces them.
        expected: &'static str,
    },
    /// Pre-activations of a coder that does not show them.
    #[error("this coder does not show its pre-activations (it does not implement `SparseCoder::pre_acts`)")]
    NoPreActs,
    /// Metadata that the caller needs and the SAE lacks.
    #[error("the SAE's metadata has no `{key}`")]
    MissingMetadata {
        /// The key.
        key: &'static str,
    },
    /// The exact weights are needed, and this SAE holds them rounded.
    #[error(
        "{purpose} needs the exact weights, but this SAE holds W_enc packed and rounded for {engine}; load it with `LoadOptions {{ engine: Engine::Reference, .. }}` (or with kernels of precision f32)"
    )]
    RoundedWeights {
        /// The operation that needs them.
        purpose: &'static str,
        /// The engine that they are packed for.
        engine: tensor_kernels::Engine,
    },
    /// The kernels refused.
    #[error(transparent)]
    Kernels(#[from] tensor_kernels::Error),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
