//! The invariants of sparse features, and what can be done with them.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{flat, gaussian};
use proptest::prelude::*;
use sae_core::{Error, SparseFeatures};

fn refused(indptr: &[u64], index: &[u32], value: &[f32], says: &str) {
    let error = SparseFeatures::new(indptr.to_vec(), index.to_vec(), value.to_vec(), 10).unwrap_err();
    assert!(matches!(error, Error::Sparse { .. }));
    assert!(error.to_string().contains(says), "`{error}` does not say `{says}`");
}

#[test]
fn every_broken_invariant_is_named() {
    refused(&[], &[], &[], "indptr starts with None");
    refused(&[1], &[], &[], "indptr starts with Some(1), expected 0");
    refused(&[0, 1], &[3], &[], "1 indices but 0 values");
    refused(&[0, 1], &[3, 4], &[1., 2.], "indptr ends with Some(1), expected 2");
    refused(&[0, 2, 1, 2], &[3, 4], &[1., 2.], "row 1 runs from 2 to 1");
    refused(&[0, 9, 2], &[3, 4], &[1., 2.], "row 0 runs from 0 to 9 of 2");
    refused(&[0, 2], &[4, 3], &[1., 2.], "row 0 has feature 4 before 3");
    refused(&[0, 2], &[4, 4], &[1., 2.], "row 0 has feature 4 before 4");
    refused(&[0, 1, 2], &[4, 10], &[1., 2.], "row 1 has feature 10, d_sae is 10");
}

#[test]
fn signed_and_empty_rows_are_fine() {
    let sparse = SparseFeatures::new(vec![0, 0, 2], vec![0, 9], vec![-1.0, 2.0], 10).unwrap();
    assert_eq!(sparse.rows(), 2);
    assert_eq!(sparse.l0(), 1.0);
    assert_eq!(sparse.row(0), (&[][..], &[][..]));
    assert_eq!((sparse.get(1, 0), sparse.get(1, 9), sparse.get(1, 5), sparse.get(0, 0)), (-1.0, 2.0, 0.0, 0.0));
    let columns = sparse.columns(&[9, 0, 9]).unwrap();
    assert_eq!(columns.to_vec2::<f32>().unwrap(), [[0., 0., 0.], [2., -1., 2.]]);
    assert_eq!(sparse.keep(&[9, 1]).unwrap().row(1), (&[9u32][..], &[2f32][..]));
    assert_eq!(sparse.select_rows(&[1, 1, 0]).nnz(), 4);
    let error = sparse.columns(&[3, 10]).unwrap_err();
    assert_eq!(error.to_string(), "feature 10 is outside this SAE, whose features are 0..10");
    assert_eq!(sparse.columns(&[]).unwrap().dims(), [2, 0]);
}

#[test]
fn no_rows() {
    let none = SparseFeatures::from_dense(&Tensor::zeros((0, 7), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!((none.rows(), none.nnz(), none.d_sae(), none.l0()), (0, 0, 7, 0.0));
    assert_eq!(none.to_dense().unwrap().dims(), [0, 7]);
}

proptest! {
    #[test]
    fn dense_and_back(rows in 0usize..6, d_sae in 1usize..9, seed in any::<u32>()) {
        let values: Vec<f32> = gaussian(rows * d_sae, u64::from(seed)).iter().map(|v| if *v > 0.3 { *v } else { 0.0 }).collect();
        let dense = Tensor::from_vec(values, (rows, d_sae), &Device::Cpu).unwrap();
        let sparse = SparseFeatures::from_dense(&dense).unwrap();
        prop_assert_eq!(flat(&sparse.to_dense().unwrap()), flat(&dense));
        let (indptr, index, value, width) = sparse.clone().into_parts();
        prop_assert_eq!(&SparseFeatures::new(indptr, index, value, width).unwrap(), &sparse);
        let all: Vec<u32> = (0..d_sae as u32).collect();
        prop_assert_eq!(flat(&sparse.columns(&all).unwrap()), flat(&dense));
        prop_assert_eq!(sparse.keep(&all).unwrap(), sparse);
    }
}
