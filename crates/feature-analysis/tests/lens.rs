//! The blockwise projection against the whole matrix, sorted.

use candle_core::{Device, Tensor};
use feature_analysis::{Error, Extremes, LensOptions, project_directions, project_directions_on};
use proptest::prelude::*;
use tensor_kernels::{MatrixRef, Operand, PackedMatrix};

fn project(directions: &Tensor, w_u: &Tensor, options: &LensOptions) -> Result<Vec<Extremes>, Error> {
    let rows = |r: std::ops::Range<usize>| Ok(directions.narrow(0, r.start, r.len())?);
    let columns = |start, len| Ok(w_u.narrow(1, start, len)?.contiguous()?);
    project_directions(directions.dim(0)?, w_u.dim(1)?, rows, columns, options)
}

fn options(top: usize, bottom: usize, block_features: usize, block_tokens: usize) -> LensOptions {
    let mut options = LensOptions::default();
    (options.top, options.bottom, options.block_features, options.block_tokens) =
        (top, bottom, block_features, block_tokens);
    options
}

#[test]
fn by_hand_with_ties() {
    let directions = Tensor::new(&[[1f32, 0.], [0., -1.]], &Device::Cpu).unwrap();
    let w_u = Tensor::new(&[[2f32, 5., 5., -1., 2.], [0., 1., 0., 3., 1.]], &Device::Cpu).unwrap();
    let got = project(&directions, &w_u, &options(3, 2, 1, 2)).unwrap();
    assert_eq!(got[0].top, [(1, 5.0), (2, 5.0), (0, 2.0)], "equal values: lower token id first");
    assert_eq!(got[0].bottom, [(3, -1.0), (0, 2.0)]);
    assert_eq!(got[1].top, [(0, 0.0), (2, 0.0), (1, -1.0)]);
    assert_eq!(got[1].bottom, [(3, -3.0), (1, -1.0)]);
}

#[test]
fn refusals() {
    let one = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
    let w_u = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
    assert!(project(&one, &w_u, &options(1, 1, 8, 8)).unwrap_err().to_string().contains("NaN at row 0, column 0"));
    let wide = Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu).unwrap();
    let message = project(&wide, &w_u, &options(1, 1, 8, 8)).unwrap_err().to_string();
    assert_eq!(message, "the directions' width is 3, but d_model is 2; they must be equal");
    assert!(project(&w_u, &w_u, &options(1, 1, 0, 8)).unwrap_err().to_string().contains("block_features"));
}

proptest! {
    #[test]
    fn blocks_do_not_matter(
        n in 1usize..7, d in 1usize..5, vocab in 1usize..40, top in 0usize..6, bottom in 0usize..6,
        block_features in 1usize..8, block_tokens in 1usize..45, seed in any::<u32>(),
    ) {
        // Small integers: products are exact in any order, and ties are common.
        let mut state = seed;
        let mut small = |count: usize| -> Vec<f32> {
            (0..count).map(|_| { state = state.wrapping_mul(1664525).wrapping_add(1013904223); ((state >> 24) % 5) as f32 - 2.0 }).collect()
        };
        let a = Tensor::from_vec(small(n * d), (n, d), &Device::Cpu).unwrap();
        let b = Tensor::from_vec(small(d * vocab), (d, vocab), &Device::Cpu).unwrap();
        let options = options(top, bottom, block_features, block_tokens);
        let got = project(&a, &b, &options).unwrap();
        let flat: Vec<f32> = b.flatten_all().unwrap().to_vec1().unwrap();
        let plain = MatrixRef::row_major(&flat, d, vocab).unwrap();
        let packed = PackedMatrix::pack(options.arithmetic, plain).unwrap();
        for w_u in [Operand::Plain(plain), Operand::Packed(&packed)] {
            let rows = |r: std::ops::Range<usize>| Ok(a.narrow(0, r.start, r.len())?);
            prop_assert_eq!(&project_directions_on(n, rows, w_u, &options).unwrap(), &got);
        }
        for (row, got) in a.matmul(&b).unwrap().to_vec2::<f32>().unwrap().into_iter().zip(got) {
            let mut all: Vec<(u32, f32)> = row.into_iter().enumerate().map(|(i, v)| (i as u32, v)).collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
            prop_assert_eq!(&got.top[..], &all[..top.min(vocab)]);
            all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then(a.0.cmp(&b.0)));
            prop_assert_eq!(&got.bottom[..], &all[..bottom.min(vocab)]);
        }
    }
}
