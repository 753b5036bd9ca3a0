//! What must hold whatever the weights: independence of batch size and threads, few columns equal all columns, shapes.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{error, flat, gaussian};
use sae_core::{
    Activation, Codes, Coupling, EncodeScratch, Engine, Error, FeatureSubset, InputShape, Normalization, Precision,
    Sae, SaeParts, SparseCoder, SparseFeatures,
};
use std::sync::LazyLock;

/// Wide enough that 1,100 rows take several tiles of rows and of columns, and
/// wider inside than one block of gemm's inner loop.
const D_IN: usize = 777;
const D_SAE: usize = 4_201;

fn tensor(rows: usize, columns: usize, seed: u64, scale: f32) -> Tensor {
    let values: Vec<f32> = gaussian(rows * columns, seed).iter().map(|v| v * scale).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

static WEIGHTS: LazyLock<(Tensor, Tensor)> =
    LazyLock::new(|| (tensor(D_IN, D_SAE, 1, 0.036), tensor(D_SAE, D_IN, 2, 0.036)));

fn sae(activation: Activation, normalization: Normalization) -> Sae {
    sae_on(Engine::default(), activation, normalization)
}

fn sae_on(engine: Engine, activation: Activation, normalization: Normalization) -> Sae {
    let (w_enc, w_dec) = WEIGHTS.clone();
    let b_dec: Vec<f32> = gaussian(D_IN, 3);
    let parts = SaeParts::new(w_enc, vec![-1.5; D_SAE], w_dec, b_dec.clone());
    Sae::on(engine, SaeParts { input_shift: Some(b_dec), activation, normalization, ..parts }).unwrap()
}

/// Every architecture on the kernels, one of each coupling on the reference and in bf16.
fn all_kinds() -> Vec<Sae> {
    let positive = |seed| gaussian(D_SAE, seed).iter().map(|v| v.abs()).collect::<Vec<f32>>();
    let topk = |rescale_by_decoder_norm| Activation::TopK { k: 33, rescale_by_decoder_norm };
    let mut all = vec![
        sae(Activation::Relu, Normalization::None),
        sae(Activation::JumpRelu { threshold: positive(4).into() }, Normalization::ConstantNormRescale),
        sae(
            Activation::Gated { r_mag: gaussian(D_SAE, 5).into(), b_mag: gaussian(D_SAE, 6).into() },
            Normalization::LayerNorm,
        ),
        sae(topk(false), Normalization::None),
        sae(topk(true), Normalization::LayerNorm),
    ];
    let (signed, two_sided) =
        (Activation::SignedTopK { k: 33 }, Activation::AbsTopK { k: 33, rescale_by_decoder_norm: true });
    all.push(sae_on(Engine::Reference, two_sided.clone(), Normalization::None));
    all.push(sae(two_sided, Normalization::None));
    all.push(sae(signed, Normalization::ConstantNormRescale));
    for engine in [Engine::Reference, Engine::kernels(Precision::Bf16)] {
        all.push(sae_on(engine, Activation::Relu, Normalization::None));
        all.push(sae_on(engine, topk(true), Normalization::None));
    }
    all
}

/// `x~ W_enc + b_enc` in f64 for the architectures without a normalization, and what the activation makes of it for all.
#[test]
fn pre_activations_are_what_the_activation_reads() {
    let x = tensor(7, D_IN, 9, 1.0);
    for sae in all_kinds() {
        let (pre, f) = (flat(&sae.pre_acts(&x).unwrap()), flat(&sae.encode_dense(&x).unwrap()));
        assert!(f.iter().filter(|f| **f != 0.0).count() > 100, "{sae:?}");
        let norms: Vec<f32> = flat(&sae.w_dec().sqr().unwrap().sum(1).unwrap().sqrt().unwrap());
        for (i, (&pre, &f)) in pre.iter().zip(&f).enumerate() {
            let expected = if sae.activation().rescales_by_decoder_norm() { pre * norms[i % D_SAE] } else { pre };
            match sae.activation() {
                Activation::Relu => assert_eq!(f, pre.max(0.0), "{sae:?}"),
                Activation::JumpRelu { threshold } if pre > threshold[i % D_SAE] => assert_eq!(f, pre),
                Activation::JumpRelu { .. } => assert_eq!(f, 0.0),
                _ if f == 0.0 => {}
                _ => assert!((f - expected).abs() <= 1e-5 * expected.abs(), "{sae:?}: {f}, expected {expected}"),
            }
        }
        let coarse = sae.engine().arithmetic().is_some_and(|a| a.precision() == Precision::Bf16);
        if sae.normalization() == Normalization::None && !coarse {
            let (w_enc, shift) = (flat(&WEIGHTS.0), gaussian(D_IN, 3));
            let (row, column) = (5, 1234);
            let x = &flat(&x)[row * D_IN..][..D_IN];
            let dot = |(i, (x, b)): (usize, (&f32, &f32))| f64::from(x - b) * f64::from(w_enc[i * D_SAE + column]);
            let expected = x.iter().zip(&shift).enumerate().map(dot).sum::<f64>() - 1.5;
            assert!((f64::from(pre[row * D_SAE + column]) - expected).abs() < 1e-4, "{sae:?}");
        }
    }
    /// Has the required methods alone.
    struct Closed;
    impl SparseCoder for Closed {
        fn d_in(&self) -> usize {
            1
        }
        fn d_sae(&self) -> usize {
            1
        }
        fn coupling(&self) -> Coupling {
            Coupling::Coupled
        }
        fn encode(&self, _: &Tensor) -> sae_core::Result<Codes> {
            Err(Error::NoPreActs)
        }
        fn decode(&self, _: &Codes) -> sae_core::Result<Tensor> {
            Err(Error::NoPreActs)
        }
        fn decoder_rows(&self, _: &[u32]) -> sae_core::Result<Tensor> {
            Err(Error::NoPreActs)
        }
    }
    assert!(matches!((Box::new(Closed) as Box<dyn SparseCoder>).pre_acts(&x), Err(Error::NoPreActs)));
}

#[test]
fn threads_change_nothing() {
    let x = tensor(1100, D_IN, 10, 1.0);
    for sae in all_kinds() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let forward = sae.forward(&x).unwrap();
                (forward.codes, flat(&forward.x_hat))
            })
        };
        assert!(on(1) == on(3), "{sae:?}: one thread and three differ");
    }
}

#[test]
fn batch_size_changes_nothing() {
    let x = tensor(1100, D_IN, 11, 1.0);
    for sae in all_kinds() {
        let whole = sae.encode(&x).unwrap();
        assert!(whole.features.l0() > 5.0, "{sae:?}: {}", whole.features.l0());
        for size in [1, 2, 3, 7, 64, 65, 512, 1025] {
            for start in (0..1100).step_by(size).take(3) {
                let rows = size.min(1100 - start);
                let part = sae.encode(&x.narrow(0, start, rows).unwrap()).unwrap();
                let same = whole.features.select_rows(&(start..start + rows).collect::<Vec<_>>());
                assert!(part.features == same, "{sae:?}, {size} rows at a time");
            }
        }
    }
}

#[test]
fn few_columns_equal_all_columns() {
    let x = tensor(60, D_IN, 12, 1.0).reshape((3, 20, D_IN)).unwrap();
    let features = [5, 4_200, 0, 5, 4_095, 4_096, 17];
    let wanted = Tensor::new(&features, &Device::Cpu).unwrap();
    for sae in all_kinds() {
        let all = sae.encode_dense(&x).unwrap();
        assert_eq!(all.dims(), [3, 20, D_SAE]);
        let expected = all.index_select(&wanted, 2).unwrap();
        let found = sae.encode_only(&x, &features).unwrap();
        assert_eq!(found.dims(), [3, 20, features.len()]);
        assert_eq!(flat(&found), flat(&expected), "{sae:?}");
        for count in 1..features.len() {
            for rows in [1, 2, 20] {
                let x = x.narrow(1, 0, rows).unwrap();
                let few = sae.encode_only(&x, &features[..count]).unwrap();
                let expected = expected.narrow(1, 0, rows).unwrap().narrow(2, 0, count).unwrap();
                assert_eq!(flat(&few), flat(&expected), "{sae:?}, {rows} x {count}");
            }
        }
        let many: Vec<u32> = (0..70).collect();
        let few = sae.encode_only(&x.narrow(0, 0, 1).unwrap().narrow(1, 0, 2).unwrap(), &many).unwrap();
        let expected = all.narrow(0, 0, 1).unwrap().narrow(1, 0, 2).unwrap().narrow(2, 0, 70).unwrap();
        assert_eq!(flat(&few), flat(&expected), "{sae:?}");
        let selected = sae.select(&features).unwrap();
        assert_eq!(selected.features(), features);
        assert_eq!(flat(&selected.encode(&x).unwrap()), flat(&found));
        let alone =
            matches!(sae.activation(), Activation::Relu | Activation::JumpRelu { .. } | Activation::Gated { .. });
        let coupled = !alone;
        assert_eq!(sae.coupling(), if coupled { Coupling::Coupled } else { Coupling::Independent });
    }
}

#[test]
fn a_feature_out_of_range_is_named() {
    let sae = sae(Activation::Relu, Normalization::None);
    let x = tensor(2, D_IN, 1, 1.0);
    for error in [
        sae.encode_only(&x, &[1, 4_201]).unwrap_err(),
        sae.decoder_rows(&[4_201]).unwrap_err(),
        sae.select(&[4_201]).err().unwrap(),
    ] {
        assert_eq!(error.to_string(), "feature 4201 is outside this SAE, whose features are 0..4201");
    }
    assert_eq!(sae.encode_only(&x, &[]).unwrap().dims(), [2, 0]);
}

#[test]
fn decoder_rows_rebuild_the_reconstruction() {
    // All features of a token, decoded by hand from dense activations, plus b_dec, is what decode gives.
    for sae in all_kinds() {
        if sae.normalization().is_per_token() {
            continue;
        }
        let x = tensor(1, D_IN, 13, 1.0);
        let codes = sae.encode(&x).unwrap();
        let fired = codes.features.index().to_vec();
        let acts = sae.encode_only(&x, &fired).unwrap();
        let by_hand = acts.matmul(&sae.decoder_rows(&fired).unwrap()).unwrap();
        let by_hand = by_hand.broadcast_add(&Tensor::new(sae.b_dec(), &Device::Cpu).unwrap()).unwrap();
        assert!(error(&by_hand, &sae.decode(&codes).unwrap()) < 1e-6, "{sae:?}");
    }
}

#[test]
fn encode_into_reuses_and_replaces() {
    let sae = sae(Activation::Relu, Normalization::LayerNorm);
    let (mut scratch, mut codes) = (EncodeScratch::default(), Codes::from_features(SparseFeatures::empty(3)));
    for (rows, seed) in [(30, 20), (4, 21), (0, 22), (30, 23)] {
        let x = tensor(rows, D_IN, seed, 1.0);
        sae.encode_into(&x, &mut scratch, &mut codes).unwrap();
        assert_eq!(codes, sae.encode(&x).unwrap());
    }
}

#[test]
fn shapes_in_and_out() {
    let z = |act_shape| {
        let parts = SaeParts::new(tensor(6, 10, 1, 0.5), vec![0.0; 10], tensor(10, 6, 2, 0.5), vec![0.0; 6]);
        Sae::new(SaeParts { act_shape, ..parts }).unwrap()
    };
    let (heads, plain) = (z(InputShape::PerHead), z(InputShape::Flat));
    let x = tensor(8, 6, 3, 1.0);
    let split = x.reshape((2, 4, 3, 2)).unwrap();
    let forward = heads.forward(&split).unwrap();
    assert_eq!(forward.x_hat.dims(), [2, 4, 3, 2]);
    assert_eq!(forward.codes.to_dense().unwrap().dims(), [2, 4, 10]);
    assert_eq!(flat(&forward.x_hat), flat(&plain.forward(&x).unwrap().x_hat));
    assert_eq!(heads.forward(&x).unwrap().x_hat.dims(), [8, 6]);
    let error = plain.encode(&split).unwrap_err();
    assert_eq!(error.to_string(), "input has shape [2, 4, 3, 2], expected [.., d_in=6]");
    assert!(heads.encode(&tensor(4, 5, 1, 1.0)).unwrap_err().to_string().contains("head*d_head=6"));
    let vector = x.narrow(0, 0, 1).unwrap().reshape(6).unwrap();
    assert_eq!(plain.forward(&vector).unwrap().x_hat.dims(), [6]);
    assert_eq!(plain.encode_dense(&vector).unwrap().dims(), [10]);
    let none = plain.forward(&Tensor::zeros((0, 5, 6), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(none.x_hat.dims(), [0, 5, 6]);
    assert_eq!(none.codes.features.rows(), 0);
    assert!(plain.encode(&Tensor::new(1f32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn other_float_types_and_strides_are_taken_integers_are_not() {
    let sae = sae(Activation::Relu, Normalization::None);
    let x = tensor(5, D_IN, 30, 1.0).to_dtype(DType::BF16).unwrap();
    let wide = x.to_dtype(DType::F32).unwrap();
    assert_eq!(sae.encode(&x).unwrap(), sae.encode(&wide).unwrap());
    let strided = wide.t().unwrap().contiguous().unwrap().t().unwrap();
    assert_eq!(sae.encode(&strided).unwrap(), sae.encode(&wide).unwrap());
    let error = sae.encode(&x.to_dtype(DType::I64).unwrap()).unwrap_err();
    assert!(matches!(error, Error::InputType { found: DType::I64 }), "{error}");
}

#[test]
fn an_input_that_is_not_finite_is_named() {
    let sae = sae(Activation::Relu, Normalization::None);
    let mut values = vec![0f32; 3 * D_IN];
    values[D_IN + 4] = f32::NAN;
    let error = sae.encode(&Tensor::from_vec(values, (3, D_IN), &Device::Cpu).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "`input` holds NaN at row 1, column 4; it must be finite");
}

#[test]
fn codes_of_another_sae_are_refused() {
    let plain = sae(Activation::Relu, Normalization::None);
    let normed = sae(Activation::Relu, Normalization::LayerNorm);
    let x = tensor(4, D_IN, 40, 1.0);
    let codes = plain.encode(&x).unwrap();
    let error = normed.decode(&codes).unwrap_err();
    assert_eq!(error.to_string(), "codes do not fit this SAE: per-token norm is absent, expected present");
    let narrow = Codes::from_features(SparseFeatures::empty(7));
    let error = plain.decode(&narrow).unwrap_err();
    assert_eq!(error.to_string(), "codes do not fit this SAE: d_sae is 7, expected 4201");
    assert!(codes.with_features(SparseFeatures::empty(4_201)).is_err());
    let ablated = codes.with_features(codes.features.keep(&[]).unwrap()).unwrap();
    let expected: Vec<f32> = plain.b_dec().repeat(4);
    assert_eq!(flat(&plain.decode(&ablated).unwrap()), expected);
}

#[test]
fn dense_features_decode_like_sparse_ones() {
    let sae = sae(Activation::TopK { k: 9, rescale_by_decoder_norm: true }, Normalization::None);
    let x = tensor(6, D_IN, 41, 1.0).reshape((2, 3, D_IN)).unwrap();
    let codes = sae.encode(&x).unwrap();
    let dense = sae.decode_dense(&codes.to_dense().unwrap()).unwrap();
    assert_eq!(dense.dims(), [2, 3, D_IN]);
    assert_eq!(flat(&dense), flat(&sae.decode(&codes).unwrap()));
}

#[test]
fn works_behind_pointers_and_across_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Sae>();
    shared::<FeatureSubset>();
    shared::<Codes>();
    let coder: Box<dyn SparseCoder> = Box::new(sae(Activation::Relu, Normalization::None));
    let x = tensor(2, D_IN, 42, 1.0);
    let borrowed: &dyn SparseCoder = &&coder;
    assert_eq!(borrowed.encode(&x).unwrap(), coder.encode(&x).unwrap());
    let text = format!("{:?}", sae(Activation::TopK { k: 3, rescale_by_decoder_norm: false }, Normalization::None));
    for part in ["architecture: \"topk\"", "d_in: 777", "d_sae: 4201", "k: Some(3.0)"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn weights_are_held_once_and_given_back_where_they_are_exact() {
    let plain = sae_on(Engine::Reference, Activation::Relu, Normalization::None);
    let matrix = D_IN * D_SAE * size_of::<f32>();
    assert_eq!(plain.weight_bytes(), 2 * matrix);
    for engine in common::engines() {
        let sae = plain.with_engine(engine).unwrap();
        assert_eq!(sae.engine(), engine);
        // Packed panels are rounded up to whole columns, steps and pages.
        assert!(sae.weight_bytes() < 2 * matrix + matrix / 4, "{engine}: {}", sae.weight_bytes());
        let dir = tempfile::tempdir().unwrap();
        if engine.arithmetic().is_none_or(|arithmetic| arithmetic.is_exact()) {
            assert_eq!(flat(&sae.w_enc_t().unwrap()), flat(&plain.w_enc_t().unwrap()), "{engine}");
            assert!(sae.with_engine(Engine::Reference).is_ok() && sae.save(dir.path()).is_ok());
            continue;
        }
        for error in [
            sae.w_enc_t().unwrap_err(),
            sae.with_engine(Engine::Reference).unwrap_err(),
            sae.fold_w_dec_norm().unwrap_err(),
            sae.fold_norm_factor(2.0).unwrap_err(),
            sae.save(dir.path()).unwrap_err(),
        ] {
            assert!(matches!(error, Error::RoundedWeights { .. }), "{error}");
            assert!(error.to_string().contains("LoadOptions { engine: Engine::Reference, .. }"), "{error}");
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is written");
    }
}

#[test]
fn engines_agree_within_their_precision() {
    let x = tensor(70, D_IN, 43, 1.0);
    let plain = sae_on(Engine::Reference, Activation::Relu, Normalization::LayerNorm);
    let right = plain.encode_dense(&x).unwrap();
    for engine in common::engines() {
        let tolerance = match engine.arithmetic().map(|arithmetic| arithmetic.precision()) {
            None | Some(Precision::F32) => 2e-5,
            Some(Precision::F32Fast) => 1e-4,
            _ => 0.05,
        };
        let found = plain.with_engine(engine).unwrap().encode_dense(&x).unwrap();
        assert!(error(&found, &right) < tolerance, "{engine}: {}", error(&found, &right));
    }
}

#[test]
fn parts_are_checked() {
    let parts = || SaeParts::new(tensor(4, 6, 1, 1.0), vec![0.0; 6], tensor(6, 4, 2, 1.0), vec![0.0; 4]);
    let refused = |parts: SaeParts, says: &str| {
        let error = Sae::new(parts).unwrap_err().to_string();
        assert!(error.contains(says), "`{error}` does not say `{says}`");
    };
    let topk = |k| Activation::TopK { k, rescale_by_decoder_norm: false };
    refused(SaeParts { w_dec: tensor(4, 6, 1, 1.0), ..parts() }, "`W_dec` has shape [4, 6], expected [6, 4]");
    refused(SaeParts { w_enc: tensor(1, 24, 1, 1.0).reshape(24).unwrap(), ..parts() }, "`W_enc` has shape [24]");
    refused(SaeParts { b_enc: vec![0.0; 5], ..parts() }, "`b_enc` has shape [5], expected [6]");
    refused(SaeParts { b_dec: vec![f32::NAN; 4], ..parts() }, "`b_dec` holds NaN at row 0, column 0");
    refused(SaeParts { input_shift: Some(vec![0.0; 3]), ..parts() }, "`input_shift` has shape [3]");
    refused(SaeParts { sparsity: Some(vec![0.0; 3]), ..parts() }, "`sparsity` has shape [3]");
    refused(SaeParts { activation: topk(0), ..parts() }, "`k` is 0, expected 1 to d_sae=6");
    refused(SaeParts { activation: topk(7), ..parts() }, "`k` is 7");
    let threshold = vec![0.0; 5].into();
    refused(SaeParts { activation: Activation::JumpRelu { threshold }, ..parts() }, "`threshold` has shape [5]");
    let mut bad = flat(&tensor(6, 4, 2, 1.0));
    bad[9] = f32::INFINITY;
    let w_dec = Tensor::from_vec(bad, (6, 4), &Device::Cpu).unwrap();
    refused(SaeParts { w_dec, ..parts() }, "`W_dec` holds inf at row 2, column 1");
    let none = Tensor::zeros((0, 6), DType::F32, &Device::Cpu).unwrap();
    let w_dec = Tensor::zeros((6, 0), DType::F32, &Device::Cpu).unwrap();
    refused(SaeParts { w_enc: none, w_dec, b_dec: vec![], ..parts() }, "`d_in` is 0");
    let sae = Sae::new(parts()).unwrap();
    assert_eq!(sae.hook_name().unwrap_err().to_string(), "the SAE's metadata has no `hook_name`");
    assert!(sae.fold_norm_factor(0.0).unwrap_err().to_string().contains("`s` is 0"));
}

/// 4,200 features in 100 groups of 42, which no tile of the products divides: groups whose ends are looked at apart, and a choice over 1,100
/// rows, against the same choice of dense pre-activations.
#[test]
fn choices_across_tiles_are_those_of_dense_pre_activations() {
    let (rows, width) = (1_100, 4_200);
    let x = tensor(rows, 64, 50, 1.0);
    let build = |engine, activation| {
        let parts =
            SaeParts::new(tensor(64, width, 51, 0.1), vec![-0.5; width], tensor(width, 64, 52, 0.1), vec![0.0; 64]);
        Sae::on(engine, SaeParts { activation, ..parts }).unwrap()
    };
    for engine in [Engine::Reference, common::exact(), Engine::default()] {
        let groups = build(engine, Activation::GroupMax { k: 100 });
        let pre = flat(&groups.pre_acts(&x).unwrap());
        let codes = groups.encode(&x).unwrap();
        for (row, (index, value)) in codes.features.iter().enumerate() {
            let expected: Vec<(u32, f32)> = (0..100)
                .filter_map(|group| {
                    let h = &pre[row * width + group * 42..][..42];
                    let best = h.iter().copied().fold(0.0, f32::max);
                    let at = h.iter().position(|&v| v == best && v > 0.0)?;
                    Some(((group * 42 + at) as u32, best))
                })
                .collect();
            let found: Vec<(u32, f32)> = index.iter().copied().zip(value.iter().copied()).collect();
            assert!(found == expected && found.len() > 50, "{engine}: row {row}");
        }
        let batch = build(engine, Activation::BatchTopK { k: 7.3, rescale_by_decoder_norm: false });
        let codes = batch.encode(&x).unwrap();
        let mut order: Vec<usize> = (0..pre.len()).filter(|&at| pre[at] > 0.0).collect();
        order.sort_by(|&a, &b| pre[b].total_cmp(&pre[a]).then(a.cmp(&b)));
        order.truncate(8_030);
        order.sort_unstable();
        let found: Vec<usize> = codes
            .features
            .iter()
            .enumerate()
            .flat_map(|(row, (index, _))| index.iter().map(move |j| row * width + *j as usize))
            .collect();
        assert!(found == order, "{engine}: {} of the batch", found.len());
        let half = batch.encode(&x.narrow(0, 0, 550).unwrap()).unwrap();
        let same = codes.features.select_rows(&(0..550).collect::<Vec<_>>());
        assert!(half.features.nnz() == 4_015 && half.features != same, "a batch chooses for itself");
    }
}

/// The first features of a matryoshka SAE: the SAE made of them alone encodes as they do among all, and decodes as their codes do.
#[test]
fn the_first_features_are_an_sae_of_their_own() {
    let x = tensor(9, D_IN, 60, 1.0);
    for sae in all_kinds() {
        let exact = sae.engine().arithmetic().is_none_or(|arithmetic| arithmetic.is_exact());
        let codes = sae.encode(&x).unwrap();
        let first = codes.with_features(codes.features.first(700)).unwrap();
        match sae.truncated(700) {
            Ok(small) => {
                let own = small.forward(&x).unwrap();
                assert_eq!(
                    (own.codes.features.index(), own.codes.features.value()),
                    (first.features.index(), first.features.value())
                );
                assert_eq!(small.d_sae(), 700);
                assert!(error(&own.x_hat, &sae.decode(&first).unwrap()) < 1e-6, "{sae:?}");
            }
            Err(error) if sae.coupling() == Coupling::Coupled => assert!(matches!(error, Error::CannotFold { .. })),
            Err(error) => assert!(!exact && matches!(error, Error::RoundedWeights { .. }), "{error}"),
        }
        assert!(first.features.nnz() > 0 && first.features.index().iter().all(|&j| j < 700));
        assert!(matches!(sae.truncated(0), Err(Error::Parameter { .. })));
        assert!(matches!(sae.truncated(D_SAE + 1), Err(Error::Parameter { .. })));
    }
}
