//! Instruction set and precision of products: [`Backend`], [`Precision`], and the pair of them, [`Arithmetic`].

use crate::kernel::{self, Kernel};
use crate::{Error, Result};
use std::fmt;

/// A set of instructions that products can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Backend {
    /// Plain Rust, on any architecture.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// x86-64 with AMX tiles (bf16) beside AVX-512.
    Amx,
}

impl Backend {
    /// Every back end, slowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// The fastest that this machine has. Found once, by asking the processor (and for AMX the kernel's permission).
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        kernel::is_available(self)
    }

    /// The back ends that this machine supports, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|backend| backend.is_available())
    }

    /// That this machine has it.
    pub(crate) fn check(self, precision: Precision) -> Result<()> {
        if self.is_available() {
            return Ok(());
        }
        let available = Self::available().map(Self::name).collect::<Vec<_>>().join(", ");
        Err(Error::Unavailable { backend: self, precision, available })
    }

    /// `portable`, `avx2`, `avx512` or `amx`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|b| b.name() == name).ok_or_else(|| format!("`{name}` is none of {}", known()))
    }
}

/// Precision of products. With `x` the inputs, `w` the weights, `K` the inner size, `eps = 2^-24`:
///
/// ```text
/// F32      |error| <= K eps sum|x||w|                      IEEE single precision (to first order in eps)
/// F32Fast  |error| <= (2^-15 + K eps) sum|x||w|             on AMX three bf16 products; F32 elsewhere
/// Bf16     |error| <= (2^-7 + 2^-16 + K eps) sum|x||w|      inputs and weights rounded to bf16, summed in f32
/// ```
/// About `1e-6`, `2e-5` and `4e-3` of the output's rms on Gaussian data. `2^-15` (3.05e-5) cannot be less: two bf16 leave `2^-17` of an
/// unlucky number, and the product of two low parts, up to `2^-16`, is left out.
///
/// The bounds hold as long as `sum|x||w|` and every input and weight stay below `3.3e38`: nearer to the largest f32, `3.403e38`, sums
/// may become infinite. An infinity or NaN among the inputs or weights leaves no finite number in its row or column. AMX, and the bf16
/// instructions of AVX-512, take numbers below `2^-126` for zero, also as parts and as sums, which adds at most
/// `2^-125 sum(|x| + |w| + 4)` to the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// As near to single precision as three bf16 products come, where that is faster; else single precision.
    #[default]
    F32Fast,
    /// Inputs and weights rounded to bf16.
    Bf16,
}

impl Precision {
    /// Every precision, most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F32Fast, Self::Bf16];

    /// `f32`, `f32fast` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F32Fast => "f32fast",
            Self::Bf16 => "bf16",
        }
    }

    /// The bound on `|error| / sum|x||w|` for products of inner size `k`.
    #[must_use]
    pub fn bound(self, k: usize) -> f64 {
        let summing = k as f64 * f64::from(f32::EPSILON) / 2.0;
        summing
            + match self {
                Self::F32 => 0.0,
                Self::F32Fast => 2f64.powi(-15),
                Self::Bf16 => 2f64.powi(-7) + 2f64.powi(-16),
            }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A back end and a precision: what operands are packed for, and what decides every bit of a product.
#[derive(Clone, Copy)]
pub struct Arithmetic {
    backend: Backend,
    precision: Precision,
    kernel: &'static dyn Kernel,
}

impl Arithmetic {
    /// On the machine's best back end. Where that is AMX, its kernel is first checked against f64 (once in the life of a process, in
    /// milliseconds; see [`self_test`](crate::self_test)): one that fails is replaced by that of AVX-512, and `Display` says so.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        let backend = crate::self_test::trusted(Backend::best(), precision);
        Self { backend, precision, kernel: kernel::of(backend, precision) }
    }

    /// On this back end: for tests and comparisons. Machines whose [`kernel_name`](Self::kernel_name) is the same compute the same bits.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn on(backend: Backend, precision: Precision) -> Result<Self> {
        backend.check(precision)?;
        Ok(Self { backend, precision, kernel: kernel::of(backend, precision) })
    }

    /// Every pair that this machine has.
    pub fn available() -> impl Iterator<Item = Self> {
        Backend::available()
            .flat_map(|backend| Precision::ALL.map(|precision| (backend, precision)))
            .map(|(backend, precision)| Self { backend, precision, kernel: kernel::of(backend, precision) })
    }

    /// The back end.
    #[must_use]
    pub fn backend(self) -> Backend {
        self.backend
    }

    /// The precision.
    #[must_use]
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// Name of the kernel that computes the products, for reports: `avx512 f32`, `amx bf16x3`, `avx2 bf16 widened` ...
    #[must_use]
    pub fn kernel_name(self) -> &'static str {
        self.kernel.name()
    }

    /// Whether packed weights keep every bit, so that [`PackedMatrix::column`](crate::PackedMatrix::column) gives them back: where products
    /// are computed in f32.
    #[must_use]
    pub fn is_exact(self) -> bool {
        // Asked of the kernel itself, by a value that needs all bits of an f32.
        let probe = f32::from_bits(0x3F9D_B5A7);
        let mut panel = crate::buffer::Buffer::new(self.kernel.panel_bytes(1));
        let panel = &mut panel.as_mut_slice::<u8>()[..self.kernel.panel_bytes(1)];
        let (matrix, mut back) = (crate::MatrixRef::row_major(std::slice::from_ref(&probe), 1, 1), [0.0]);
        matrix.is_ok_and(|matrix| {
            self.kernel.pack_columns(matrix, 0, panel);
            self.kernel.unpack_column(panel, 0, &mut back);
            back == [probe]
        })
    }

    pub(crate) fn kernel(self) -> &'static dyn Kernel {
        self.kernel
    }
}

impl PartialEq for Arithmetic {
    fn eq(&self, other: &Self) -> bool {
        (self.backend, self.precision) == (other.backend, other.precision)
    }
}

impl Eq for Arithmetic {}

impl Default for Arithmetic {
    fn default() -> Self {
        Self::new(Precision::default())
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::self_test::note(self.backend, self.precision) {
            None => write!(f, "{} ({})", self.precision, self.kernel_name()),
            Some(note) => write!(f, "{} ({}, {note})", self.precision, self.kernel_name()),
        }
    }
}

impl fmt::Debug for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arithmetic({self} on {})", self.backend)
    }
}
