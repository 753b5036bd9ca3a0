//! How good an SAE is: how much of the activations it keeps, how sparse it is, and what the model loses when it reads the reconstruction.
//!
//! [`evaluate_store`] for an SAE on a store's text, [`evaluate`] for any coder (transcoders among them) on any rows of tokens. Every metric is one line of
//! [`metrics`], with its definition and whose definition it is; those of SAELens have its names, and the JSON its layout. Metrics that the
//! field calls by one name and computes in several ways stand side by side:
//!
//! ```text
//! explained_variance          1 - E|e|^2 / (E|x|^2 - |E x|^2)               SAELens since 6.18: pooled over all tokens, in f64
//! explained_variance_legacy   E(1 - |e|^2 / |x - mean of the batch|^2)      SAELens before: a mean of ratios, token by token
//! frac_variance_explained     1 - sum_d var(e_d) / sum_d var(x_d)           dictionary_learning: a constant error costs nothing
//! fvu                         sum|e|^2 / sum|x - E x|^2                     sparsify: 1 - explained_variance
//! ```
//!
//! dictionary_learning and sparsify average theirs over batches; here all tokens are one batch.
//!
//! Each mean has a bootstrap interval ([`Bootstrap`]) over documents: tokens of one document are alike, so they are drawn together. Results are equal, bit for
//! bit, for any number of rows in a forward pass and any number of threads.

mod bootstrap;
mod error;
mod features;
mod metric;
mod options;
mod report;
mod run;
mod sites;
mod store;
mod sums;
mod tokens;

pub use bootstrap::{Bootstrap, Interval};
pub use error::EvalError;
pub use features::{FeatureMetrics, FeatureWeights};
pub use metric::{Metric, Origin, metrics};
pub use options::{EvalOptions, EvalPhase, EvalProgress};
pub use report::{EvalCounts, Evaluation, Measured};
pub use run::evaluate;
pub use store::evaluate_store;
