use crate::{HookPoint, HookSelector};
use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of loading and running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A hook point's name is not one of TransformerLens'.
    #[error("unknown hook point `{name}`; nearest: {}", nearest.join(", "))]
    UnknownHookName {
        /// The name as given.
        name: String,
        /// The nearest known names.
        nearest: Vec<String>,
    },
    /// A known hook point that this model does not have.
    #[error("this model has no hook point `{point}`; nearest: {}", nearest.join(", "))]
    UnknownHookPoint {
        /// The point that was asked for.
        point: HookPoint,
        /// The nearest points that the model has.
        nearest: Vec<String>,
    },
    /// The name of a module in Hugging Face's words whose output is a hook point in some families only.
    #[error("`{name}` is the output of a module: {reason}")]
    ModuleName {
        /// The name as given.
        name: String,
        /// Why it is no hook point, and what to do.
        reason: String,
    },
    /// A hook point without one row for each position.
    #[error(
        "`{point}` has axes [{}], expected one vector for each position: [batch, pos, d] or [batch, pos, head, d]",
        point.axes().join(", ")
    )]
    NotRows {
        /// The hook point.
        point: HookPoint,
    },
    /// A head of a value that has no heads, or not so many.
    #[error("`{point}` has no head {head}; it has {}", match heads { 0 => "no heads".into(), n => format!("{n} heads") })]
    NoSuchHead {
        /// The hook point.
        point: HookPoint,
        /// The head that was asked for.
        head: usize,
        /// The number of heads.
        heads: usize,
    },
    /// Directions at a hook point from which no linear map leads to the residual stream.
    #[error("directions at `{at}` have no linear map to the residual stream: {reason}")]
    NotWritten {
        /// The hook point, or one head of it.
        at: HookSelector,
        /// Why there is none, and what can be used instead.
        reason: &'static str,
    },
    /// A model that does not give a weight that is needed.
    #[error("this model does not expose {what}")]
    NotExposed {
        /// The weight, and the method of `HookedModel` that would give it.
        what: &'static str,
    },
    /// A tapped point that comes after the last point of the run, so it would never fire.
    #[error("hook point `{point}` comes after `{last}`, where this run stops")]
    PointAfterLast {
        /// The tapped point.
        point: HookPoint,
        /// The last point of the run.
        last: HookPoint,
    },
    /// A tapped (or last) point that comes before the start of the run, so it would never fire.
    #[error("hook point `{point}` comes before `{start}`, where this run starts")]
    PointBeforeStart {
        /// The tapped point.
        point: HookPoint,
        /// The first point of the run.
        start: HookPoint,
    },
    /// An edit gave back a tensor of another shape or type.
    #[error("the edit at `{point}` returned {found}, expected {expected}")]
    EditChangedShape {
        /// The hook point.
        point: HookPoint,
        /// Shape and type that went in.
        expected: String,
        /// Shape and type that came back.
        found: String,
    },
    /// The norm before attention and an input of single heads, both edited in one run: there each head has a norm of its own.
    #[error(
        "`{point}` and `{input}` cannot be edited in one run: each head then has a norm of its own, which has no hook point"
    )]
    SplitNorm {
        /// The point in the norm.
        point: HookPoint,
        /// The input.
        input: HookPoint,
    },
    /// The tensor of an edit does not fit the value.
    #[error("{op} at `{point}`: the tensor has shape {found:?}, expected {expected}")]
    EditShape {
        /// The hook point.
        point: HookPoint,
        /// The operation of the edit.
        op: &'static str,
        /// The shapes that would fit.
        expected: String,
        /// The shape as given.
        found: Vec<usize>,
    },
    /// A direction that cannot be projected out.
    #[error(
        "project out at `{point}`: a tensor {found:?} of length {length}, expected one vector of finite length greater than 0"
    )]
    EditDirection {
        /// The hook point.
        point: HookPoint,
        /// Its length.
        length: f64,
        /// Its shape.
        found: Vec<usize>,
    },
    /// An edit on numbers, where gradients are tracked.
    #[error(
        "the edit at `{point}` works on numbers, which would cut off the gradients that are tracked through it: use `Edit::map`"
    )]
    UntrackedEdit {
        /// The hook point.
        point: HookPoint,
    },
    /// An entry of a list of interventions that cannot be carried out.
    #[error("intervention {index}: {reason}")]
    BadIntervention {
        /// Its place in the list, from 0.
        index: usize,
        /// The reason, with the expected value.
        reason: String,
    },
    /// Path patching without a receiver.
    #[error("path patching needs at least one receiver")]
    NoReceivers,
    /// A row, head or position that the value at a point does not have.
    #[error("`{point}` has no {what} {index}; its shape is {shape:?}")]
    IndexOutOfRange {
        /// The hook point.
        point: HookPoint,
        /// "row", "head" or "position".
        what: &'static str,
        /// The index that was asked for.
        index: usize,
        /// The shape of the value.
        shape: Vec<usize>,
    },
    /// A value was asked of a capture that does not hold it.
    #[error("`{point}` was not captured; held: {held}")]
    NotCaptured {
        /// The point that was asked for.
        point: HookPoint,
        /// The captured points, shortened.
        held: String,
    },
    /// A user's own tap failed.
    #[error("tap at `{point}`: {source}")]
    Tap {
        /// The hook point.
        point: HookPoint,
        /// The tap's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor given by the caller has the wrong shape.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Name of the tensor.
        what: &'static str,
        /// The expected shape, in words where sizes are free.
        expected: String,
        /// The shape as given.
        found: Vec<usize>,
    },
    /// A start layer, column range or similar that lies outside the model.
    #[error("{what} {found} is out of range, expected less than {limit}")]
    OutOfRange {
        /// Name of the value.
        what: &'static str,
        /// The value as given.
        found: usize,
        /// The first value that is too large.
        limit: usize,
    },
    /// A token id that the vocabulary does not have.
    #[error("token id {id} at row {row}, position {pos} is outside the vocabulary of {d_vocab} tokens")]
    TokenOutOfVocabulary {
        /// The id.
        id: u32,
        /// Its row.
        row: usize,
        /// Its position.
        pos: usize,
        /// The size of the vocabulary.
        d_vocab: usize,
    },
    /// A run on cached keys makes a text of another length, all of whose keys this model turns by other angles (LongRoPE, dynamic scaling).
    #[error(
        "the {cached} cached keys are turned by the rotary angles of {turned_for} positions, and this model turns {pos} positions by others; empty the cache (`truncate(0)`) and run the whole text, as `generate` does"
    )]
    CachedAngles {
        /// Positions in the cache.
        cached: usize,
        /// The length of the text that they were computed in.
        turned_for: usize,
        /// Positions with those of this run.
        pos: usize,
    },
    /// More positions than the model's context.
    #[error("{pos} positions are more than the model's context of {n_ctx}")]
    ContextExceeded {
        /// Positions of the batch.
        pos: usize,
        /// The longest context.
        n_ctx: usize,
    },
    /// A model's own `run` ended without logits although no last point was given.
    #[error("the model stopped before its logits although no last hook point was given")]
    NoLogits,
    /// A batch without tokens.
    #[error("empty token batch: {rows} rows; at least one row of at least one token is needed")]
    EmptyBatch {
        /// Number of rows.
        rows: usize,
    },
    /// A batch with rows of different lengths.
    #[error(
        "row {row} has {found} tokens, expected {expected} as in row 0; `TokenBatch::padded` takes rows of different lengths"
    )]
    RaggedBatch {
        /// The first deviating row.
        row: usize,
        /// Length of row 0.
        expected: usize,
        /// Length of this row.
        found: usize,
    },
    /// A row without tokens.
    #[error("row {row} is empty; every row needs at least one token")]
    EmptyRow {
        /// The row.
        row: usize,
    },
    /// A cache that holds another number of rows.
    #[error("the cache holds {expected} rows, the batch has {found}")]
    CacheRows {
        /// Rows of the cache.
        expected: usize,
        /// Rows of the batch.
        found: usize,
    },
    /// Padding between the tokens of a row: the row was padded on the right, or has ended, and cannot go on.
    #[error(
        "row {row} has padding at column {column} and tokens behind it: its tokens must follow one another (pad prompts of \
         different lengths on the left)"
    )]
    PaddingInside {
        /// The row.
        row: usize,
        /// The first column of padding behind its tokens.
        column: usize,
    },
    /// A cache that was made for a model of another shape.
    #[error("the cache is another model's: [layers, width of keys, context] are {found:?}, expected {expected:?}")]
    CacheOfOtherModel {
        /// The model's layers, `n_kv_heads d_head`, and context.
        expected: [usize; 3],
        /// The cache's.
        found: [usize; 3],
    },
    /// A cache that was made for the same model on another engine.
    #[error(
        "the cache is of a model that {found} computes, this one is computed by {expected}: keys are held as an engine reads them"
    )]
    CacheOfOtherEngine {
        /// Engine of the model.
        expected: tensor_kernels::Engine,
        /// Engine of the cache.
        found: tensor_kernels::Engine,
    },
    /// Gradients were asked through a cache, which would cut them off at the columns before.
    #[error(
        "{what} of a cached run track gradients, which do not reach cached keys and values: run all columns uncached"
    )]
    GradientsThroughCache {
        /// The values that track gradients.
        what: &'static str,
    },
    /// A model without a generator was asked to generate.
    #[error("model `{model}` cannot generate: it has no cache of keys and values (HookedModel::generator)")]
    NotGenerating {
        /// The model's name.
        model: String,
    },
    /// Logits from which no token can be chosen.
    #[error(
        "no token can be chosen for row {row} after {index} new ones: its logits hold NaN, an infinity, or nothing but -inf"
    )]
    NoNextToken {
        /// The row.
        row: usize,
        /// Number of new tokens that it has.
        index: usize,
    },
    /// An option that makes no sense.
    #[error("{what} is {found}, expected {expected}")]
    BadOption {
        /// The option.
        what: &'static str,
        /// The accepted values.
        expected: String,
        /// The value as given.
        found: String,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A configuration is not JSON.
    #[error("{path}: not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration lacks a key that matters.
    #[error("{path}: key `{key}` is missing, expected {expected}")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected value.
        expected: String,
    },
    /// A configuration key holds something that cannot be used.
    #[error("{path}: key `{key}` is {found}, expected {expected}")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The accepted values.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// Weight tensors that this family has no place for: the model would silently be another one.
    #[error("{path}: unexpected weight tensors: {}", names.join(", "))]
    UnexpectedTensors {
        /// The file or folder.
        path: PathBuf,
        /// Their names, shortened after a dozen.
        names: Vec<String>,
    },
    /// A tensor that must be there is in none of the files.
    #[error("{path}: weight tensor `{name}` is missing; {hint}")]
    MissingWeight {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name, without the family's prefix.
        name: String,
        /// Tensors that the files hold instead.
        hint: String,
    },
    /// An index of shards that is wrong: it points outside its folder, or to a tensor that is not there.
    #[error("{path}: tensor `{name}` is mapped to `{file}`: {reason}")]
    BadIndex {
        /// The index.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The file it is mapped to.
        file: String,
        /// The reason.
        reason: &'static str,
    },
    /// A path is neither a model folder nor a model file.
    #[error("{path}: not a model: {reason}")]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// The files that were looked for.
        reason: &'static str,
    },
    /// Text was given to a model that came without a tokenizer.
    #[error(
        "model `{model}` has no tokenizer (its folder has no tokenizer.json, tokenizer.model, or vocab.json with merges.txt): give token ids instead of text"
    )]
    ModelWithoutTokenizer {
        /// The model's name.
        model: String,
    },
    /// The bytes are not a GGUF file: truncated, absurd counts, overlapping tensors ...
    #[error("{path}: not a valid GGUF file (at byte {at}): {reason}")]
    GgufMalformed {
        /// The file.
        path: PathBuf,
        /// Offset in the file.
        at: u64,
        /// The reason.
        reason: String,
    },
    /// A GGUF file is sound but holds something that is not read here.
    #[error("{path}: unsupported {what}: {found}; supported: {supported}")]
    GgufUnsupported {
        /// The file.
        path: PathBuf,
        /// The property.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values that are read.
        supported: String,
    },
    /// A tensor file is unusable.
    #[error(transparent)]
    Files(#[from] tensor_files::Error),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A folder without a tokenizer.
    #[error("no tokenizer: {path} does not exist, nor tokenizer.model, nor vocab.json with merges.txt")]
    NoTokenizer {
        /// The first of the files that it could have.
        path: PathBuf,
    },
    /// A tokenizer, or a file of its folder, is unusable.
    #[error("tokenizer{}: {reason}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Tokenizer {
        /// The file, where one is to blame.
        path: Option<PathBuf>,
        /// The reason.
        reason: String,
    },
    /// A chat template is unusable, or refuses a conversation.
    #[error("chat template{}: {reason}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    ChatTemplate {
        /// The file, where one is to blame.
        path: Option<PathBuf>,
        /// The reason.
        reason: String,
    },
    /// A BOS was asked of a tokenizer that has none.
    #[error("a BOS token was asked for, but the tokenizer has none")]
    NoBos,
    /// A prompt or answer without tokens.
    #[error("the {what} is empty: something must be predicted, and something must stand before it")]
    EmptyPrompt {
        /// The empty text: prompt or answer.
        what: &'static str,
    },
    /// A text that should be one token is none or several.
    #[error("`{text}` is {} tokens, expected exactly 1: {pieces:?}", pieces.len())]
    NotSingleToken {
        /// The text.
        text: String,
        /// Its tokens, printed.
        pieces: Vec<String>,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Gradients were asked of a model that the kernels compute.
    #[error(
        "{what} tracks gradients, but this model is computed by the kernels ({engine}), which have none: load it with \
         `engine: Engine::Reference`"
    )]
    NoGradients {
        /// The tensor.
        what: &'static str,
        /// Engine of the model.
        engine: tensor_kernels::Engine,
    },
    /// A scalar whose gradient was asked for, but which is no function of the logits that it was given.
    #[error("the scalar does not depend on the logits through operations that gradients can follow")]
    UntrackedScalar,
    /// A model that does not say what its final norm is.
    #[error("this model does not tell its final norm (HookedModel::final_norm)")]
    NoFinalNorm,
    /// A kernel refused its operands.
    #[error(transparent)]
    Kernels(#[from] tensor_kernels::Error),
}
