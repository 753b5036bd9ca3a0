//! Gradients at every hook point of every family, against central differences.

mod common;

use candle_core::{DType, Device, IndexOp, Tensor};
use common::{Golden, MODELS, assert_close, engines, model_on, values};
use model_hooks::{
    Capture, Edit, Engine, Error, Gradients, HookPoint, LanguageModel, NoTap, Processing, Result, Site, Start,
    TokenBatch, gradients, gradients_from,
};

/// Of the derivative along a direction: steps are so small that the rounding of f32 and the curvature both stay below it.
/// What remains is largest at scales of norms, whose gradients are small.
const TOLERANCE: f64 = 1e-2;

fn reference(name: &str) -> (LanguageModel, TokenBatch) {
    (model_on(name, Processing::None, Engine::Reference), Golden::open(name).tokens())
}

/// A smooth function of all logits that is no constant anywhere: their sum with fixed weights.
fn weights(logits: &Tensor) -> Tensor {
    let n = logits.elem_count() as f32;
    let wave = (Tensor::arange(0f32, n, &Device::Cpu).unwrap() * 0.37).unwrap().sin().unwrap();
    (wave.reshape(logits.dims()).unwrap() * 0.1).unwrap()
}

fn scalar(logits: &Tensor) -> Result<Tensor> {
    Ok((logits * weights(logits))?.sum_all()?)
}

/// The same in f64, for differences.
fn precise(logits: &Tensor) -> f64 {
    values(logits).into_iter().zip(values(&weights(logits))).map(|(x, w)| f64::from(x) * f64::from(w)).sum()
}

/// The points of a model, apart: those inside `ln1` and the inputs of single heads exclude each other.
fn groups(model: &LanguageModel) -> [Vec<HookPoint>; 2] {
    let in_ln1 = |p: &HookPoint| matches!(p.site(), Some(Site::Ln1Scale | Site::Ln1Normalized));
    let points = model.hooked().hook_points().to_vec();
    let of_mlp = |p: &HookPoint| matches!(p.site(), Some(Site::MlpIn | Site::MlpInput));
    let split = |p: &HookPoint| !of_mlp(p) && p.site().is_some_and(Site::is_input_copy);
    let without = |excluded: &dyn Fn(&HookPoint) -> bool| points.iter().filter(|p| !excluded(p)).copied().collect();
    [without(&split), without(&in_ln1)]
}

/// `d scalar` along a direction at `point`, by differences.
fn difference(model: &LanguageModel, tokens: &TokenBatch, point: HookPoint, direction: &Tensor, h: f64) -> f64 {
    let at = |step: f64| {
        let mut edit = Edit::add(point, (direction * step).unwrap());
        precise(&model.hooked().forward(tokens, &mut edit).unwrap())
    };
    (at(h) - at(-h)) / (2.0 * h)
}

/// The rms of the finite entries.
fn rms(x: &Tensor) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for x in values(x).into_iter().filter(|x| x.is_finite()) {
        sum += f64::from(x) * f64::from(x);
        count += 1.0;
    }
    f64::sqrt(sum / count)
}

#[test]
fn every_point_of_every_family_against_differences() {
    let mut failures = Vec::new();
    for name in MODELS {
        let (model, tokens) = reference(name);
        for points in groups(&model) {
            let found = gradients(model.hooked(), &tokens, &points, scalar).unwrap();
            assert_eq!(found.iter().len(), points.len());
            for (point, value, gradient) in found.iter() {
                assert_eq!(value.dims(), gradient.dims());
                // One direction is the gradient itself (the derivative is then its square), made smooth by a wave.
                let n = value.elem_count() as f32;
                let wave = (Tensor::arange(0f32, n, &Device::Cpu).unwrap() * 1.7).unwrap().cos().unwrap();
                let wave = (wave.reshape(value.dims()).unwrap() + 2.0).unwrap();
                let length = rms(gradient);
                assert!(length > 0.0 && length.is_finite(), "{name}: {point} has gradient rms {length}");
                let direction = ((gradient / length).unwrap() * wave).unwrap();
                let by_gradient: f64 = values(&(gradient * &direction).unwrap()).into_iter().map(f64::from).sum();
                // The scalar is a sum of thousands of logits, whose rounding is some 1e-4.
                let h = (0.2 / by_gradient).min(1e-2 * rms(value));
                let by_difference = difference(&model, &tokens, point, &direction, h);
                let error = (by_difference / by_gradient - 1.0).abs();
                if error > TOLERANCE {
                    failures
                        .push(format!("{name}: {point}: {by_difference} by differences, {by_gradient}: {error:.1e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// The chain rule along the stream: a gradient does not depend on which others are asked for, and the value is the plain run's.
#[test]
fn points_behind_each_other_do_not_disturb_each_other() {
    for name in MODELS {
        let (model, tokens) = reference(name);
        let mut all = Capture::new(model.hooked().hook_points().iter().copied());
        let logits = model.hooked().forward(&tokens, &mut all).unwrap();
        for points in groups(&model) {
            let together = gradients(model.hooked(), &tokens, &points, scalar).unwrap();
            assert!((together.scalar() - precise(&logits)).abs() < 1e-4 * (1.0 + precise(&logits).abs()));
            for &point in &points {
                assert_close(
                    &format!("{name}: {point}"),
                    together.value(point).unwrap(),
                    all.get(point).unwrap(),
                    1e-4,
                );
            }
            for &point in points.iter().step_by(7) {
                let alone = gradients(model.hooked(), &tokens, &[point], scalar).unwrap();
                let what = format!("gradient of {name}: {point}");
                assert_close(&what, alone.gradient(point).unwrap(), together.gradient(point).unwrap(), 1e-3);
            }
        }
    }
}

#[test]
fn a_run_may_start_late_and_carry_edits() {
    for name in ["gpt2", "llama"] {
        let (model, tokens) = reference(name);
        let [pre, z, out] = [Site::ResidPre, Site::Z, Site::AttnOut].map(|site| HookPoint::Block { layer: 1, site });
        let whole = gradients(model.hooked(), &tokens, &[pre, z], scalar).unwrap();
        let resid = whole.value(pre).unwrap().clone();
        let from = |tap: &mut dyn model_hooks::Tap, points: &[HookPoint]| -> Gradients {
            let start = Start::Residual { layer: 1, resid: &resid };
            gradients_from(model.hooked(), &tokens, start, points, tap, scalar).unwrap()
        };
        let late = from(&mut NoTap, &[pre, z]);
        for point in [pre, z] {
            assert_close(name, late.gradient(point).unwrap(), whole.gradient(point).unwrap(), 1e-4);
        }
        // Halved before the leaf, and doubled behind it.
        let halved = from(&mut Edit::scale(out, 0.5), &[z, out]);
        let doubled = {
            let direct = from(&mut NoTap, &[out]);
            direct.value(out).unwrap().clone()
        };
        assert_close(name, &(halved.value(out).unwrap() * 2.0).unwrap(), &doubled, 1e-4);
        // What an edit replaces leads nowhere.
        let cut = from(&mut Edit::zero(out), &[z]);
        assert!(values(cut.gradient(z).unwrap()).iter().all(|&g| g == 0.0));
    }
}

#[test]
fn attributions_are_sums_of_activation_times_gradient() {
    let (model, tokens) = reference("gpt2");
    let [z, scores] = [Site::Z, Site::AttnScores].map(|site| HookPoint::Block { layer: 1, site });
    let last = tokens.pos() - 1;
    let found =
        gradients(model.hooked(), &tokens, &[z, scores], |y| Ok((y.i((0, last, 11))? - y.i((0, last, 7))?)?)).unwrap();
    let by_head = found.attribution(z).unwrap();
    assert_eq!(by_head.dims(), [2, 24, 4]);
    let product = (found.value(z).unwrap() * found.gradient(z).unwrap()).unwrap().sum(3).unwrap();
    assert_close("z", &by_head, &product, 1e-6);
    assert!(values(&found.attribution(scores).unwrap()).iter().all(|x| x.is_finite()));
    // Toward zero is away from what is there.
    let zero = found.value(z).unwrap().zeros_like().unwrap();
    assert_close("toward", &found.attribution_toward(z, &zero).unwrap(), &by_head.neg().unwrap(), 1e-6);
    // Only row 0 has a say.
    assert!(values(&by_head.narrow(0, 1, 1).unwrap()).iter().all(|&x| x == 0.0));
    assert!(matches!(found.attribution_toward(z, &by_head), Err(Error::Shape { .. })));
    assert!(matches!(found.gradient(HookPoint::Embed), Err(Error::NotCaptured { .. })));
}

#[test]
fn what_cannot_be_differentiated_is_refused() {
    let (model, tokens) = reference("gpt2");
    let point = HookPoint::Embed;
    let of = |scalar: &dyn Fn(&Tensor) -> Result<Tensor>| gradients(model.hooked(), &tokens, &[point], scalar);
    assert!(matches!(of(&|logits| Ok(logits.sum(2)?)), Err(Error::Shape { .. })));
    assert!(matches!(of(&|logits| Ok(logits.detach().sum_all()?)), Err(Error::UntrackedScalar)));
    assert!(matches!(of(&|_| Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?)), Err(Error::UntrackedScalar)));
    let numbers = &mut Edit::each(HookPoint::Block { layer: 0, site: Site::Z }, |_, x| x.reverse());
    let through = gradients_from(model.hooked(), &tokens, Start::Tokens, &[point], numbers, scalar).unwrap_err();
    assert!(matches!(through, Error::UntrackedEdit { .. }), "{through}");
    let norm = HookPoint::Block { layer: 0, site: Site::Ln1Scale };
    let input = HookPoint::Block { layer: 0, site: Site::QInput };
    let both = gradients(model.hooked(), &tokens, &[norm, input], scalar).unwrap_err();
    assert!(matches!(both, Error::SplitNorm { .. }), "{both}");
    for engine in engines().filter(|engine| engine.arithmetic().is_some()) {
        let model = model_on("gpt2", Processing::None, engine);
        let error = gradients(model.hooked(), &tokens, &[point], scalar).unwrap_err();
        assert!(matches!(error, Error::NoGradients { .. }), "{error}");
    }
}
