//! A check of this machine's kernels against sums in f64, for users and for the choice of a default.

use crate::{
    Activation, Arithmetic, AttentionOptions, AttentionShape, AttentionTaps, Backend, CsrBuffer, MatrixRef, Norm,
    PackedMatrix, PackedRows, Precision, Result, SparseActivation, SparseEncoder, Store, activate, attention,
    decode_rows, product, softmax_rows,
};
use std::fmt;
use std::sync::OnceLock;

/// Result of [`self_test`]: one check for each kernel of this machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SelfTest {
    /// The checks, products first.
    pub checks: Vec<KernelCheck>,
}

/// Check of one kernel against f64.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KernelCheck {
    /// The operation: `product`, `sparse encoder`, `softmax` ...
    pub operation: &'static str,
    /// The kernel: `f32fast (amx bf16x3)` for products, `avx512` for what depends on the back end alone.
    pub kernel: String,
    /// Values that were compared.
    pub values: usize,
    /// The largest error, in parts of the error that is allowed: at most 1 where the check passes.
    pub worst: f64,
    /// The first value that is wrong, or the reason why the kernel did not run.
    pub failure: Option<KernelFailure>,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KernelFailure {
    /// A value is further from the sum in f64 than its bound.
    Value {
        /// The shape of the computation.
        shape: String,
        /// The value of the kernel.
        found: f64,
        /// The value in f64.
        expected: f64,
        /// The largest error that is allowed.
        bound: f64,
    },
    /// The kernel returned an error or a result of another size.
    NotRun {
        /// The reason.
        reason: String,
    },
}

impl KernelCheck {
    /// Whether every value is within its bound.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    fn new(operation: &'static str, kernel: String) -> Self {
        Self { operation, kernel, values: 0, worst: 0.0, failure: None }
    }

    fn failed(mut self, reason: impl Into<String>) -> Self {
        self.failure.get_or_insert(KernelFailure::NotRun { reason: reason.into() });
        self
    }

    /// Compares a value with the one in f64; the first that is wrong is kept.
    fn compare(&mut self, shape: &dyn Fn() -> String, found: f32, expected: f64, bound: f64) {
        let (found, parts) = (f64::from(found), (f64::from(found) - expected).abs() / bound);
        self.values += 1;
        self.worst = if parts.is_nan() { f64::INFINITY } else { self.worst.max(parts) };
        if (parts > 1.0 || parts.is_nan()) && self.failure.is_none() {
            self.failure = Some(KernelFailure::Value { shape: shape(), found, expected, bound });
        }
    }
}

impl SelfTest {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(KernelCheck::passed)
    }
}

impl fmt::Display for KernelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { shape, found, expected, bound } => {
                write!(f, "{shape}: {found}, expected {expected} within {bound:.1e}")
            }
            Self::NotRun { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for KernelCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.operation, self.kernel)?;
        match &self.failure {
            None => write!(f, "{} values, largest error {:.2} of the bound", self.values, self.worst),
            Some(failure) => write!(f, "FAILED, {failure}"),
        }
    }
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

/// Computes with every kernel that this machine has, on shapes with edges, and compares each value with the same computation in f64:
/// products, sparse encoding and attention for every [`Arithmetic::available`]; decoding, softmax, norms and activations for every
/// [`Backend::available`]. Takes less than a second; the result is remembered for the life of the process.
#[must_use]
pub fn self_test() -> &'static SelfTest {
    static RESULT: OnceLock<SelfTest> = OnceLock::new();
    RESULT.get_or_init(|| SelfTest { checks: alone(all).unwrap_or_else(|reason| vec![not_run(reason)]) })
}

/// The back end on which a precision is computed by default: AMX only once its kernel has been checked in this process.
pub(crate) fn trusted(best: Backend, precision: Precision) -> Backend {
    trusted_if(best, precision, |precision| amx(precision).passed())
}

/// A note for reports where AVX-512 replaces AMX, with the reason.
pub(crate) fn note(backend: Backend, precision: Precision) -> Option<&'static str> {
    let check = CHECKED.get(slot(precision)?)?.get()?;
    (backend == Backend::Avx512 && !check.passed()).then_some("in place of amx, which failed its self-test here")
}

fn trusted_if(best: Backend, precision: Precision, passes: impl Fn(Precision) -> bool) -> Backend {
    // In f32 AMX computes nothing: the kernel is that of AVX-512.
    match best {
        Backend::Amx if slot(precision).is_some() && !passes(precision) => Backend::Avx512,
        best => best,
    }
}

/// The checks of AMX's product kernels, each made when it is first needed.
static CHECKED: [OnceLock<KernelCheck>; 2] = [const { OnceLock::new() }; 2];

fn slot(precision: Precision) -> Option<usize> {
    match precision {
        Precision::F32 => None,
        Precision::F32Fast => Some(0),
        Precision::Bf16 => Some(1),
    }
}

fn amx(precision: Precision) -> KernelCheck {
    let check = || {
        let kernel = || KernelCheck::new("product", format!("{precision} (amx)"));
        let run = || Arithmetic::on(Backend::Amx, precision).map(products);
        match alone(run) {
            Ok(Ok(check)) => check,
            Ok(Err(error)) => kernel().failed(error.to_string()),
            Err(reason) => kernel().failed(reason),
        }
    };
    slot(precision).and_then(|slot| CHECKED.get(slot)).map_or_else(check, |once| once.get_or_init(check).clone())
}

/// Runs in a thread and a pool of its own: a thread of the caller's pool that waits for another would take up other work meanwhile, which could
/// need this very check.
fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> std::result::Result<R, String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || pool.install(work));
        thread.map_err(|error| error.to_string())?.join().map_err(|_| "the kernel panicked".to_owned())
    })
}

fn not_run(reason: String) -> KernelCheck {
    KernelCheck::new("self-test", "all kernels".into()).failed(reason)
}

fn all() -> Vec<KernelCheck> {
    let mut checks: Vec<KernelCheck> = Arithmetic::available().map(products).collect();
    let sparse =
        Arithmetic::available().map(|arithmetic| ran("sparse encoder", arithmetic, sparse_encoder(arithmetic)));
    checks.extend(sparse);
    checks.extend(Arithmetic::available().map(|arithmetic| ran("attention", arithmetic, attend(arithmetic))));
    for backend in Backend::available() {
        checks.push(ran("sparse decoder", backend, sparse_decoder(backend)));
        checks.push(ran("softmax", backend, softmax(backend)));
        checks.push(ran("layer norm", backend, norm(backend, true)));
        checks.push(ran("rms norm", backend, norm(backend, false)));
        checks.push(ran("activations", backend, activations(backend)));
    }
    checks
}

fn ran(operation: &'static str, kernel: impl fmt::Display, check: Result<KernelCheck>) -> KernelCheck {
    match check {
        Ok(check) => KernelCheck { operation, kernel: kernel.to_string(), ..check },
        Err(error) => KernelCheck::new(operation, kernel.to_string()).failed(error.to_string()),
    }
}

fn unnamed() -> KernelCheck {
    KernelCheck::new("", String::new())
}

/// Values in -1..1 from a linear congruential generator; every 13th is 100 times as large where `outliers` says so.
fn values(n: usize, seed: u64, outliers: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = |i: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if outliers && i.is_multiple_of(13) { 100.0 * x } else { x }
    };
    (0..n).map(next).collect()
}

/// Rows, inner size, columns: one of each, whole blocks and tiles, one more and one less, several blocks of the inner size.
const SHAPES: [[usize; 3]; 8] =
    [[1, 1, 1], [1, 7, 1], [3, 33, 31], [16, 64, 32], [17, 65, 33], [33, 129, 65], [5, 1100, 40], [1, 513, 96]];

fn products(arithmetic: Arithmetic) -> KernelCheck {
    products_by(arithmetic, |x, w, [_, k, n], y| {
        let mut rows = PackedRows::new();
        rows.pack(arithmetic, x, k)?;
        let matrix = PackedMatrix::pack(arithmetic, MatrixRef::row_major(w, k, n)?)?;
        product(&rows, &matrix, Store::new(y, n, None)?)
    })
}

fn products_by(
    arithmetic: Arithmetic,
    multiply: impl Fn(&[f32], &[f32], [usize; 3], &mut [f32]) -> Result<()>,
) -> KernelCheck {
    let mut check = KernelCheck::new("product", arithmetic.to_string());
    for (seed, [m, k, n]) in SHAPES.into_iter().enumerate() {
        let (x, w) = (values(m * k, seed as u64, true), values(k * n, !(seed as u64), seed % 2 == 0));
        let mut y = vec![f32::NAN; m * n];
        if let Err(error) = multiply(&x, &w, [m, k, n], &mut y) {
            return check.failed(error.to_string());
        }
        for (at, found) in y.into_iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let (sum, size) = dot(x[i * k..][..k].iter(), w[j..].iter().step_by(n));
            let bound = arithmetic.precision().bound(k) * size + 2e-7 * sum.abs() + 1e-30;
            check.compare(&|| format!("[{m}, {k}] x [{k}, {n}] at [{i}, {j}]"), found, sum, bound);
        }
    }
    check
}

/// The sum of products and of their absolute values.
fn dot<'a>(a: impl Iterator<Item = &'a f32>, b: impl Iterator<Item = &'a f32>) -> (f64, f64) {
    let terms = a.zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

/// What is kept and what is left out of a product under `Relu`.
fn sparse_encoder(arithmetic: Arithmetic) -> Result<KernelCheck> {
    let [m, k, n] = [19, 65, 97];
    let (x, w, bias) = (values(m * k, 1, false), values(k * n, 2, false), values(n, 3, false));
    let (mut rows, mut out) = (PackedRows::new(), CsrBuffer::new());
    rows.pack(arithmetic, &x, k)?;
    SparseEncoder::new().encode(
        &rows,
        MatrixRef::row_major(&w, k, n)?,
        Some(&bias),
        SparseActivation::Relu,
        &mut out,
    )?;
    let mut check = unnamed();
    for i in 0..m {
        let mut dense = vec![0.0; n];
        let (columns, kept) = out.row(i);
        columns.iter().zip(kept).for_each(|(column, value)| dense[*column as usize] = *value);
        for (j, found) in dense.into_iter().enumerate() {
            let (sum, size) = dot(x[i * k..][..k].iter(), w[j..].iter().step_by(n));
            let bound = arithmetic.precision().bound(k) * size + 1e-6;
            check.compare(&|| format!("row {i}, column {j}"), found, (sum + f64::from(bias[j])).max(0.0), bound);
        }
    }
    Ok(check)
}

/// Causal attention with grouped heads over 37 positions: outputs against f64.
fn attend(arithmetic: Arithmetic) -> Result<KernelCheck> {
    let (pos, heads, kv_heads, width) = (37, 4, 2, 24);
    let [q, k, v] =
        [(heads, 5), (kv_heads, 6), (kv_heads, 7)].map(|(heads, seed)| values(pos * heads * width, seed, false));
    let (shape, divisor) = (AttentionShape::new(1, pos, heads, kv_heads, width), (width as f32).sqrt());
    let mut z = vec![f32::NAN; pos * heads * width];
    attention(arithmetic, &shape, &AttentionOptions::new(divisor), &q, &k, &v, AttentionTaps::default(), &mut z)?;
    // An error e of the scores is at most one of 2 e in the pattern's sum; the products' bounds for |q|, |k|, |v| below 1.
    let allowed = arithmetic.precision().bound(width);
    let bound = 2.0 * allowed * width as f64 / f64::from(divisor) + arithmetic.precision().bound(pos) + 1e-5;
    let mut check = unnamed();
    for (i, h) in (0..pos).flat_map(|i| (0..heads).map(move |h| (i, h))) {
        let kv = |j: usize| (j * kv_heads + h / (heads / kv_heads)) * width;
        let q = &q[(i * heads + h) * width..][..width];
        let weights: Vec<f64> =
            (0..=i).map(|j| (dot(q.iter(), k[kv(j)..].iter()).0 / f64::from(divisor)).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..width {
            let mix: f64 = weights.iter().enumerate().map(|(j, w)| w * f64::from(v[kv(j) + d])).sum();
            check.compare(
                &|| format!("query {i}, head {h}, entry {d}"),
                z[(i * heads + h) * width + d],
                mix / total,
                bound,
            );
        }
    }
    Ok(check)
}

fn sparse_decoder(backend: Backend) -> Result<KernelCheck> {
    let (rows, width, features) = (9, 45, 60);
    let (matrix, bias) = (values(features * width, 8, false), values(width, 9, false));
    let mut codes = CsrBuffer::new();
    for row in 0..rows {
        let chosen = (0..features).filter(|j| (j * 7 + row * 3) % 11 < row);
        let before = codes.index.len();
        codes.index.extend(chosen.map(|j| j as u32));
        codes.value.extend(values(codes.index.len() - before, row as u64, true));
        codes.indptr.push(codes.index.len() as u64);
    }
    let mut y = vec![f32::NAN; rows * width];
    decode_rows(backend, codes.as_ref(), &matrix, width, None, Some(&bias), &mut y)?;
    let mut check = unnamed();
    for (row, y) in y.chunks_exact(width).enumerate() {
        let (index, value) = codes.row(row);
        for (d, found) in y.iter().enumerate() {
            let column: Vec<f32> = index.iter().map(|j| matrix[*j as usize * width + d]).collect();
            let (sum, size) = dot(value.iter(), column.iter());
            let bound = Precision::F32.bound(index.len() + 2) * (size + f64::from(bias[d]).abs()) + 1e-30;
            check.compare(&|| format!("row {row}, entry {d}"), *found, sum + f64::from(bias[d]), bound);
        }
    }
    Ok(check)
}

/// Widths below, at and above those of vectors.
const WIDTHS: [usize; 5] = [1, 7, 16, 33, 500];

fn softmax(backend: Backend) -> Result<KernelCheck> {
    let mut check = unnamed();
    for width in WIDTHS {
        let x: Vec<f32> = values(3 * width, 10, false).into_iter().map(|x| 8.0 * x).collect();
        let mut y = x.clone();
        softmax_rows(backend, &mut y, width)?;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            let total: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
            for (x, found) in x.iter().zip(y) {
                check.compare(&|| format!("a row of {width}"), *found, f64::from(*x).exp() / total, 2e-6);
            }
        }
    }
    Ok(check)
}

fn norm(backend: Backend, centered: bool) -> Result<KernelCheck> {
    let (eps, mut check) = (1e-5, unnamed());
    let norm = if centered { Norm::layer(eps) } else { Norm::rms(eps) };
    // A layer norm of one value is 0 over the root of eps.
    for width in WIDTHS {
        let x = values(3 * width, 11, false);
        let mut y = vec![f32::NAN; x.len()];
        norm.rows(backend, &x, width, &mut y)?;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            let n = width as f64;
            let mean = if centered { x.iter().map(|x| f64::from(*x)).sum::<f64>() / n } else { 0.0 };
            let square = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
            let scale = (square + f64::from(eps as f32)).sqrt();
            for (x, found) in x.iter().zip(y) {
                check.compare(&|| format!("a row of {width}"), *found, (f64::from(*x) - mean) / scale, 1e-5);
            }
        }
    }
    Ok(check)
}

fn activations(backend: Backend) -> Result<KernelCheck> {
    let mut check = unnamed();
    let x: Vec<f32> = values(203, 12, false).into_iter().map(|x| 10.0 * x).collect();
    for act in [Activation::Relu, Activation::GeluTanh, Activation::Silu] {
        let mut y = x.clone();
        activate(backend, act, &mut y);
        for (x, found) in x.iter().zip(y) {
            let x = f64::from(*x);
            let expected = match act {
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::GeluTanh => {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                    0.5 * x * (1.0 + inner.tanh())
                }
                _ => x.max(0.0),
            };
            check.compare(&|| format!("{act:?} of {x}"), found, expected, 1e-6 + 1e-6 * expected.abs());
        }
    }
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_this_machine_passes_and_is_checked_once() {
        let result = self_test();
        assert!(result.passed(), "{result}");
        let pairs = Arithmetic::available().count();
        assert_eq!(result.checks.len(), 3 * pairs + 5 * Backend::available().count());
        assert!(result.checks.iter().all(|check| check.values > 100 && check.worst > 0.0), "{result}");
        assert!(std::ptr::eq(result, self_test()));
        assert!(result.to_string().contains("product f32 (portable"), "{result}");
    }

    /// A kernel that adds a term twice, drops the last column, or returns NaN, is named with the place.
    #[test]
    fn a_kernel_that_is_wrong_anywhere_fails() {
        let arithmetic = Arithmetic::on(Backend::Portable, Precision::F32).unwrap();
        let right = |x: &[f32], w: &[f32], [m, k, n]: [usize; 3], y: &mut [f32]| {
            for at in 0..m * n {
                y[at] = dot(x[at / n * k..][..k].iter(), w[at % n..].iter().step_by(n)).0 as f32;
            }
        };
        let checked = |spoil: &dyn Fn([usize; 3], &mut [f32])| {
            products_by(arithmetic, |x, w, shape, y| {
                right(x, w, shape, y);
                spoil(shape, y);
                Ok(())
            })
        };
        assert!(checked(&|_, _| ()).passed());
        let last = checked(&|[m, k, n], y| {
            if k == 1100 {
                // A tenth of the largest operand: the bound of a sum of 1,100 with outliers is about 1.
                y[m * n - 1] += 10.0;
            }
        });
        match last.failure {
            Some(KernelFailure::Value { shape, .. }) => assert_eq!(shape, "[5, 1100] x [1100, 40] at [4, 39]"),
            other => panic!("{other:?}"),
        }
        let nan = checked(&|_, y| y[0] = f32::NAN);
        assert!(!nan.passed() && nan.worst == f64::INFINITY, "{nan}");
        let refused = products_by(arithmetic, |_, _, _, _| Err(crate::Error::TooLarge { rows: 1, cols: 1 }));
        assert!(matches!(refused.failure, Some(KernelFailure::NotRun { .. })));
    }

    #[test]
    fn amx_is_the_default_only_where_its_kernel_has_passed() {
        let after = |passes: bool, precision| trusted_if(Backend::Amx, precision, |_| passes);
        for precision in [Precision::F32Fast, Precision::Bf16] {
            assert_eq!((after(true, precision), after(false, precision)), (Backend::Amx, Backend::Avx512));
        }
        // Its f32 is AVX-512's kernel, and other back ends need no check.
        assert_eq!(after(false, Precision::F32), Backend::Amx);
        let never = |_| panic!("nothing is checked");
        assert_eq!(trusted_if(Backend::Avx2, Precision::F32Fast, never), Backend::Avx2);
        assert_eq!(note(Backend::Avx2, Precision::F32Fast), None);
        if Backend::Amx.is_available() {
            assert_eq!(Arithmetic::default().backend(), trusted(Backend::Amx, Precision::F32Fast));
        }
    }

    /// Threads of a pool that all need the check at once wait for it and for nothing else.
    #[test]
    fn a_check_within_a_pool_ends() {
        use rayon::prelude::*;
        let passed = (0..64).into_par_iter().map(|_| alone(|| 1).is_ok()).filter(|passed| *passed).count();
        assert_eq!(passed, 64);
    }
}
