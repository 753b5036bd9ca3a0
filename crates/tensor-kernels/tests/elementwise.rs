//! Norms, activations, softmax, rope and sums on every back end of this machine, against f64.

mod common;

use common::{bits, normal, on_pools};
use tensor_kernels::{
    Activate, Activation, Arithmetic, Backend, Error, Gate, MatrixRef, Norm, PackedMatrix, PackedRows, RopeLayout,
    RopeShape, Store, activate, activate_gated, add_to, gain_and_bias_row, gather_rows, log_sum_exp, product, rope,
    scale_and_shift, softmax_rows,
};

const WIDTHS: [usize; 9] = [1, 7, 8, 15, 16, 17, 64, 771, 1031];
const ACTIVATIONS: [Activation; 5] =
    [Activation::Identity, Activation::Relu, Activation::GeluTanh, Activation::GeluErf, Activation::Silu];

/// Abramowitz and Stegun 7.1.5 and 7.1.14: a series near 0, a continued fraction beyond.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let root = std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / root * sum;
    }
    let fraction = (1..200).rev().fold(x, |fraction, n| x + f64::from(n) / 2.0 / fraction);
    (-x * x).exp() / root / fraction
}

fn oracle(act: Activation, x: f64) -> f64 {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    match act {
        Activation::Relu => x.max(0.0),
        // 1 + tanh u without the cancellation
        Activation::GeluTanh => x / (1.0 + (-2.0 * root * (x + 0.044_715 * x.powi(3))).exp()),
        Activation::GeluErf => 0.5 * x * erfc(-x / 2f64.sqrt()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        _ => x,
    }
}

#[test]
fn activations_are_within_their_bound() {
    let x: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 0.000_5 + i as f32 * 1e-9).collect();
    for backend in Backend::available() {
        for act in ACTIVATIONS {
            let mut y = x.clone();
            activate(backend, act, &mut y);
            let mut worst = 0f64;
            for (&x, &y) in x.iter().zip(&y) {
                let right = oracle(act, f64::from(x));
                // The size of the exponent: its rounding is that of the value.
                let exponent = f64::from(x).powi(2).min(90.0) + 3.0 * f64::from(x).abs();
                let relative = if x < 0.0 { 5e-7 + 2.5e-7 * exponent } else { 5e-7 };
                let error = (f64::from(y) - right).abs();
                worst = worst.max((error - 1e-36) / right.abs().max(1e-30) / relative);
                assert!(error <= relative * right.abs() + 1e-36, "{backend} {act:?} {x}: {y} {right}");
                assert!(error <= 1e-7 + 2.4e-7 * right.abs(), "{backend} {act:?} {x}: {y} {right}");
            }
            println!("{backend} {act:?}: {worst:.2} of the bound");
        }
    }
}

#[test]
fn activations_at_the_edges() {
    let inf = f32::INFINITY;
    for backend in Backend::available() {
        for act in ACTIVATIONS {
            let at = |x: f32| {
                let mut y = [x];
                activate(backend, act, &mut y);
                y[0]
            };
            assert!(at(f32::NAN).is_nan(), "{backend} {act:?}");
            assert_eq!(at(inf), inf, "{backend} {act:?}");
            assert_eq!(at(0.0), 0.0);
            assert_eq!(at(1e30), 1e30, "{backend} {act:?}");
            if act != Activation::Identity {
                assert_eq!(at(-1e30), 0.0, "{backend} {act:?}");
                assert_eq!(at(-200.0), 0.0, "{backend} {act:?}");
            }
        }
    }
}

#[test]
fn a_value_does_not_depend_on_its_place_or_the_threads() {
    let x = normal(70_001, 1, 3.0);
    let gate = normal(70_001, 2, 3.0);
    for backend in Backend::available() {
        for act in ACTIVATIONS {
            let all = on_pools(|| {
                let (mut y, mut gated) = (x.clone(), x.clone());
                activate(backend, act, &mut y);
                activate_gated(backend, act, &gate, &mut gated).unwrap();
                (y, gated)
            });
            assert!(all.iter().all(|(y, g)| bits(y) == bits(&all[0].0) && bits(g) == bits(&all[0].1)));
            let mut opened = gate.clone();
            activate(backend, act, &mut opened);
            for start in 0..40 {
                let mut part = x[start..start + 37].to_vec();
                activate(backend, act, &mut part);
                assert_eq!(bits(&part), bits(&all[0].0[start..start + 37]), "{backend} {act:?}");
                assert_eq!((opened[start] * x[start]).to_bits(), all[0].1[start].to_bits(), "{backend} {act:?}");
            }
        }
    }
}

#[test]
fn epilogues_have_the_bits_of_the_steps() {
    let (m, k, n) = (37, 19, 75);
    let (x, w, b) = (normal(m * k, 1, 1.0), normal(k * n, 2, 1.0), normal(n, 3, 1.0));
    let gate = normal(m * n, 4, 1.0);
    for arithmetic in Arithmetic::available() {
        let backend = arithmetic.backend();
        let mut rows = PackedRows::new();
        rows.pack(arithmetic, &x, k).unwrap();
        let w = PackedMatrix::pack(arithmetic, MatrixRef::row_major(&w, k, n).unwrap()).unwrap();
        for bias in [None, Some(b.as_slice())] {
            let mut stored = vec![0.0; m * n];
            product(&rows, &w, Store::new(&mut stored, n, bias).unwrap()).unwrap();
            for act in ACTIVATIONS {
                let (mut steps, mut gated) = (stored.clone(), stored.clone());
                activate(backend, act, &mut steps);
                activate_gated(backend, act, &gate, &mut gated).unwrap();
                let (mut y, mut inout) = (vec![0.0; m * n], gate.clone());
                product(&rows, &w, Activate::new(&mut y, n, bias, act).unwrap()).unwrap();
                product(&rows, &w, Gate::new(&mut inout, n, bias, act).unwrap()).unwrap();
                assert_eq!(bits(&y), bits(&steps), "{arithmetic:?} {act:?}");
                assert_eq!(bits(&inout), bits(&gated), "{arithmetic:?} {act:?}");
            }
        }
    }
}

#[test]
fn norms_equal_the_f64_oracle() {
    for backend in Backend::available() {
        for width in WIDTHS {
            for (offset, outlier) in [(0.0, 1.0), (3.0, 1.0), (300.0, 1.0), (0.0, 500.0)] {
                let mut x = normal(5 * width, 7, 2.0);
                x.iter_mut().for_each(|x| *x += offset);
                x.iter_mut().step_by(width).for_each(|x| *x *= outlier);
                for (norm, centered) in [(Norm::layer(1e-5), true), (Norm::rms(1e-5), false)] {
                    let (mut scale, mut y) = (vec![0.0; 5], vec![0.0; 5 * width]);
                    norm.scale(backend, &x, width, &mut scale).unwrap();
                    norm.normalize(backend, &x, width, &scale, &mut y).unwrap();
                    let mut at_once = vec![0.0; 5 * width];
                    norm.rows(backend, &x, width, &mut at_once).unwrap();
                    assert_eq!(bits(&y), bits(&at_once));
                    for (i, (x, y)) in x.chunks(width).zip(y.chunks(width)).enumerate() {
                        let n = width as f64;
                        let mean = if centered { x.iter().map(|x| f64::from(*x)).sum::<f64>() / n } else { 0.0 };
                        let square = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
                        let right = (square + 1e-5).sqrt();
                        let size = x.iter().fold(0f64, |size, x| size.max(f64::from(x.abs())));
                        assert!(
                            (f64::from(scale[i]) - right).abs() <= 4e-7 * (right + mean.abs()),
                            "{backend} {width}"
                        );
                        for (x, y) in x.iter().zip(y) {
                            let error = (f64::from(*y) - (f64::from(*x) - mean) / right).abs();
                            assert!(error <= 1e-6 * size / right, "{backend} {width} {offset}: {error}");
                        }
                        let mut row = vec![0.0; width];
                        assert_eq!(norm.row(backend, x, &mut row).to_bits(), scale[i].to_bits());
                        assert_eq!(norm.scale_row(backend, x).to_bits(), scale[i].to_bits());
                    }
                }
            }
        }
    }
}

#[test]
fn gains_and_biases() {
    for backend in Backend::available() {
        for width in WIDTHS {
            let (x, gain, bias) = (normal(3 * width, 1, 1.0), normal(width, 2, 1.0), normal(width, 3, 1.0));
            for (with_gain, with_bias) in [(false, false), (true, false), (false, true), (true, true)] {
                let (gain, bias) = (with_gain.then_some(&gain[..]), with_bias.then_some(&bias[..]));
                let mut y = x.clone();
                scale_and_shift(backend, &mut y, width, gain, bias).unwrap();
                for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                    let right = f64::from(*x) * gain.map_or(1.0, |g| f64::from(g[i % width]))
                        + bias.map_or(0.0, |b| f64::from(b[i % width]));
                    assert!((f64::from(*y) - right).abs() <= 2e-6);
                }
                let mut row = x[..width].to_vec();
                gain_and_bias_row(backend, &mut row, gain, bias);
                assert_eq!(bits(&row), bits(&y[..width]));
            }
        }
    }
}

#[test]
fn softmax_equals_the_f64_oracle() {
    for backend in Backend::available() {
        for width in WIDTHS {
            for spread in [1.0, 9.0, 40.0] {
                let x = normal(9 * width, 3, spread);
                let mut y = x.clone();
                softmax_rows(backend, &mut y, width).unwrap();
                for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                    let max = x.iter().copied().fold(f32::MIN, f32::max);
                    let exp = |x: f32| (f64::from(x) - f64::from(max)).exp();
                    let total: f64 = x.iter().map(|x| exp(*x)).sum();
                    for (x, y) in x.iter().zip(y) {
                        let bound = 6e-8 * (8.0 + f64::from((x - max).abs())) * exp(*x) / total + 2e-38;
                        assert!((exp(*x) / total - f64::from(*y)).abs() <= bound, "{backend} {width}");
                    }
                }
                // Masked ends change nothing.
                let mut longer: Vec<f32> = Vec::new();
                for x in x.chunks(width) {
                    longer.extend(x.iter().chain(&[f32::NEG_INFINITY; 70]));
                }
                softmax_rows(backend, &mut longer, width + 70).unwrap();
                for (long, y) in longer.chunks(width + 70).zip(y.chunks(width)) {
                    assert_eq!(bits(&long[..width]), bits(y), "{backend} {width}");
                    assert!(long[width..].iter().all(|x| *x == 0.0));
                }
            }
        }
        let inf = f32::INFINITY;
        let mut x = [-inf, -inf, -inf, 2.0, f32::NAN, 1.0, inf, 0.0];
        softmax_rows(backend, &mut x, 2).unwrap();
        assert_eq!(x, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn log_sum_exp_equals_the_f64_oracle() {
    for backend in Backend::available() {
        for width in [1, 9, 1024, 50_257] {
            let x = normal(width, 5, 8.0);
            let right = x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let found = log_sum_exp(backend, &x);
            assert!((found - right).abs() <= 2e-7 * (1.0 + right.abs()), "{backend} {width}: {found} {right}");
        }
        assert_eq!(log_sum_exp(backend, &[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(backend, &[f32::NEG_INFINITY; 3]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(backend, &[1.0, f32::INFINITY]), f64::INFINITY);
        assert!(log_sum_exp(backend, &[1.0, f32::NAN, 2.0]).is_nan());
        assert!(log_sum_exp(backend, &[f32::NAN]).is_nan());
    }
}

#[test]
fn rotations_turn_by_the_angle() {
    for backend in Backend::available() {
        for (d_head, d_rotary) in [(2, 2), (10, 6), (64, 64), (80, 20), (70, 34), (128, 0)] {
            for pairs in [RopeLayout::Half, RopeLayout::Interleaved] {
                let (pos, heads, half) = (5, 3, d_rotary / 2);
                let x = normal(2 * pos * heads * d_head, 1, 1.0);
                let angle = normal(pos * half, 2, 2.0);
                let (cos, sin): (Vec<f32>, Vec<f32>) = angle.iter().map(|a| (a.cos(), a.sin())).unzip();
                let shape = RopeShape { pos, heads, d_head, d_rotary, pairs };
                let mut y = x.clone();
                rope(backend, &mut y, shape, &cos, &sin).unwrap();
                for (i, (x, y)) in x.chunks(d_head).zip(y.chunks(d_head)).enumerate() {
                    let at = i / heads % pos * half;
                    for j in 0..half {
                        let (a, b) = match pairs {
                            RopeLayout::Half => (j, j + half),
                            _ => (2 * j, 2 * j + 1),
                        };
                        let (cos, sin) = (f64::from(cos[at + j]), f64::from(sin[at + j]));
                        let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                        assert!((f64::from(y[a]) - (xa * cos - xb * sin)).abs() < 1e-6, "{backend} {pairs:?}");
                        assert!((f64::from(y[b]) - (xb * cos + xa * sin)).abs() < 1e-6, "{backend} {pairs:?}");
                    }
                    assert_eq!(bits(&x[d_rotary..]), bits(&y[d_rotary..]));
                }
            }
        }
    }
}

#[test]
fn sums_and_look_ups() {
    for backend in Backend::available() {
        let (x, mut y) = (normal(70_003, 1, 1.0), normal(70_003, 2, 1.0));
        let right: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        add_to(backend, &x, &mut y).unwrap();
        assert_eq!(bits(&y), bits(&right));
        assert!(matches!(add_to(backend, &x[1..], &mut y), Err(Error::Length { .. })));
    }
    let table: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mut out = [0.0; 6];
    gather_rows(&table, 3, &[3, 0], &mut out).unwrap();
    assert_eq!(out, [9.0, 10.0, 11.0, 0.0, 1.0, 2.0]);
    assert!(matches!(gather_rows(&table, 3, &[4, 0], &mut out), Err(Error::Mismatch { .. })));
    assert!(matches!(gather_rows(&table, 5, &[1, 0], &mut out), Err(Error::Length { .. })));
    assert!(matches!(gather_rows(&table, 3, &[1], &mut out), Err(Error::Length { .. })));
}

#[test]
fn wrong_lengths_are_errors_and_nothing_is_fine() {
    let length = |result: tensor_kernels::Result<()>| assert!(matches!(result, Err(Error::Length { .. })));
    for backend in Backend::available() {
        let (norm, mut y) = (Norm::layer(1e-5), [0.0; 8]);
        norm.scale(backend, &[], 4, &mut []).unwrap();
        norm.rows(backend, &[], 0, &mut []).unwrap();
        length(norm.scale(backend, &[0.0; 7], 4, &mut [0.0]));
        length(norm.scale(backend, &[0.0; 8], 4, &mut [0.0]));
        length(norm.normalize(backend, &[0.0; 8], 4, &[1.0], &mut y));
        length(norm.normalize(backend, &[0.0; 8], 4, &[1.0; 2], &mut y[1..]));
        length(norm.rows(backend, &[0.0; 8], 4, &mut y[1..]));
        length(scale_and_shift(backend, &mut y, 4, Some(&[1.0; 3]), None));
        length(scale_and_shift(backend, &mut y, 3, None, None));
        activate(backend, Activation::GeluErf, &mut []);
        length(activate_gated(backend, Activation::Silu, &[0.0; 3], &mut y));
        softmax_rows(backend, &mut [], 0).unwrap();
        softmax_rows(backend, &mut [], 5).unwrap();
        length(softmax_rows(backend, &mut y, 3));
        let shape = RopeShape { pos: 2, heads: 1, d_head: 4, d_rotary: 4, pairs: RopeLayout::Half };
        rope(backend, &mut y, shape, &[1.0; 4], &[0.0; 4]).unwrap();
        rope(backend, &mut [], shape, &[1.0; 4], &[0.0; 4]).unwrap();
        length(rope(backend, &mut y[1..], shape, &[1.0; 4], &[0.0; 4]));
        length(rope(backend, &mut y, shape, &[1.0; 3], &[0.0; 4]));
        length(rope(backend, &mut y, shape, &[1.0; 4], &[0.0; 5]));
        for d_rotary in [3, 6] {
            let wrong = RopeShape { d_rotary, ..shape };
            assert!(matches!(rope(backend, &mut y, wrong, &[], &[]), Err(Error::Mismatch { .. })));
        }
        let huge = RopeShape { heads: usize::MAX, pos: 4, ..shape };
        assert!(matches!(rope(backend, &mut y, huge, &[], &[]), Err(Error::TooLarge { .. })));
    }
    length(Activate::new(&mut [0.0; 7], 4, None, Activation::Relu).map(|_| ()));
    length(Gate::new(&mut [0.0; 8], 4, Some(&[0.0; 3]), Activation::Relu).map(|_| ()));
}
