//! Interventions as data: they do what the edits do, survive a round trip, and refuse what is not sound.

mod common;
#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;

use candle_core::{Device, Tensor};
use common::{Golden, assert_same_bits, model};
use model_hooks::{
    Edit, Error, HookPoint, IndexRange, IndexSpec, Intervention, Interventions, Op, Processing, Tap, Vector,
};
use std::path::Path;

fn at(name: &str) -> HookPoint {
    name.parse().unwrap()
}

fn direction() -> Vec<f32> {
    (0..64).map(|i| (i as f32).sin()).collect()
}

const NAMED: &str = "directions.safetensors";

/// One of each operation, with the edits that they stand for.
fn all(folder: &Path) -> (Interventions, Vec<Edit>) {
    let d = Tensor::new(direction(), &Device::Cpu).unwrap();
    let rows = Tensor::randn(0f32, 1f32, (3, 24, 64), &Device::Cpu).unwrap();
    let file = [("love".to_string(), (&d * 2.0).unwrap()), ("rows".to_string(), rows.clone())];
    tensor_files::save_safetensors(folder.join(NAMED), &file, None).unwrap();
    let [z, pre, mlp] = ["blocks.0.attn.hook_z", "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out"].map(at);
    let mut zero = Intervention::new(z, Op::Zero);
    zero.heads = Some(IndexSpec::List(vec![3, 1]));
    let mut scale = Intervention::new(mlp, Op::Scale);
    scale.factor = Some(0.5);
    scale.rows = Some(IndexSpec::List(vec![1]));
    let mut add = Intervention::new(pre, Op::Add);
    (add.factor, add.vector) = (Some(-1.5), Some(Vector::Named("love".into())));
    add.positions = Some(IndexSpec::Range(IndexRange { from: 1, to: None }));
    let mut project = Intervention::new(pre, Op::ProjectOut);
    project.vector = Some(Vector::Inline(direction()));
    let mut patch = Intervention::new(at("blocks.2.hook_attn_out"), Op::Patch);
    patch.vector = Some(Vector::Named("love".into()));
    patch.positions = Some(IndexSpec::Range(IndexRange { from: 2, to: Some(4) }));
    let mut mean = Intervention::new(at("blocks.2.hook_mlp_out"), Op::Mean);
    mean.vector = Some(Vector::Named("rows".into()));
    let list = Interventions::new(vec![zero, scale, add, project, patch, mean], Some(NAMED.into()));
    let edits = vec![
        Edit::zero(z).heads([3, 1]),
        Edit::scale(mlp, 0.5).rows([1]),
        Edit::add(pre, (&d * -3.0).unwrap()).positions(1..),
        Edit::project_out(pre, &d).unwrap(),
        Edit::patch(at("blocks.2.hook_attn_out"), (&d * 2.0).unwrap()).positions(2..4),
        Edit::mean_of(at("blocks.2.hook_mlp_out"), &rows).unwrap(),
    ];
    (list, edits)
}

#[test]
fn a_saved_list_does_what_its_edits_do() {
    let folder = tempfile::tempdir().unwrap();
    let (list, mut edits) = all(folder.path());
    let path = folder.path().join("list.json");
    list.save(&path).unwrap();
    let loaded = Interventions::load(&path).unwrap();
    assert_eq!(loaded, list);
    let (model, tokens) = (model("gpt2", Processing::None), Golden::open("gpt2").tokens());
    let expected = model.hooked().forward(&tokens, &mut edits).unwrap();
    let mut replay = loaded.tap(folder.path()).unwrap();
    assert_same_bits("replayed", &model.hooked().forward(&tokens, &mut replay).unwrap(), &expected);
    let boxed: &mut dyn Tap = &mut replay;
    assert_same_bits("again", &model.hooked().forward(&tokens, boxed).unwrap(), &expected);
}

fn loaded(folder: &Path, json: &str) -> model_hooks::Result<Interventions> {
    let path = folder.join("list.json");
    std::fs::write(&path, json).unwrap();
    Interventions::load(&path)
}

fn list(entry: &str) -> String {
    format!(
        r#"{{"version": 1, "tensors": "{NAMED}", "interventions": [{{"point": "blocks.0.hook_attn_out", {entry}}}]}}"#
    )
}

#[test]
fn what_is_not_of_the_format_is_refused_when_read() {
    let folder = tempfile::tempdir().unwrap();
    for entry in [
        r#""op": "double""#,
        r#""op": "zero", "strength": 2"#,
        r#""op": "scale", "factor": "much""#,
        r#""op": "scale", "factor": NaN"#,
        r#""op": "zero", "heads": [-1]"#,
        r#""op": "zero", "heads": {"from": 1, "until": 2}"#,
        r#""op": "add", "vector": {"values": [1]}"#,
        r#""factor": 1.0"#,
    ] {
        let error = loaded(folder.path(), &list(entry)).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{entry}: {error}");
    }
    let later = loaded(folder.path(), r#"{"version": 2, "interventions": []}"#).unwrap_err();
    assert!(matches!(&later, Error::BadKey { key, .. } if key == "version"), "{later}");
    assert!(loaded(folder.path(), r#"{"version": 1, "interventions": [], "more": 1}"#).is_err());
    assert!(matches!(Interventions::load(&folder.path().join("none.json")), Err(Error::Io { .. })));
}

#[test]
fn what_is_not_sound_is_refused_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    all(folder.path());
    let nan = Tensor::new(&[f32::NAN; 64], &Device::Cpu).unwrap();
    let minus = Tensor::new(&[f32::NEG_INFINITY; 24], &Device::Cpu).unwrap();
    let file = [("nan".to_string(), nan), ("minus".to_string(), minus)];
    tensor_files::save_safetensors(folder.path().join("bad.safetensors"), &file, None).unwrap();
    for (entry, part) in [
        (r#""op": "add""#, "`vector` is missing"),
        (r#""op": "zero", "vector": [1]"#, "does not read"),
        (r#""op": "scale""#, "`factor` is missing"),
        (r#""op": "patch", "vector": [1], "factor": 2"#, "does not read"),
        (r#""op": "add", "vector": []"#, "empty"),
        (r#""op": "add", "vector": [1e39]"#, "inf"),
    ] {
        let error = loaded(folder.path(), &list(entry)).unwrap().tap(folder.path()).unwrap_err();
        assert!(matches!(error, Error::BadIntervention { index: 0, .. }), "{entry}: {error}");
        assert!(error.to_string().contains(part), "{entry}: {error}");
    }
    let unknown = list(r#""op": "zero""#).replace("hook_attn_out", "hook_attn_uot");
    let error = loaded(folder.path(), &unknown).unwrap().tap(folder.path()).unwrap_err();
    assert!(error.to_string().contains("blocks.0.hook_attn_out"), "{error}");
    let named = |file: &str, tensor: &str| {
        let json = list(&format!(r#""op": "add", "vector": "{tensor}""#)).replace(NAMED, file);
        loaded(folder.path(), &json).unwrap().tap(folder.path()).map(drop)
    };
    named(NAMED, "love").unwrap();
    assert!(named("bad.safetensors", "nan").unwrap_err().to_string().contains("NaN"));
    assert!(named("bad.safetensors", "minus").is_err());
    assert!(named(NAMED, "hate").is_err() && named("none.safetensors", "love").is_err());
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::copy(folder.path().join(NAMED), inside.join(NAMED)).unwrap();
    for outside in ["../directions.safetensors", "/etc/passwd", "inside/directions.safetensors", "..", "."] {
        let error = named(outside, "love").unwrap_err();
        assert!(matches!(error, Error::BadIntervention { .. }), "{outside}: {error}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(inside.join(NAMED), folder.path().join("link.safetensors")).unwrap();
        let error = named("link.safetensors", "love").unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
    }
    // Scores may be -inf, where a query does not look.
    let scores = list(r#""op": "patch", "vector": "minus""#).replace("hook_attn_out", "attn.hook_attn_scores");
    loaded(folder.path(), &scores.replace(NAMED, "bad.safetensors")).unwrap().tap(folder.path()).unwrap();
}

#[test]
fn a_save_that_ends_at_any_step_leaves_the_old_list_or_the_new_one() {
    let (old, new) = (Interventions::new(Vec::new(), None), Interventions::new(Vec::new(), Some("new".into())));
    crash::at_every_step(
        "a_save_that_ends_at_any_step_leaves_the_old_list_or_the_new_one",
        |dir| old.save(&dir.join("list.json")).unwrap(),
        |dir| new.save(&dir.join("list.json")).unwrap(),
        |dir, finished| {
            let found = Interventions::load(&dir.join("list.json")).unwrap();
            assert!(found == new || !finished && found == old);
            new.save(&dir.join("list.json")).unwrap();
            assert_eq!(crash::names(dir), ["list.json"]);
        },
    );
}
