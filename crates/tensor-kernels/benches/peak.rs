//! What the machine can do and what products reach of it: `cargo bench -p tensor-kernels --bench peak [-- --json]`.
//!
//! The peak is a loop of multiply-adds between registers. Everything is the median of several runs, of 1 and of 2 threads.

use std::hint::black_box;
use std::time::Instant;
use tensor_kernels::{Arithmetic, Backend, MatrixRef, Operand, PackedMatrix, PackedRows, Precision, Store, product};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let get = |name: &str| args.iter().position(|a| a == name).map(|i| args[i + 1].clone());
    let threads: Vec<usize> = get("--threads").unwrap_or("1,2".into()).split(',').map(|t| t.parse().unwrap()).collect();
    let shapes =
        get("--shapes").unwrap_or("1024x768x768,1024x768x3072,1024x3072x768,1024x768x24576,1024x768x50257".into());
    let reps: usize = get("--reps").map_or(7, |r| r.parse().unwrap());
    let only = get("--backend");
    let precision = get("--precision");
    let plain = args.iter().any(|a| a == "--plain");
    for &t in &threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(t).build().unwrap();
        if !args.iter().any(|a| a == "--nopeak") {
            for (name, peak) in peaks() {
                let gf = pool.install(|| {
                    median(
                        (0..5)
                            .map(|_| {
                                let start = Instant::now();
                                let flops: f64 = pool.broadcast(|_| peak()).iter().sum();
                                flops / start.elapsed().as_secs_f64() / 1e9
                            })
                            .collect(),
                    )
                });
                println!("peak {name:28} {t} threads {gf:8.1} GF/s");
            }
        }
        for arithmetic in Arithmetic::available() {
            if only.as_deref().is_some_and(|b| b != arithmetic.backend().name())
                || arithmetic.precision() == Precision::F32Fast
            {
                continue;
            }
            if precision.as_deref().is_some_and(|b| b != arithmetic.precision().name()) {
                continue;
            }
            for shape in shapes.split(',') {
                let d: Vec<usize> = shape.split('x').map(|v| v.parse().unwrap()).collect();
                let (m, k, n) = (d[0], d[1], d[2]);
                let x = values(m * k);
                let w = values(k * n);
                let mut y = vec![0f32; m * n];
                pool.install(|| {
                    let mut rows = PackedRows::new();
                    let start = Instant::now();
                    let packed = PackedMatrix::pack(arithmetic, MatrixRef::row_major(&w, k, n).unwrap()).unwrap();
                    let pack_w = start.elapsed().as_secs_f64();
                    let flops = 2.0 * (m * n * k) as f64;
                    let inner = ((2e8 / flops) as usize).clamp(1, 1000);
                    let mut pack_x = 0.0;
                    let operand = if plain {
                        Operand::Plain(MatrixRef::row_major(&w, k, n).unwrap())
                    } else {
                        Operand::Packed(&packed)
                    };
                    let mut run = || {
                        let start = Instant::now();
                        for _ in 0..inner {
                            let s = Instant::now();
                            rows.pack(arithmetic, &x, k).unwrap();
                            pack_x = s.elapsed().as_secs_f64();
                            product(&rows, operand, Store::new(&mut y, n, None).unwrap()).unwrap();
                        }
                        flops * inner as f64 / start.elapsed().as_secs_f64() / 1e9
                    };
                    run();
                    let gf = (0..reps).map(|_| run()).collect::<Vec<_>>();
                    let best = gf.iter().copied().fold(0.0, f64::max);
                    println!(
                        "{:22} {t} threads {shape:18} {:8.1} GF/s [best {best:7.1}] pack w {:7.1} ms, pack x {:6.3} ms",
                        arithmetic.kernel_name(),
                        median(gf),
                        pack_w * 1e3,
                        pack_x * 1e3
                    );
                });
            }
        }
    }
}

fn values(n: usize) -> Vec<f32> {
    let mut s = 1u64;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

type Peak = (&'static str, fn() -> f64);

fn peaks() -> Vec<Peak> {
    let mut all: Vec<Peak> = vec![("portable", x86::sse)];
    if Backend::Avx2.is_available() {
        all.push(("avx2 f32", x86::avx2));
    }
    if Backend::Avx512.is_available() {
        all.push(("avx512 f32", x86::avx512));
    }
    if is_x86_feature_detected!("avx512bf16") {
        all.push(("avx512 vdpbf16ps zmm", x86::dp));
        all.push(("avx512 vdpbf16ps ymm", x86::dpy));
    }
    all
}

mod x86 {
    use super::black_box;
    use std::arch::x86_64::*;
    const N: usize = 20_000_000;
    pub fn sse() -> f64 {
        let mut a = [unsafe { _mm_set1_ps(1.0) }; 12];
        let (x, y) = black_box((unsafe { _mm_set1_ps(1.0) }, unsafe { _mm_set1_ps(1e-9) }));
        for _ in 0..N {
            for a in &mut a {
                *a = unsafe { _mm_add_ps(_mm_mul_ps(x, y), *a) };
                *a = black_box(*a)
            }
        }
        black_box(a);
        N as f64 * 12.0 * 8.0
    }
    pub fn avx2() -> f64 {
        unsafe { avx2_() }
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2_() -> f64 {
        let mut a = [_mm256_set1_ps(1.0); 12];
        let (x, y) = black_box((_mm256_set1_ps(1.0), _mm256_set1_ps(1e-9)));
        for _ in 0..N {
            for a in &mut a {
                *a = _mm256_fmadd_ps(x, y, *a)
            }
        }
        black_box(a);
        N as f64 * 12.0 * 16.0
    }
    pub fn avx512() -> f64 {
        unsafe { avx512_() }
    }
    #[target_feature(enable = "avx512f")]
    fn avx512_() -> f64 {
        let mut a = [_mm512_set1_ps(1.0); 24];
        let (x, y) = black_box((_mm512_set1_ps(1.0), _mm512_set1_ps(1e-9)));
        for _ in 0..N / 2 {
            for a in &mut a {
                *a = _mm512_fmadd_ps(x, y, *a)
            }
        }
        black_box(a);
        (N / 2) as f64 * 24.0 * 32.0
    }
    pub fn dp() -> f64 {
        unsafe { dp_() }
    }
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dp_() -> f64 {
        let mut a = [_mm512_set1_ps(1.0); 24];
        let x = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0), _mm512_set1_ps(1.0)));
        for _ in 0..N / 2 {
            for a in &mut a {
                *a = _mm512_dpbf16_ps(*a, x, x)
            }
        }
        black_box(a);
        (N / 2) as f64 * 24.0 * 64.0
    }
    pub fn dpy() -> f64 {
        unsafe { dpy_() }
    }
    #[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
    fn dpy_() -> f64 {
        let mut a = [_mm256_set1_ps(1.0); 16];
        let x = black_box(_mm256_cvtne2ps_pbh(_mm256_set1_ps(1.0), _mm256_set1_ps(1.0)));
        for _ in 0..N / 2 {
            for a in &mut a {
                *a = _mm256_dpbf16_ps(*a, x, x)
            }
        }
        black_box(a);
        (N / 2) as f64 * 16.0 * 32.0
    }
}
