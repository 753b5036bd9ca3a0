//! Edits: against TransformerLens' logits, part by part against hand-made tensors, and what they refuse.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, assert_same_bits, engines, folder, model, model_on, tolerance, values};
use model_hooks::{
    Capture, Edit, Error, Frozen, HookPoint, LanguageModel, NoTap, PathPatch, Processing, Selection, Site, Tap,
    TokenBatch,
};
use std::sync::Mutex;
use tensor_files::SafetensorsFile;

fn at(name: &str) -> HookPoint {
    name.parse().unwrap()
}

struct Golden(SafetensorsFile);

impl Golden {
    fn open(name: &str) -> Self {
        Self(SafetensorsFile::open(folder("edits").join(format!("{name}.safetensors"))).unwrap())
    }

    fn tokens(&self, name: &str) -> TokenBatch {
        let rows: Vec<Vec<i64>> = self.0.load(name).unwrap().to_vec2().unwrap();
        TokenBatch::new(&rows.iter().map(|r| r.iter().map(|t| *t as u32).collect::<Vec<_>>()).collect::<Vec<_>>())
            .unwrap()
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.0.load(name).unwrap()
    }
}

fn captured(model: &LanguageModel, tokens: &TokenBatch, tap: &mut dyn Tap, point: HookPoint) -> Tensor {
    let mut taps = (tap, Capture::new([point]));
    model.hooked().forward_until(tokens, point, &mut taps).unwrap();
    taps.1.take(point).unwrap()
}

#[test]
fn edits_give_transformer_lens_logits() {
    for name in ["gpt2", "llama"] {
        let golden = Golden::open(name);
        let (tokens, other) = (golden.tokens("tokens"), golden.tokens("other_tokens"));
        for engine in engines() {
            let model = model_on(name, Processing::None, engine);
            let d = golden.tensor("direction");
            let inside = |site: &str| at(&format!("blocks.1.{site}"));
            let add = |site: &str, head: Option<usize>| {
                let edit = Edit::add(inside(site), d.clone());
                head.map_or(edit.clone(), |head| edit.head(head))
            };
            let from_other = |site: &str| {
                let point = inside(site);
                Edit::patch(point, captured(&model, &other, &mut NoTap, point))
            };
            let project = |layer: usize| Edit::project_out(at(&format!("blocks.{layer}.hook_resid_mid")), &d).unwrap();
            let zero = |layer: usize| Edit::zero(at(&format!("blocks.{layer}.attn.hook_z"))).head(1);
            let [q, k, v] = [("hook_q_input", 1), ("hook_k_input", 0), ("hook_v_input", 1)];
            let cases: [(&str, Vec<Edit>); 12] = [
                ("hook_q_input", vec![add(q.0, Some(q.1))]),
                ("hook_k_input", vec![add(k.0, Some(k.1))]),
                ("hook_v_input", vec![add(v.0, Some(v.1))]),
                ("qkv_inputs", [q, k, v].map(|(site, head)| add(site, Some(head))).to_vec()),
                ("hook_attn_in", vec![add("hook_attn_in", Some(2))]),
                ("hook_mlp_in", vec![add("hook_mlp_in", None)]),
                ("attn.hook_result", vec![add("attn.hook_result", Some(2))]),
                ("zero_z", vec![zero(1)]),
                ("project_out", vec![project(1)]),
                ("patch_resid", vec![from_other("hook_resid_pre").positions(5)]),
                ("patch_pattern", vec![from_other("attn.hook_pattern")]),
                ("two_layers", vec![zero(0), project(2)]),
            ];
            for (case, mut edits) in cases {
                if case == "hook_attn_in" && name == "llama" {
                    continue; // grouped heads have none
                }
                let found = model.hooked().forward(&tokens, &mut edits).unwrap();
                let what = format!("{name} {case} on {engine}");
                assert_close(&what, &found, &golden.tensor(&format!("logits.{case}")), tolerance(engine, 1e-4));
            }
        }
    }
}

/// The value at a point of GPT-2's second block, plain and edited; the golden tokens have two rows of 24.
fn before_and_after(point: HookPoint, edit: Edit) -> (Tensor, Tensor) {
    let (model, tokens) = (model("gpt2", Processing::None), common::Golden::open("gpt2").tokens());
    let plain = captured(&model, &tokens, &mut NoTap, point);
    (plain, captured(&model, &tokens, &mut { edit }, point))
}

#[test]
fn rows_positions_and_heads_are_ranges_or_lists() {
    let z = at("blocks.1.attn.hook_z");
    let check = |edit: Edit, is_in: &dyn Fn(usize, usize, usize) -> bool| {
        let (plain, edited) = before_and_after(z, edit);
        for (i, (a, b)) in values(&plain).into_iter().zip(values(&edited)).enumerate() {
            let (row, pos, head) = (i / (24 * 64), i / 64 % 24, i / 16 % 4);
            assert_eq!(b, if is_in(row, pos, head) { 0.0 } else { a }, "row {row}, position {pos}, head {head}");
        }
    };
    let zero = || Edit::zero(z);
    check(zero(), &|_, _, _| true);
    check(zero().rows(1), &|row, _, _| row == 1);
    check(zero().positions([7, 3, 4]).heads([2, 0]), &|_, pos, head| [3, 4, 7].contains(&pos) && head % 2 == 0);
    check(zero().positions(20..).rows(0..1), &|row, pos, _| pos >= 20 && row == 0);
    check(zero().positions(2..=3).head(3), &|_, pos, head| (2..4).contains(&pos) && head == 3);
    check(zero().within(Selection::default().heads(vec![1])), &|_, _, head| head == 1);
    let pattern = at("blocks.1.attn.hook_pattern");
    let (plain, edited) = before_and_after(pattern, Edit::zero(pattern).head(1).positions(5));
    let row = |x: &Tensor, head, q| values(&x.narrow(1, head, 1).unwrap().narrow(2, q, 1).unwrap());
    assert!(row(&edited, 1, 5).iter().all(|&x| x == 0.0));
    assert_eq!(row(&edited, 1, 6), row(&plain, 1, 6));
    assert_eq!(row(&edited, 0, 5), row(&plain, 0, 5));
}

#[test]
fn a_list_meets_a_tensor_in_its_own_order() {
    let point = at("blocks.1.hook_mlp_out");
    let marks = Tensor::new(&[[[10f32], [20.0]]], &Device::Cpu).unwrap();
    let (_, edited) = before_and_after(point, Edit::patch(point, marks).positions([9, 2]).rows(1));
    let at_place = |row, pos| edited.narrow(0, row, 1).unwrap().narrow(1, pos, 1).unwrap();
    assert!(values(&at_place(1, 9)).iter().all(|&x| x == 10.0));
    assert!(values(&at_place(1, 2)).iter().all(|&x| x == 20.0));
    assert!(values(&at_place(0, 2)).iter().all(|&x| x != 20.0));
}

#[test]
fn means_and_resamples_come_from_another_run() {
    let point = at("blocks.1.hook_resid_mid");
    let (plain, _) = before_and_after(point, Edit::zero(point));
    let (_, mean) = before_and_after(point, Edit::mean_of(point, &plain).unwrap());
    let expected = plain.mean_keepdim(0).unwrap().broadcast_as(plain.shape()).unwrap();
    assert_close("mean over rows", &mean, &expected, 1e-6);
    let (_, swapped) = before_and_after(point, Edit::resample(point, &plain, &[1, 0]).unwrap().positions(4..6));
    let part = |x: &Tensor, row: usize| x.narrow(0, row, 1).unwrap().narrow(1, 4, 2).unwrap();
    assert_same_bits("row 0", &part(&swapped, 0), &part(&plain, 1));
    assert_same_bits("row 1", &part(&swapped, 1), &part(&plain, 0));
    assert_same_bits("elsewhere", &swapped.narrow(1, 6, 18).unwrap(), &plain.narrow(1, 6, 18).unwrap());
    assert!(matches!(Edit::resample(point, &plain, &[2]), Err(Error::IndexOutOfRange { index: 2, what: "row", .. })));
    // As an empty choice of rows, positions or heads: not all of them.
    assert!(matches!(Edit::resample(point, &plain, &[]), Err(Error::BadOption { .. })));
    // One row is not meant for both.
    let (model, tokens) = (model("gpt2", Processing::None), common::Golden::open("gpt2").tokens());
    let one = || Edit::resample(point, &plain, &[1]).unwrap();
    assert!(matches!(model.hooked().forward(&tokens, &mut one()), Err(Error::EditShape { op: "resample", .. })));
    let (_, first) = before_and_after(point, one().rows(0));
    assert_same_bits("row 0 alone", &first.narrow(0, 0, 1).unwrap(), &plain.narrow(0, 1, 1).unwrap());
    assert_same_bits("row 1 is kept", &first.narrow(0, 1, 1).unwrap(), &plain.narrow(0, 1, 1).unwrap());
    let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
    assert!(matches!(Edit::mean_of(point, &scalar), Err(Error::EditShape { .. })));
}

#[test]
fn what_is_projected_out_is_gone_and_the_rest_stays() {
    let point = at("blocks.1.attn.hook_z");
    let d = (Tensor::arange(0f32, 16f32, &Device::Cpu).unwrap() * 1e-3).unwrap();
    let (plain, edited) = before_and_after(point, Edit::project_out(point, &d).unwrap().heads([1, 3]));
    let along = |x: &Tensor| values(&x.broadcast_mul(&d).unwrap().sum(3).unwrap());
    let (before, after) = (along(&plain), along(&edited));
    for (i, (before, after)) in before.into_iter().zip(after).enumerate() {
        if i % 2 == 1 { assert!(after.abs() < 1e-8, "{after}") } else { assert_eq!(before, after) }
    }
    let taken = values(&(&plain - &edited).unwrap());
    let d = values(&d);
    for vector in taken.chunks(16) {
        let factor = vector[15] / d[15];
        assert!(vector.iter().zip(&d).all(|(t, d)| (t - factor * d).abs() < 1e-6));
    }
    for wrong in [Tensor::zeros(16, candle_core::DType::F32, &Device::Cpu).unwrap(), plain.narrow(0, 0, 1).unwrap()] {
        assert!(matches!(Edit::project_out(point, &wrong), Err(Error::EditDirection { .. })));
    }
    let nan = Tensor::new(&[f32::NAN; 16], &Device::Cpu).unwrap();
    assert!(Edit::project_out(point, &nan).is_err());
}

#[test]
fn closures_see_the_part_and_where_it_is() {
    let z = at("blocks.1.attn.hook_z");
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let edit = Edit::each(z, move |place, x| {
        note.lock().unwrap().push((place.row, place.pos, place.head));
        x[0] = (100 * place.row + 10 * place.pos + place.head.unwrap()) as f32;
    });
    let (plain, edited) = before_and_after(z, edit.rows(1).positions([5, 2]).heads([3, 0]));
    let mut expected = Vec::new();
    for pos in [5, 2] {
        expected.extend([(1, pos, Some(3)), (1, pos, Some(0))]);
    }
    assert_eq!(*seen.lock().unwrap(), expected);
    for (i, (a, b)) in values(&plain).into_iter().zip(values(&edited)).enumerate() {
        let (row, pos, head, first) = (i / (24 * 64), i / 64 % 24, i / 16 % 4, i % 16 == 0);
        let changed = first && row == 1 && [2, 5].contains(&pos) && [0, 3].contains(&head);
        assert_eq!(b, if changed { (100 * row + 10 * pos + head) as f32 } else { a });
    }
    let (plain, edited) = before_and_after(z, Edit::map(z, |part| Ok((part * -2.0)?)).head(2));
    let head = |x: &Tensor, head| x.narrow(2, head, 1).unwrap();
    assert_same_bits("mapped", &head(&edited, 2), &(head(&plain, 2) * -2.0).unwrap());
    assert_same_bits("left", &head(&edited, 1), &head(&plain, 1));
}

#[test]
fn errors_say_what_was_expected_and_what_was_found() {
    let (model, tokens) = (model("gpt2", Processing::None), common::Golden::open("gpt2").tokens());
    let z = at("blocks.1.attn.hook_z");
    let refused = |mut edit: Edit| model.hooked().forward(&tokens, &mut edit).unwrap_err();
    let text = refused(Edit::add(z, Tensor::new(&[0f32; 15], &Device::Cpu).unwrap()).head(2)).to_string();
    for part in ["add", "blocks.1.attn.hook_z", "[15]", "[2, 24, 1, 16]", "[2, 24, 4, 16]"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    for (edit, what, index) in [
        (Edit::zero(z).positions(20..25), "position", 24),
        (Edit::zero(z).positions([3, 24]), "position", 24),
        (Edit::zero(z).positions(24..), "position", 24),
        (Edit::zero(z).positions([3, 3]), "position", 3),
        (Edit::zero(z).positions(5..5), "position", 5),
        (Edit::zero(z).heads(vec![]), "head", 0),
        (Edit::zero(z).heads([0, usize::MAX]), "head", usize::MAX),
        (Edit::zero(z).rows(0..usize::MAX), "row", usize::MAX - 1),
        (Edit::zero(at("blocks.1.hook_mlp_out")).heads([1]), "head", 1),
    ] {
        let error = refused(edit);
        assert!(
            matches!(error, Error::IndexOutOfRange { what: w, index: i, .. } if w == what && i == index),
            "{error}: {what} {index}"
        );
    }
    let shrunk = refused(Edit::map(z, |part| Ok(part.narrow(0, 0, 1)?)).head(1));
    assert!(matches!(shrunk, Error::EditChangedShape { .. }), "{shrunk}");
}

/// With everything between frozen, what a head tells the logits is its change of the stream, seen by the final norm alone.
#[test]
fn path_patching_to_the_output_is_the_direct_effect() {
    for engine in engines() {
        let (model, golden) = (model_on("gpt2", Processing::None, engine), Golden::open("gpt2"));
        let (tokens, other) = (golden.tokens("tokens"), golden.tokens("other_tokens"));
        let [z, result] = [Site::Z, Site::Result].map(|site| HookPoint::Block { layer: 0, site });
        let end = at("blocks.2.hook_resid_post");
        let sender = Edit::patch(z, captured(&model, &other, &mut NoTap, z)).head(3);
        let of = |tokens: &TokenBatch| captured(&model, tokens, &mut NoTap, result).narrow(2, 3, 1).unwrap();
        let change = (of(&other) - of(&tokens)).unwrap().squeeze(2).unwrap();
        let stream = (captured(&model, &tokens, &mut NoTap, end) + change).unwrap();
        let expected = model.hooked().unembed(&stream).unwrap();
        for receiver in [end, HookPoint::Logits] {
            let patch = PathPatch::new([sender.clone()], [(receiver, Selection::default())]);
            let found = patch.run(model.hooked(), &tokens).unwrap();
            assert_close(&format!("{receiver} on {engine}"), &found, &expected, tolerance(engine, 2e-5));
        }
        // Through MLPs there are more paths.
        let patch = PathPatch::new([sender], [(end, Selection::default())]).frozen(Frozen::Attention);
        let through = patch.run(model.hooked(), &tokens).unwrap();
        assert!(common::rms_error(&through, &expected) > 1e-3);
    }
}

/// A receiver inside a later head: its query is that of a run whose stream differs by the sender's change alone.
#[test]
fn path_patching_to_a_query_changes_that_query() {
    let (model, golden) = (model("gpt2", Processing::None), Golden::open("gpt2"));
    let (tokens, other) = (golden.tokens("tokens"), golden.tokens("other_tokens"));
    let (z, q) = (at("blocks.0.attn.hook_z"), at("blocks.2.attn.hook_q"));
    let result = at("blocks.0.attn.hook_result");
    let sender = Edit::patch(z, captured(&model, &other, &mut NoTap, z)).head(3);
    let of = |tokens: &TokenBatch| captured(&model, tokens, &mut NoTap, result).narrow(2, 3, 1).unwrap();
    let change = (of(&other) - of(&tokens)).unwrap().squeeze(2).unwrap();
    let queries = captured(&model, &tokens, &mut Edit::add(at("blocks.2.hook_resid_pre"), change), q);
    let expected = model.hooked().forward(&tokens, &mut Edit::patch(q, queries).head(1)).unwrap();
    let patch = PathPatch::new([sender], [(q, Selection::default().heads(1))]);
    assert_close("logits", &patch.run(model.hooked(), &tokens).unwrap(), &expected, 1e-5);
    let nowhere = PathPatch::new([], []).run(model.hooked(), &tokens);
    assert!(matches!(nowhere, Err(Error::NoReceivers)));
}

/// What one receiver becomes does not reach another: both see the change of the stream alone.
#[test]
fn receivers_of_a_path_do_not_speak_to_each_other() {
    let (model, golden) = (model("gpt2", Processing::None), Golden::open("gpt2"));
    let (tokens, other) = (golden.tokens("tokens"), golden.tokens("other_tokens"));
    let (z, later_z, q) = (at("blocks.0.attn.hook_z"), at("blocks.1.attn.hook_z"), at("blocks.2.attn.hook_q"));
    let result = at("blocks.0.attn.hook_result");
    let sender = Edit::patch(z, captured(&model, &other, &mut NoTap, z)).head(3);
    let of = |tokens: &TokenBatch| captured(&model, tokens, &mut NoTap, result).narrow(2, 3, 1).unwrap();
    let change = (of(&other) - of(&tokens)).unwrap().squeeze(2).unwrap();
    let told = |stream: &str, point| captured(&model, &tokens, &mut Edit::add(at(stream), change.clone()), point);
    let mut by_hand = vec![
        Edit::patch(later_z, told("blocks.1.hook_resid_pre", later_z)).head(0),
        Edit::patch(q, told("blocks.2.hook_resid_pre", q)).head(1),
    ];
    let expected = model.hooked().forward(&tokens, &mut by_hand).unwrap();
    let receivers = [(later_z, Selection::default().heads(0)), (q, Selection::default().heads(1))];
    let found = PathPatch::new([sender], receivers).run(model.hooked(), &tokens).unwrap();
    assert_close("logits", &found, &expected, 1e-5);
}
