//! The laws of the forward pass: watching changes nothing, order is execution order, a run stops where it is told to,
//! what cannot fire is an error beforehand, batches do not matter, edits do what they say.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, MODELS, assert_close, assert_same_bits, engines, model, model_on, values};
use model_hooks::{
    Capture, Edit, Engine, Error, ForwardPass, HookPoint, HookedModel, Interest, LanguageModel, NoTap, Processing,
    Result, Site, Start, Tap, TapContext, TokenBatch, edit_at, next_token_loss, next_token_loss_per_token,
};

fn at(name: &str) -> HookPoint {
    name.parse().unwrap()
}

/// Writes down where it fires.
#[derive(Default)]
struct Log {
    fired: Vec<HookPoint>,
}

impl Tap for Log {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(reached.iter().map(|&point| (point, Interest::Watch)).collect())
    }

    fn watch(&mut self, cx: &TapContext<'_>, _: &Tensor) -> Result<()> {
        self.fired.push(cx.at);
        Ok(())
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// The golden models of GPT-2 and Llama in both numeric modes, on every engine that this machine has; all others as they are, on the
/// reference and the default engine.
fn each(check: impl Fn(&str, LanguageModel, TokenBatch)) {
    let run = |name, processing, engine| {
        let what = format!("{name}, {processing:?}, {engine}");
        check(&what, model_on(name, processing, engine), Golden::open(name).tokens());
    };
    for name in MODELS {
        if ["gpt2", "llama"].contains(&name) {
            let modes = [Processing::None, Processing::TransformerLens];
            engines().for_each(|engine| modes.into_iter().for_each(|processing| run(name, processing, engine)));
        } else {
            [Engine::Reference, Engine::default()].into_iter().for_each(|engine| run(name, Processing::None, engine));
        }
    }
}

/// What holds bit for bit on the kernels, and to `tolerance` of the rms on the reference.
#[track_caller]
fn assert_equal(what: &str, model: &LanguageModel, a: &Tensor, b: &Tensor, tolerance: f64) {
    match model.engine() {
        Engine::Reference => assert_close(what, a, b, tolerance),
        Engine::Kernels(_) => assert_same_bits(what, a, b),
    }
}

#[test]
fn watching_changes_nothing() {
    each(|name, model, tokens| {
        let plain = model.hooked().forward(&tokens, &mut NoTap).unwrap();
        let mut all = Capture::new(model.hooked().hook_points().iter().copied());
        let watched = model.hooked().forward(&tokens, &mut all).unwrap();
        assert_same_bits(name, &watched, &plain);
        for &point in model.hooked().hook_points() {
            let mut alone = Capture::new([point]);
            assert_same_bits(name, &model.hooked().forward(&tokens, &mut alone).unwrap(), &plain);
            assert_same_bits(&format!("{name}: {point}"), alone.get(point).unwrap(), all.get(point).unwrap());
        }
    });
}

#[test]
fn the_order_of_points_is_the_order_of_execution() {
    each(|name, model, tokens| {
        let points = model.hooked().hook_points();
        assert!(points.windows(2).all(|w| w[0] < w[1]), "{name}");
        let mut log = Log::default();
        model.hooked().forward(&tokens, &mut log).unwrap();
        assert_eq!(log.fired, points, "{name}");
    });
}

#[test]
fn a_run_stops_exactly_after_its_last_point() {
    each(|name, model, tokens| {
        let mut all = Capture::new(model.hooked().hook_points().iter().copied());
        model.hooked().forward(&tokens, &mut all).unwrap();
        for (i, &last) in model.hooked().hook_points().iter().enumerate() {
            let mut taps = (Log::default(), Capture::new([last]));
            model.hooked().forward_until(&tokens, last, &mut taps).unwrap();
            assert_eq!(taps.0.fired, model.hooked().hook_points()[..=i], "{name}");
            assert_same_bits(name, taps.1.get(last).unwrap(), all.get(last).unwrap());
        }
    });
}

/// Not only does nothing fire after the last point: what stands after it in the equations is never reached.
#[test]
fn nothing_is_computed_after_the_last_point() {
    let tokens = TokenBatch::new(&[[0u32]]).unwrap();
    let points: Vec<HookPoint> = model("llama", Processing::None).hooked().hook_points().to_vec();
    for (i, &last) in points.iter().enumerate() {
        let mut computed = 0;
        let ended = ForwardPass::plan(&points, &tokens, None, Some(last), &mut NoTap).unwrap().through(|at| {
            let mut x = tokens.to_tensor(&Device::Cpu)?;
            for &point in &points {
                computed += 1;
                x = at.tap(point, x)?;
            }
            Ok(x)
        });
        assert!(ended.unwrap().is_none());
        assert_eq!(computed, i + 1, "{last}");
    }
}

#[test]
fn a_point_that_cannot_fire_is_an_error_before_anything_runs() {
    let (gpt2, llama) = (model("gpt2", Processing::None), model("llama", Processing::None));
    let tokens = Golden::open("gpt2").tokens();
    for (model, name) in [
        (&gpt2, "blocks.3.hook_resid_pre"),
        (&gpt2, "blocks.0.attn.hook_rot_q"),
        (&gpt2, "blocks.0.mlp.hook_pre_linear"),
        (&llama, "hook_pos_embed"),
    ] {
        let mut taps = (Log::default(), Capture::new([at(name)]));
        let error = model.hooked().forward(&tokens, &mut taps).unwrap_err();
        assert!(matches!(&error, Error::UnknownHookPoint { point, .. } if *point == at(name)), "{error}");
        assert!(taps.0.fired.is_empty());
        assert!(error.to_string().contains(name) && error.to_string().contains("nearest"), "{error}");
        assert!(matches!(
            gpt2.hooked().forward_until(&tokens, at("blocks.9.hook_in"), &mut NoTap),
            Err(Error::UnknownHookPoint { .. })
        ));
    }
    let mut late = (Log::default(), Capture::new([at("blocks.1.attn.hook_k")]));
    let error = gpt2.hooked().forward_until(&tokens, at("blocks.1.attn.hook_q"), &mut late).unwrap_err();
    assert!(matches!(error, Error::PointAfterLast { .. }) && late.0.fired.is_empty(), "{error}");
    let resid = Tensor::zeros((2, 24, 64), DType::F32, &Device::Cpu).unwrap();
    let start = Start::Residual { layer: 1, resid: &resid };
    let mut early = (Log::default(), Capture::new([at("hook_embed")]));
    let error = gpt2.hooked().run(&tokens, start, None, &mut early).unwrap_err();
    assert!(matches!(error, Error::PointBeforeStart { .. }) && early.0.fired.is_empty(), "{error}");
    assert!(gpt2.hooked().run(&tokens, start, Some(at("hook_embed")), &mut NoTap).is_err());
}

#[test]
fn results_do_not_depend_on_the_batch() {
    each(|name, model, tokens| {
        let row: Vec<u32> = tokens.rows().next().unwrap().to_vec();
        let other: Vec<u32> = row.iter().map(|t| (t * 7 + 3) % 384).collect();
        let alone = model.hooked().forward(&TokenBatch::new(&[&row]).unwrap(), &mut NoTap).unwrap();
        let rows: Vec<&[u32]> = std::iter::once(&*row).chain(std::iter::repeat_n(&*other, 6)).collect();
        let together = model.hooked().forward(&TokenBatch::new(&rows).unwrap(), &mut NoTap).unwrap();
        assert_equal(name, &model, &together.narrow(0, 0, 1).unwrap(), &alone, 1e-6);
        // Causality: later tokens do not matter either.
        let prefix = model.hooked().forward(&TokenBatch::new(&[&row[..9]]).unwrap(), &mut NoTap).unwrap();
        assert_equal(name, &model, &prefix, &alone.narrow(1, 0, 9).unwrap(), 1e-5);
    });
}

#[test]
fn results_do_not_depend_on_threads() {
    each(|name, model, tokens| {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| model.hooked().forward(&tokens, &mut NoTap).unwrap())
        };
        for threads in [2, 3] {
            assert_equal(name, &model, &on(threads), &on(1), 1e-6);
        }
    });
}

#[test]
fn losses_need_logits_of_their_tokens() {
    let tokens = TokenBatch::new(&[[1u32, 3, 2], [0, 1, 1]]).unwrap();
    let logits = |shape: [usize; 3]| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
    let uniform = next_token_loss(&logits([2, 3, 4]), &tokens).unwrap();
    assert!((uniform - 4f64.ln()).abs() < 1e-6);
    assert!(matches!(
        next_token_loss(&logits([2, 3, 3]), &tokens),
        Err(Error::TokenOutOfVocabulary { id: 3, row: 0, pos: 1, .. })
    ));
    assert!(matches!(next_token_loss(&logits([3, 2, 4]), &tokens), Err(Error::Shape { .. })));
    let single = TokenBatch::new(&[[1u32]]).unwrap();
    assert!(matches!(next_token_loss(&logits([1, 1, 4]), &single), Err(Error::Shape { .. })));
    assert_eq!(next_token_loss_per_token(&logits([1, 1, 4]), &single).unwrap().dims(), [1, 0]);
}

#[test]
fn starting_from_a_residual_equals_the_whole_run() {
    each(|name, model, tokens| {
        let mut all = Capture::all();
        let logits = model.hooked().forward(&tokens, &mut all).unwrap();
        for layer in 0..3u16 {
            let first = HookPoint::Block { layer, site: Site::ResidPre };
            let resid = all.get(first).unwrap();
            let start = Start::Residual { layer: usize::from(layer), resid };
            let mut rest = Capture::all();
            let again = model.hooked().run(&tokens, start, None, &mut rest).unwrap().unwrap();
            assert_same_bits(name, &again, &logits);
            for (point, value) in rest.iter() {
                assert!(point >= first);
                assert_same_bits(name, value, all.get(point).unwrap());
            }
        }
        let last = model.shape().n_layers as u16 - 1;
        let end = all.get(HookPoint::Block { layer: last, site: Site::ResidPost }).unwrap();
        assert_same_bits(name, &model.hooked().unembed(end).unwrap(), &logits);
    });
}

#[test]
fn a_bad_start_or_bad_tokens_are_errors() {
    let model = model("gpt2", Processing::None);
    let tokens = Golden::open("gpt2").tokens();
    let run = |layer, shape: &[usize]| {
        let resid = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        model.hooked().run(&tokens, Start::Residual { layer, resid: &resid }, None, &mut NoTap)
    };
    assert!(run(2, &[2, 24, 64]).is_ok());
    assert!(matches!(run(3, &[2, 24, 64]), Err(Error::OutOfRange { .. })));
    assert!(matches!(run(usize::MAX, &[2, 24, 64]), Err(Error::OutOfRange { .. })));
    assert!(matches!(run(1, &[2, 24, 63]), Err(Error::Shape { .. })));
    assert!(matches!(run(1, &[1, 24, 64]), Err(Error::Shape { .. })));

    let forward = |rows: &[Vec<u32>]| model.hooked().forward(&TokenBatch::new(rows).unwrap(), &mut NoTap);
    let outside = forward(&[vec![1, 2], vec![3, 384]]).unwrap_err();
    assert!(matches!(outside, Error::TokenOutOfVocabulary { id: 384, row: 1, pos: 1, d_vocab: 384 }), "{outside}");
    assert!(matches!(forward(&[vec![1; 257]]), Err(Error::ContextExceeded { pos: 257, n_ctx: 256 })));
    assert!(forward(&[vec![1; 256]]).is_ok());
    assert!(model.hooked().unembed(&Tensor::zeros((3, 63), DType::F32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn columns_of_the_unembedding() {
    each(|name, model, _| {
        let all = model.hooked().w_u_columns(0, 384).unwrap();
        let some = model.hooked().w_u_columns(100, 7).unwrap();
        assert_same_bits(name, &some, &all.narrow(1, 100, 7).unwrap());
        assert!(model.hooked().w_u_columns(380, 5).is_err());
        assert!(model.hooked().w_u_columns(usize::MAX, 5).is_err());
    });
}

#[test]
fn ablating_attention_leaves_the_stream_alone() {
    each(|name, model, tokens| {
        let [pre, mid, out, mlp_out, post] =
            [Site::ResidPre, Site::ResidMid, Site::AttnOut, Site::MlpOut, Site::ResidPost]
                .map(|site| HookPoint::Block { layer: 1, site });
        if model.hooked().hook_points().contains(&mid) {
            let mut taps = (Edit::zero(out), Capture::new([pre, mid]));
            model.hooked().forward(&tokens, &mut taps).unwrap();
            assert_same_bits(name, taps.1.get(mid).unwrap(), taps.1.get(pre).unwrap());
        } else {
            let mut taps = (Edit::zero(out), Capture::new([pre, mlp_out, post]));
            model.hooked().forward(&tokens, &mut taps).unwrap();
            let sum = (taps.1.get(pre).unwrap() + taps.1.get(mlp_out).unwrap()).unwrap();
            assert_same_bits(name, taps.1.get(post).unwrap(), &sum);
        }
    });
}

#[test]
fn every_kind_of_edit_does_what_it_says() {
    let model = model("llama", Processing::None);
    let tokens = Golden::open("llama").tokens();
    let point = at("blocks.1.hook_resid_mid");
    let captured = |edit: &mut dyn Tap| {
        let mut taps = (edit, Capture::new([point]));
        model.hooked().forward_until(&tokens, point, &mut taps).unwrap();
        taps.1.take(point).unwrap()
    };
    let plain = captured(&mut NoTap);
    assert_same_bits("scale", &captured(&mut Edit::scale(point, 2.0)), &(&plain * 2.0).unwrap());
    let direction = Tensor::arange(0f32, 64f32, &Device::Cpu).unwrap();
    let steered = captured(&mut Edit::add(point, direction.clone()));
    assert_same_bits("add", &steered, &plain.broadcast_add(&direction).unwrap());
    let patched = captured(&mut Edit::patch(point, plain.zeros_like().unwrap()).positions(3..5));
    let kept = |x: &Tensor, from, len| x.narrow(1, from, len).unwrap();
    assert_same_bits("before", &kept(&patched, 0, 3), &kept(&plain, 0, 3));
    assert!(values(&kept(&patched, 3, 2)).iter().all(|&x| x == 0.0));
    assert_same_bits("after", &kept(&patched, 5, 19), &kept(&plain, 5, 19));
    let negated = captured(&mut edit_at(point, |_, x| Ok(x.neg()?)));
    assert_same_bits("closure", &negated, &plain.neg().unwrap());
}

#[test]
fn one_head_at_some_positions() {
    let model = model("gpt2", Processing::None);
    let tokens = Golden::open("gpt2").tokens();
    let (z, pattern) = (at("blocks.0.attn.hook_z"), at("blocks.0.attn.hook_pattern"));
    let mut whole = Capture::new([z, pattern]);
    model.hooked().forward_until(&tokens, z, &mut whole).unwrap();
    let mut cut = Capture::new([z, pattern]).head(2).positions(4..9);
    model.hooked().forward_until(&tokens, z, &mut cut).unwrap();
    let part = whole.get(z).unwrap().narrow(1, 4, 5).unwrap().narrow(2, 2, 1).unwrap().squeeze(2).unwrap();
    assert_same_bits("z", cut.get(z).unwrap(), &part);
    assert_eq!(cut.get(pattern).unwrap().dims(), [2, 5, 24]);

    let mut taps = (Edit::zero(z).head(2).positions(4..9), Capture::new([z]));
    model.hooked().forward_until(&tokens, z, &mut taps).unwrap();
    let (edited, plain) = (values(taps.1.get(z).unwrap()), values(whole.get(z).unwrap()));
    for (i, (edited, plain)) in edited.into_iter().zip(plain).enumerate() {
        let (pos, head) = (i / 64 % 24, i / 16 % 4);
        assert_eq!(edited, if head == 2 && (4..9).contains(&pos) { 0.0 } else { plain });
    }
    for mut wrong in [Capture::new([z]).head(4), Capture::new([z]).positions(20..25)] {
        assert!(matches!(model.hooked().forward(&tokens, &mut wrong), Err(Error::IndexOutOfRange { .. })));
    }
    assert!(model.hooked().forward(&tokens, &mut Edit::zero(at("hook_embed")).head(0)).is_err());
}

#[test]
fn taps_combine_in_order() {
    let model = model("gpt2", Processing::None);
    let tokens = Golden::open("gpt2").tokens();
    let point = at("blocks.0.hook_mlp_out");
    let ones = Tensor::ones(64, DType::F32, &Device::Cpu).unwrap();
    let run = |tap: &mut dyn Tap| {
        let mut taps = (Capture::new([point]), (tap, Capture::new([point])));
        model.hooked().forward(&tokens, &mut taps).unwrap();
        (taps.0.take(point).unwrap(), taps.1.1.take(point).unwrap())
    };
    let (before, added_then_doubled) = run(&mut (Edit::add(point, ones.clone()), Edit::scale(point, 2.0)));
    let boxed: Vec<Box<dyn Tap>> =
        vec![Box::new(Edit::scale(point, 2.0)), Box::new(NoTap), Box::new(Edit::add(point, ones))];
    let (same_before, doubled_then_added) = run(&mut { boxed });
    assert_same_bits("a capture before an edit sees the plain value", &before, &same_before);
    assert_same_bits("add, scale", &added_then_doubled, &((&before + 1.0).unwrap() * 2.0).unwrap());
    assert_same_bits("scale, add", &doubled_then_added, &((&before * 2.0).unwrap() + 1.0).unwrap());
}

#[test]
fn an_edit_may_not_change_shape_or_type() {
    let model = model("gpt2", Processing::None);
    let tokens = Golden::open("gpt2").tokens();
    let point = at("blocks.0.hook_resid_mid");
    let forward = |tap: &mut dyn Tap| model.hooked().forward(&tokens, tap);
    let cut = forward(&mut edit_at(point, |_, x| Ok(x.narrow(1, 0, 3)?))).unwrap_err();
    assert!(matches!(&cut, Error::EditChangedShape { point: p, .. } if *p == point), "{cut}");
    let inside_a_pair = &mut (NoTap, edit_at(point, |_, x| Ok(x.to_dtype(DType::F64)?)));
    assert!(matches!(forward(inside_a_pair), Err(Error::EditChangedShape { .. })));
    assert!(forward(&mut Edit::patch(point, Tensor::zeros(63, DType::F32, &Device::Cpu).unwrap())).is_err());
}

#[test]
fn an_edited_result_feeds_attn_out() {
    each(|name, model, tokens| {
        let at = |site| HookPoint::Block { layer: 1, site };
        let (result, out) = (at(Site::Result), at(Site::AttnOut));
        let norm = [at(Site::Ln1PostScale), at(Site::Ln1PostNormalized)];
        let norm = model.hooked().hook_points().contains(&norm[0]).then_some(norm);
        // What each head adds to: attention's output, before its norm where there is one.
        let captured = |tap: &mut dyn Tap| {
            let points = [result, out].into_iter().chain(norm.into_iter().flatten());
            let mut taps = (tap, Capture::new(points));
            model.hooked().forward_until(&tokens, out, &mut taps).unwrap();
            let mut take = |point| taps.1.take(point).unwrap();
            let before = norm.map(|norm| norm.map(&mut take)).map(|[scale, x]| x.broadcast_mul(&scale).unwrap());
            [take(result), before.unwrap_or_else(|| take(out))]
        };
        let [result_plain, out_plain] = captured(&mut NoTap);
        let [_, out_same] = captured(&mut Edit::scale(result, 1.0));
        assert_close(name, &out_same, &out_plain, 1e-5); // the sum over heads rounds differently
        let [_, without_head] = captured(&mut Edit::zero(result).head(3));
        let head = result_plain.narrow(2, 3, 1).unwrap().squeeze(2).unwrap();
        assert_close(name, &without_head, &(out_plain - head).unwrap(), 1e-5);
    });
}

#[test]
fn a_users_own_model_uses_the_same_stage() {
    struct Doubler {
        shape: model_hooks::ModelShape,
        points: Vec<HookPoint>,
    }
    impl HookedModel for Doubler {
        fn shape(&self) -> &model_hooks::ModelShape {
            &self.shape
        }
        fn hook_points(&self) -> &[HookPoint] {
            &self.points
        }
        fn run(
            &self,
            tokens: &TokenBatch,
            _: Start<'_>,
            last: Option<HookPoint>,
            tap: &mut dyn Tap,
        ) -> Result<Option<Tensor>> {
            ForwardPass::plan(&self.points, tokens, None, last, tap)?.through(|at| {
                let x = tokens.to_tensor(&Device::Cpu)?.to_dtype(DType::F32)?.unsqueeze(2)?;
                let x = at.tap(HookPoint::Embed, x)?;
                let x = at.block(0).tap(Site::ResidPost, (x * 2.0)?)?;
                at.tap(HookPoint::Logits, x)
            })
        }
        fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
            Ok(resid.clone())
        }
        fn w_u_columns(&self, _: usize, _: usize) -> Result<Tensor> {
            Ok(Tensor::ones((1, 1), DType::F32, &Device::Cpu)?)
        }
    }
    let points = vec![HookPoint::Embed, at("blocks.0.hook_resid_post"), HookPoint::Logits];
    let model = Doubler { shape: model_hooks::ModelShape::new(1, 1, 1, 8), points };
    let tokens = TokenBatch::new(&[[1u32, 5]]).unwrap();
    let one = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
    let logits = model.forward(&tokens, &mut Edit::add(HookPoint::Embed, one)).unwrap();
    assert_eq!(values(&logits), [4.0, 12.0]);
    assert!(model.forward(&tokens, &mut Capture::new([at("hook_pos_embed")])).is_err());
}

#[test]
fn models_and_taps_cross_threads() {
    fn check<T: Send + Sync + ?Sized>() {}
    check::<LanguageModel>();
    check::<dyn HookedModel>();
    check::<Capture>();
    check::<Edit>();
    check::<Error>();
}
