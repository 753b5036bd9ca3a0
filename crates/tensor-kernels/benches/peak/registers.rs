//! Loops of multiply-adds between registers: as many independent sums as it takes to hide the latency. Each returns how many
//! multiplications and additions it did.

use std::hint::black_box;
use tensor_kernels::{Arithmetic, Backend, Precision};

/// Rounds of a loop, some hundredths of a second.
const ROUNDS: usize = 5_000_000;

/// The loop of the instructions that a kernel uses; `None` where there is none yet.
pub fn peak(arithmetic: Arithmetic) -> Option<fn() -> f64> {
    match (arithmetic.backend(), arithmetic.precision()) {
        (Backend::Portable, _) => Some(portable),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, _) => Some(x86::avx2),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512, Precision::Bf16) if arithmetic.kernel_name() == "avx512 bf16" => Some(x86::avx512_bf16),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512, _) | (Backend::Amx, Precision::F32) => Some(x86::avx512),
        (_, Precision::F32 | Precision::F32Fast | Precision::Bf16) => None,
        _ => None,
    }
}

/// A multiplication and an addition, as the compiler vectorizes them for every machine.
fn portable() -> f64 {
    let mut sums = [[1f32; 4]; 12];
    let (x, y) = (black_box([0.5f32; 4]), black_box([0.5f32; 4]));
    for _ in 0..ROUNDS {
        for sums in &mut sums {
            for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                *sum = *sum * x + y;
            }
        }
    }
    black_box(sums);
    (ROUNDS * 12 * 4 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ROUNDS, black_box};
    use std::arch::x86_64::*;

    pub fn avx2() -> f64 {
        #[target_feature(enable = "avx2,fma")]
        fn run() {
            let mut sums = [_mm256_set1_ps(1.0); 12];
            let (x, y) = black_box((_mm256_set1_ps(1.0), _mm256_set1_ps(1e-9)));
            for _ in 0..ROUNDS {
                sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(x, y, *sum));
            }
            black_box(sums);
        }
        // SAFETY: asked for only where the back end is available.
        unsafe { run() };
        (ROUNDS * 12 * 8 * 2) as f64
    }

    pub fn avx512() -> f64 {
        #[target_feature(enable = "avx512f")]
        fn run() {
            let mut sums = [_mm512_set1_ps(1.0); 24];
            let (x, y) = black_box((_mm512_set1_ps(1.0), _mm512_set1_ps(1e-9)));
            for _ in 0..ROUNDS {
                sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(x, y, *sum));
            }
            black_box(sums);
        }
        // SAFETY: asked for only where the back end is available.
        unsafe { run() };
        (ROUNDS * 24 * 16 * 2) as f64
    }

    pub fn avx512_bf16() -> f64 {
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn run() {
            let mut sums = [_mm512_set1_ps(1.0); 24];
            let x = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0), _mm512_set1_ps(1.0)));
            for _ in 0..ROUNDS {
                sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, x, x));
            }
            black_box(sums);
        }
        // SAFETY: asked for only where the kernel uses the same instruction.
        unsafe { run() };
        (ROUNDS * 24 * 32 * 2) as f64
    }
}
