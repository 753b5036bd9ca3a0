//! What is particular to the kernels: edits that change nothing, memory that is shared by runs, gradients that they do not have.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{Golden, assert_close, assert_same_bits, engines, model_on};
use model_hooks::{
    Capture, Edit, Engine, Error, HookPoint, LanguageModel, LoadOptions, NoTap, Precision, Processing, Site, Start,
    edit_at,
};
use tensor_kernels::{PackedRows, Store, product};

fn kernels() -> impl Iterator<Item = Engine> {
    engines().filter(|engine| engine.arithmetic().is_some())
}

/// One family each of layer norms, of RMS norms, of attention and MLP side by side.
const NAMES: [&str; 3] = ["gpt2", "llama", "gptj"];

/// Every engine with them.
fn each(engines: impl Iterator<Item = Engine>, check: impl Fn(&str, &LanguageModel, &Golden)) {
    for engine in engines {
        for name in NAMES {
            let (model, golden) = (model_on(name, Processing::None, engine), Golden::open(name));
            check(&format!("{name} on {engine}"), &model, &golden);
        }
    }
}

/// An edit sends the value out as a tensor and back: what follows is computed from it with the same bits, staged or fused.
#[test]
fn an_edit_that_changes_nothing_changes_no_bit() {
    each(kernels(), |name, model, golden| {
        let plain = model.hooked().forward(&golden.tokens(), &mut NoTap).unwrap();
        for &point in model.hooked().hook_points() {
            // The sum of the heads' results rounds differently, which is why they are computed beside the path.
            if point.site() == Some(Site::Result) {
                continue;
            }
            let mut same = edit_at(point, |_, x| Ok(x));
            let edited = model.hooked().forward(&golden.tokens(), &mut same).unwrap();
            assert_same_bits(&format!("{name}: {point}"), &edited, &plain);
        }
    });
}

/// Edited scores and patterns reach `z` as on the reference.
#[test]
fn edits_inside_attention_agree_with_the_reference() {
    for name in ["gpt2", "llama"] {
        let reference = model_on(name, Processing::None, Engine::Reference);
        let tokens = Golden::open(name).tokens();
        let z: HookPoint = "blocks.1.attn.hook_z".parse().unwrap();
        for point in ["blocks.1.attn.hook_attn_scores", "blocks.1.attn.hook_pattern"] {
            let point = point.parse().unwrap();
            let run = |model: &LanguageModel| {
                let mut taps = (Edit::scale(point, 0.5).head(1), Capture::new([z]));
                model.hooked().forward_until(&tokens, z, &mut taps).unwrap();
                taps.1.take(z).unwrap()
            };
            let expected = run(&reference);
            for engine in kernels() {
                let tolerance = common::tolerance(engine, 2e-5);
                let found = run(&model_on(name, Processing::None, engine));
                assert_close(&format!("{name} {point} on {engine}"), &found, &expected, tolerance);
            }
        }
    }
}

#[test]
fn runs_at_the_same_time_share_memory_but_no_values() {
    each(kernels(), |name, model, golden| {
        let tokens = golden.tokens();
        let plain = model.hooked().forward(&tokens, &mut NoTap).unwrap();
        std::thread::scope(|scope| {
            let run = || {
                for _ in 0..3 {
                    assert_same_bits(name, &model.hooked().forward(&tokens, &mut NoTap).unwrap(), &plain);
                }
            };
            (0..4).for_each(|_| drop(scope.spawn(run)));
        });
    });
}

#[test]
fn a_run_that_failed_leaves_nothing_behind() {
    each(kernels(), |name, model, golden| {
        let tokens = golden.tokens();
        let plain = model.hooked().forward(&tokens, &mut NoTap).unwrap();
        for &point in model.hooked().hook_points() {
            assert!(model.hooked().forward(&tokens, &mut edit_at(point, |_, _| Err(Error::NoLogits))).is_err());
            model.hooked().forward_until(&tokens, point, &mut NoTap).unwrap();
        }
        assert_same_bits(name, &model.hooked().forward(&tokens, &mut NoTap).unwrap(), &plain);
    });
}

#[test]
fn gradients_are_refused_by_the_kernels_with_the_way_out() {
    each(engines(), |name, model, golden| {
        let (tokens, d_model) = (golden.tokens(), model.shape().d_model);
        let shape = (tokens.batch(), tokens.pos(), d_model);
        let variable = Var::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tracked = (variable.as_tensor() * 2.0).unwrap();
        let point = HookPoint::Block { layer: 1, site: Site::ResidPost };
        let start =
            |resid| model.hooked().run(&tokens, Start::Residual { layer: 1, resid }, None, &mut NoTap).map(drop);
        let patched = model.hooked().forward(&tokens, &mut Edit::patch(point, tracked.clone())).map(drop);
        let unembedded = model.hooked().unembed(&tracked).map(drop);
        for answer in [start(variable.as_tensor()), start(&tracked), patched, unembedded] {
            match model.engine() {
                Engine::Reference => answer.unwrap(),
                Engine::Kernels(_) => {
                    let error = answer.unwrap_err();
                    assert!(matches!(error, Error::NoGradients { .. }), "{name}: {error}");
                    assert!(error.to_string().contains("engine: Engine::Reference"), "{error}");
                }
            }
        }
        // Arithmetic on tensors that track nothing is no gradient.
        let plain = tracked.detach();
        model.hooked().forward(&tokens, &mut edit_at(point, move |_, x| Ok(((x * 2.0)? + &plain)?))).unwrap();
    });
}

#[test]
fn the_unembedding_is_lent_to_products() {
    for engine in kernels() {
        for (name, processing) in
            [("gpt2", Processing::None), ("gpt2", Processing::TransformerLens), ("llama", Processing::None)]
        {
            let model = model_on(name, processing, engine);
            let (arithmetic, w_u) = (engine.arithmetic().unwrap(), model.hooked().w_u_operand().unwrap());
            let (d_model, d_vocab) = (model.shape().d_model, model.shape().d_vocab);
            assert_eq!((w_u.k(), w_u.n()), (d_model, d_vocab));
            // Rows of the identity read the matrix back.
            let mut eye = vec![0.0; d_model * d_model];
            (0..d_model).for_each(|i| eye[i * (d_model + 1)] = 1.0);
            let (mut rows, mut out) = (PackedRows::new(), vec![0.0; d_model * d_vocab]);
            rows.pack(arithmetic, &eye, d_model).unwrap();
            product(&rows, w_u, Store::new(&mut out, d_vocab, None).unwrap()).unwrap();
            let out = Tensor::from_vec(out, (d_model, d_vocab), &Device::Cpu).unwrap();
            // A weight's rounding over the rms of all weights, of which the largest is several times the rms.
            let tolerance = match arithmetic.precision() {
                Precision::Bf16 => 2e-2,
                Precision::F32Fast => 5e-5,
                _ => 2e-5,
            };
            assert_close(
                &format!("{name} on {engine}"),
                &out,
                &model.hooked().w_u_columns(0, d_vocab).unwrap(),
                tolerance,
            );
        }
    }
    assert!(model_on("gpt2", Processing::None, Engine::Reference).hooked().w_u_operand().is_none());
}

#[test]
fn the_engine_is_an_option_and_is_reported() {
    assert_eq!(LoadOptions::default().engine, Engine::default());
    assert_eq!(LoadOptions::default().precision(Precision::Bf16).engine, Engine::kernels(Precision::Bf16));
    for engine in engines() {
        assert_eq!(model_on("gpt2", Processing::None, engine).engine(), engine);
    }
}

/// The reference does what the refusal above promises: gradients of the logits with respect to a residual, against differences.
#[test]
fn the_reference_has_gradients() {
    for name in ["gpt2", "llama", "gptj", "neox_parallel", "gpt_neo", "phi3_partial"] {
        let (model, golden) = (model_on(name, Processing::None, Engine::Reference), Golden::open(name));
        let tokens = golden.tokens();
        let point = HookPoint::Block { layer: 1, site: Site::ResidPre };
        let mut capture = Capture::new([point]);
        model.hooked().forward_until(&tokens, point, &mut capture).unwrap();
        let resid = capture.take(point).unwrap();
        // A smooth function of all logits: their weighted sum.
        let logits = |resid: &Tensor| {
            let start = Start::Residual { layer: 1, resid };
            model.hooked().run(&tokens, start, None, &mut NoTap).unwrap().unwrap()
        };
        let plain = logits(&resid);
        let weights =
            (Tensor::arange(0f32, plain.elem_count() as f32, &Device::Cpu).unwrap() * 0.37).unwrap().sin().unwrap();
        let weights = weights.reshape(plain.dims()).unwrap();
        let value = |logits: &Tensor| (logits * &weights).unwrap().sum_all().unwrap();
        let variable = Var::from_tensor(&resid).unwrap();
        let tracked = logits(variable.as_tensor());
        assert_close(name, &tracked, &plain, 1e-4);
        let gradients = value(&tracked).backward().unwrap();
        let gradient = gradients.get(variable.as_tensor()).expect("a gradient reaches the residual");

        // Along the gradient the product stands far above the rounding of a sum of logits; the wave sees what a gradient left out.
        let squares = gradient.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let wave = Tensor::arange(0f32, resid.elem_count() as f32, &Device::Cpu).unwrap();
        let wave = (wave * 1.7).unwrap().sin().unwrap().reshape(resid.dims()).unwrap();
        let direction = ((gradient / f64::from(squares.sqrt())).unwrap() + wave).unwrap();
        let at = |step: f64| {
            let moved = (&resid + (&direction * step).unwrap()).unwrap();
            let sum = value(&logits(&moved)).to_scalar::<f32>().unwrap();
            f64::from(sum)
        };
        let step = 2e-3;
        let difference = (at(step) - at(-step)) / (2.0 * step);
        let product = f64::from((gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        assert!(
            (difference / product - 1.0).abs() < 1e-2,
            "{name}: {difference} by differences, {product} by gradients"
        );
    }
}
