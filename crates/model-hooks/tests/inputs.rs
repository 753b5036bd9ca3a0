//! The inputs of single heads: what is added to all of them is what is added to the stream that attention reads; what is added to one
//! changes that head alone.

mod common;

use candle_core::{Device, Tensor};
use common::{Golden, MODELS, assert_close, assert_same_bits, engines, model_on, tolerance};
use model_hooks::{Capture, Edit, Error, HookPoint, LanguageModel, NoTap, Processing, Site, Tap, TokenBatch, edit_at};

const LAYER: u16 = 1;

fn at(site: Site) -> HookPoint {
    HookPoint::Block { layer: LAYER, site }
}

/// Every golden model in both numeric modes, on every engine.
fn each(check: impl Fn(&str, &LanguageModel, &TokenBatch, f64)) {
    for engine in engines() {
        for name in MODELS {
            for processing in [Processing::None, Processing::TransformerLens] {
                let what = format!("{name}, {processing:?}, {engine}");
                let model = model_on(name, processing, engine);
                check(&what, &model, &Golden::open(name).tokens(), tolerance(engine, 2e-5));
            }
        }
    }
}

fn direction(model: &LanguageModel) -> Tensor {
    let d_model = model.shape().d_model as f32;
    (Tensor::arange(0f32, d_model, &Device::Cpu).unwrap() * 0.7).unwrap().sin().unwrap()
}

fn captured(model: &LanguageModel, tokens: &TokenBatch, tap: &mut dyn Tap, point: HookPoint) -> Tensor {
    let mut taps = (tap, Capture::new([point]));
    model.hooked().forward_until(tokens, point, &mut taps).unwrap();
    taps.1.take(point).unwrap()
}

fn has(model: &LanguageModel, site: Site) -> bool {
    model.hooked().hook_points().contains(&at(site))
}

/// The attention of `LAYER` reads the stream through its inputs alone.
#[test]
fn all_inputs_together_are_the_stream() {
    each(|name, model, tokens, tolerance| {
        let add = |site| Edit::add(at(site), direction(model));
        let z = |edits: Vec<Edit>| captured(model, tokens, &mut { edits }, at(Site::Z));
        let expected = z(vec![add(Site::ResidPre)]);
        let split = z(vec![add(Site::QInput), add(Site::KInput), add(Site::VInput)]);
        assert_close(name, &split, &expected, tolerance);
        if has(model, Site::AttnIn) {
            assert_close(name, &z(vec![add(Site::AttnIn)]), &expected, tolerance);
        }
        // The stream itself is left alone.
        let stream = captured(model, tokens, &mut add(Site::QInput), at(Site::ResidPost));
        let attn_out = captured(model, tokens, &mut add(Site::QInput), at(Site::AttnOut));
        let plain = captured(model, tokens, &mut NoTap, at(Site::ResidPre));
        if has(model, Site::ResidMid) {
            let mid = captured(model, tokens, &mut add(Site::QInput), at(Site::ResidMid));
            assert_close(name, &mid, &(plain + attn_out).unwrap(), 1e-6);
        }
        assert_eq!(stream.dims(), [tokens.batch(), tokens.pos(), model.shape().d_model]);
    });
}

/// One head's query, key or value is what it is after the same edit of the whole stream; the others keep theirs.
#[test]
fn one_input_is_one_head() {
    each(|name, model, tokens, tolerance| {
        for (input, output, heads) in [
            (Site::QInput, Site::Q, model.shape().n_heads),
            (Site::KInput, Site::K, model.shape().n_kv_heads),
            (Site::VInput, Site::V, model.shape().n_kv_heads),
        ] {
            let plain = captured(model, tokens, &mut NoTap, at(output));
            let mut on_stream = Edit::add(at(Site::ResidPre), direction(model));
            let moved = captured(model, tokens, &mut on_stream, at(output));
            for head in 0..heads {
                let mut edit = Edit::add(at(input), direction(model)).head(head);
                let found = captured(model, tokens, &mut edit, at(output));
                for other in 0..heads {
                    let of = |x: &Tensor| x.narrow(2, other, 1).unwrap();
                    let expected = if other == head { of(&moved) } else { of(&plain) };
                    assert_close(&format!("{name}: {input}, head {head}"), &of(&found), &expected, tolerance);
                }
            }
        }
    });
}

#[test]
fn an_edited_attention_input_is_what_the_three_others_start_from() {
    each(|name, model, tokens, tolerance| {
        if !has(model, Site::AttnIn) {
            return;
        }
        let once = Edit::add(at(Site::AttnIn), direction(model)).head(2);
        let (q, k) = (at(Site::QInput), at(Site::KInput));
        let mut taps = (once.clone(), Capture::new([q, k]));
        model.hooked().forward_until(tokens, at(Site::Q), &mut taps).unwrap();
        assert_same_bits(name, taps.1.get(q).unwrap(), taps.1.get(k).unwrap());
        let back = Edit::add(q, direction(model).neg().unwrap()).head(2);
        let queries = captured(model, tokens, &mut (once, back), at(Site::Q));
        assert_close(name, &queries, &captured(model, tokens, &mut NoTap, at(Site::Q)), tolerance);
    });
}

#[test]
fn grouped_heads_share_keys_and_so_have_no_common_input() {
    let model = model_on("llama", Processing::None, Default::default());
    let tokens = Golden::open("llama").tokens();
    let shape = |site| captured(&model, &tokens, &mut NoTap, at(site)).dims().to_vec();
    let (batch, pos) = (tokens.batch(), tokens.pos());
    assert_eq!(shape(Site::QInput), [batch, pos, 4, 64]);
    assert_eq!(shape(Site::VInput), [batch, pos, 2, 64]);
    let error = model.hooked().forward(&tokens, &mut Capture::new([at(Site::AttnIn)])).unwrap_err();
    assert!(matches!(error, Error::UnknownHookPoint { .. }), "{error}");
}

#[test]
fn the_norm_before_split_inputs_cannot_be_edited_too() {
    each(|name, model, tokens, _| {
        for norm in [Site::Ln1Scale, Site::Ln1Normalized] {
            for input in [Site::AttnIn, Site::QInput, Site::KInput, Site::VInput] {
                if !has(model, norm) || !has(model, input) {
                    continue;
                }
                let fired = std::cell::Cell::new(false);
                let note = edit_at(HookPoint::Embed, |_, x| {
                    fired.set(true);
                    Ok(x)
                });
                let mut taps = (note, (Edit::scale(at(norm), 2.0), Edit::scale(at(input), 2.0)));
                let error = model.hooked().forward(tokens, &mut taps).unwrap_err();
                assert!(
                    matches!(&error, Error::SplitNorm { point, input: i } if (*point, *i) == (at(norm), at(input))),
                    "{name}: {error}"
                );
                assert!(!fired.get());
                // Watching either is no conflict: the norm's points show the stream that was not split.
                let plain = captured(model, tokens, &mut NoTap, at(norm));
                let shown = captured(model, tokens, &mut Edit::scale(at(input), 2.0), at(norm));
                assert_same_bits(name, &shown, &plain);
            }
        }
    });
}
