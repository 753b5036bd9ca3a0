//! The cache for delphi: what is written is read back, equal to the sparse codes; and what is refused leaves nothing.

#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;
#[path = "../../feature-census/tests/census/source.rs"]
mod source;
#[path = "../../feature-census/tests/census/support.rs"]
mod support;

use activation_store::{ActivationBatch, ActivationSource, ActivationSpec, RowIndex};
use candle_core::{Device, Tensor};
use feature_analysis::export::delphi::*;
use feature_analysis::export::{ExportProgress, ExportStage};
use sae_core::SparseCoder;
use source::*;
use std::path::Path;
use tensor_files::{Dtype, SafetensorsFile, save_safetensors};

/// Batches of the synthetic source: 32 tokens, 4 rows of 8.
const BATCHES: usize = 12;

fn target<'a>(coder: &'a dyn SparseCoder, hook: usize, hookpoint: &str) -> ExportSae<'a> {
    ExportSae { hook, coder, hookpoint: hookpoint.into() }
}

fn options() -> DelphiOptions {
    DelphiOptions { n_splits: 3, model_name: "demo".into(), ..DelphiOptions::default() }
}

/// Row, position, feature and activation of everything that fires, by row, position and feature.
fn expected(coder: &dyn SparseCoder, rows: u32) -> Vec<DelphiActivation> {
    let mut expected = Vec::new();
    for batch in Synthetic::new(BATCHES) {
        let batch = batch.unwrap();
        let codes = coder.encode(&batch.rows[0]).unwrap();
        for (at, (features, values)) in batch.at.iter().zip(codes.features.iter()) {
            let row = at.row as u32;
            let of = |(&feature, &value)| DelphiActivation { row, pos: at.pos, feature, value };
            expected.extend(features.iter().zip(values).map(of).filter(|_| row < rows));
        }
    }
    expected
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/latents");
    let coder = Positive(WIDTH);
    let targets = [target(&coder, 0, "layers.0"), target(&coder, 1, "layers.0.mlp")];
    let mut progress: Vec<ExportProgress> = Vec::new();
    let mut source = Synthetic::new(BATCHES);
    let report = write_delphi(&mut source, &targets, &out, &options(), &mut |p| progress.push(p)).unwrap();
    let expected = expected(&coder, u32::MAX);
    assert_eq!((report.rows, report.context), (48, 8));
    assert_eq!(report.activations, [expected.len() as u64; 2]);
    assert!(
        progress.iter().filter(|p| p.stage == ExportStage::Text).count() == BATCHES
            && progress.last().unwrap().done == 6
    );
    assert_eq!(names(&out), ["layers.0", "layers.0.mlp"]);
    assert_eq!(names(out.parent().unwrap()), ["latents"]);
    for hookpoint in ["layers.0", "layers.0.mlp"] {
        assert_eq!(
            names(&out.join(hookpoint)),
            ["0_20.safetensors", "21_41.safetensors", "42_63.safetensors", "config.json"]
        );
        let cache = DelphiCache::open(out.join(hookpoint)).unwrap();
        assert_eq!((&cache.config["cache_ctx_len"], &cache.config["n_tokens"]), (&8.into(), &384.into()));
        assert_eq!((&cache.config["model_name"], &cache.config["n_splits"]), (&"demo".into(), &3.into()));
        for split in cache.read() {
            let split = split.unwrap();
            let mut part: Vec<_> = expected.iter().filter(|a| split.features.contains(&a.feature)).copied().collect();
            part.iter_mut().for_each(|a| a.value = half::f16::from_f32(a.value).to_f32());
            assert!(part.len() > 100 && split.activations == part, "{:?}", split.features);
            let tokens = split.tokens.unwrap();
            let ids: Vec<i64> = (0..384).map(|i| i % 8).collect();
            assert_eq!((tokens.ids, tokens.context), (ids, 8));
        }
    }
    let file = SafetensorsFile::open(out.join("layers.0/0_20.safetensors")).unwrap();
    let dtype = |name: &str| file.info(name).unwrap().dtype;
    assert_eq!([dtype("tokens"), dtype("locations"), dtype("activations")], [Dtype::I64, Dtype::U16, Dtype::F16]);
}

/// Ranges of features are no open files: 512 of them once were 512, and many systems allow 1,024.
#[cfg(target_os = "linux")]
#[test]
fn open_files_do_not_depend_on_the_ranges() {
    let coder = Positive(WIDTH);
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..8).map(|i| format!("layers.{i}")).collect();
    let targets: Vec<_> = names.iter().map(|name| target(&coder, 0, name)).collect();
    let options = DelphiOptions { n_splits: WIDTH, ..options() };
    let mut most = 0;
    let mut count = |_: ExportProgress| most = std::fs::read_dir("/proc/self/fd").unwrap().count().max(most);
    write_delphi(&mut Synthetic::new(2), &targets, &dir.path().join("o"), &options, &mut count).unwrap();
    // Other tests of this program have some open as well.
    assert!(most > 3 && most < 100, "{most} open files for {} ranges", 8 * WIDTH);
}

#[test]
fn so_many_rows_and_no_more_whatever_the_batches() {
    let coder = Positive(WIDTH);
    let dir = tempfile::tempdir().unwrap();
    let rows = |batch: usize, name: &str| {
        let mut source = Synthetic::new(BATCHES).batches_of(batch);
        let options = DelphiOptions { rows: Some(5), ..options() };
        let out = dir.path().join(name);
        assert_eq!(write_delphi(&mut source, &[target(&coder, 0, "h")], &out, &options, &mut |_| {}).unwrap().rows, 5);
        names(&out.join("h"))
            .into_iter()
            .map(|file| std::fs::read(out.join("h").join(file)).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(32, "a"), rows(8, "b"));
    let found: Vec<_> =
        DelphiCache::open(dir.path().join("a/h")).unwrap().read().map(|s| s.unwrap().activations.len()).collect();
    assert_eq!(found.iter().sum::<usize>(), expected(&coder, 5).len());
}

/// One batch of chosen rows.
struct Once {
    spec: ActivationSpec,
    batch: Option<ActivationBatch>,
    index: RowIndex,
}

impl Once {
    /// Of the synthetic source's first batch, changed.
    fn new(change: impl FnOnce(&mut ActivationBatch)) -> Self {
        let mut source = Synthetic::new(1);
        let mut batch = source.next().unwrap().unwrap();
        change(&mut batch);
        Self { spec: source.spec().clone(), batch: Some(batch), index: source.token_rows().unwrap().clone() }
    }

    fn with_value(value: f32) -> Self {
        Self::new(|batch| {
            let mut values = vec![0.0; BATCH * WIDTH];
            values[3 * WIDTH + 30] = value;
            values[5 * WIDTH + 63] = 2.0;
            batch.rows[0] = Tensor::from_vec(values, (BATCH, WIDTH), &Device::Cpu).unwrap();
        })
    }
}

impl Iterator for Once {
    type Item = activation_store::Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch.take().map(Ok)
    }
}

impl ActivationSource for Once {
    fn spec(&self) -> &ActivationSpec {
        &self.spec
    }

    fn token_rows(&self) -> Option<&RowIndex> {
        Some(&self.index)
    }
}

/// The activations that a source of a single one leaves.
fn of_value(value: f32) -> Vec<DelphiActivation> {
    let dir = tempfile::tempdir().unwrap();
    let (coder, out) = (Positive(WIDTH), dir.path().join("o"));
    write_delphi(&mut Once::with_value(value), &[target(&coder, 0, "h")], &out, &options(), &mut |_| {}).unwrap();
    DelphiCache::open(out.join("h")).unwrap().read().flat_map(|split| split.unwrap().activations).collect()
}

#[test]
fn what_delphi_would_leave_out_is_left_out_and_empty_ranges_are_files_too() {
    let always = DelphiActivation { row: 0, pos: 5, feature: 63, value: 2.0 };
    assert_eq!(of_value(1e-5), [always]);
    let kept = of_value(1.2e-5);
    assert_eq!(kept.len(), 2);
    assert!((kept[0].value - 1.2e-5).abs() < 3e-8, "{}", kept[0].value);
    assert_eq!(of_value(65504.0)[0], DelphiActivation { row: 0, pos: 3, feature: 30, value: 65504.0 });
}

#[test]
fn bad_input_is_named_and_leaves_nothing() {
    let coder = Positive(WIDTH);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |source: &mut dyn ActivationSource, targets: &[ExportSae<'_>], options: DelphiOptions, says: &str| {
        let error = write_delphi(source, targets, &out, &options, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(says), "`{error}` does not say `{says}`");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{says}: something is left");
    };
    let one = || vec![target(&coder, 0, "h")];
    let whole = || Synthetic::new(2);
    refused(&mut Once::with_value(65520.0), &one(), options(), "feature 30 has activation 65520 at 0/3");
    refused(&mut Once::with_value(f32::INFINITY), &one(), options(), "finite ones up to 65504");
    refused(&mut whole(), &[], options(), "option `targets` is empty");
    refused(&mut whole(), &[target(&coder, 2, "h")], options(), "one of the source's hooks");
    refused(&mut whole(), &[target(&Positive(3), 0, "h")], options(), "d_in is 3");
    refused(&mut whole(), &[target(&coder, 0, "h"), target(&coder, 1, "h")], options(), "a name of its own");
    refused(&mut whole(), &[target(&coder, 0, "../h")], options(), "plain name");
    for n_splits in [0, WIDTH + 1] {
        refused(&mut whole(), &one(), DelphiOptions { n_splits, ..options() }, "option `n_splits`");
    }
    refused(&mut Synthetic::new(0), &one(), options(), "no whole row");
    refused(&mut whole(), &one(), DelphiOptions { rows: Some(0), ..options() }, "no whole row");
    refused(&mut Synthetic::new(2).forgetful(), &one(), options(), "does not remember row 0");
    refused(&mut Once::new(|batch| batch.at.reverse()), &one(), options(), "row 2 came after row 3");
    let mut ragged = Once::new(|_| {});
    let mut row = ragged.index.get(2).unwrap().clone();
    row.tokens.pop();
    ragged.index.insert(row);
    refused(&mut ragged, &one(), options(), "row 2 has 7 tokens");
    // What is there stays as it is.
    std::fs::create_dir(&out).unwrap();
    let error = write_delphi(&mut whole(), &one(), &out, &options(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("exists already") && names(&out).is_empty(), "{error}");
}

#[test]
fn caches_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |folder: &Path| match DelphiCache::open(folder) {
        Err(error) => error.to_string(),
        Ok(cache) => cache.read().find_map(Result::err).expect("an error").to_string(),
    };
    let folder = dir.path().join("h");
    std::fs::create_dir(&folder).unwrap();
    assert!(error(&folder).contains("config.json"));
    std::fs::write(folder.join("config.json"), "[]").unwrap();
    assert!(error(&folder).contains("invalid type"));
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    for name in ["0.safetensors", "5_2.safetensors", "a_b.safetensors"] {
        std::fs::write(folder.join(name), "").unwrap();
        assert!(error(&folder).contains("FIRST_LAST"), "{name}");
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let path = folder.join("4_7.safetensors");
    std::fs::write(&path, "short").unwrap();
    assert!(error(&folder).contains("4_7.safetensors"));
    let save = |locations: &[i64], shape: (usize, usize), values: &[f32], tokens: &[i64]| {
        let tensors = [
            ("locations", Tensor::from_slice(locations, shape, &Device::Cpu).unwrap()),
            ("activations", Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()),
            ("tokens", Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu).unwrap()),
        ];
        save_safetensors(&path, &tensors, None).unwrap();
        DelphiCache::open(&folder).unwrap().read().next().unwrap().map(|split| split.activations)
    };
    let good = DelphiActivation { row: 0, pos: 1, feature: 7, value: 2.0 };
    assert_eq!(save(&[0, 1, 3], (1, 3), &[2.0], &[9, 9]).unwrap(), [good]);
    for location in [[1, 1, 3], [0, 2, 3], [0, 1, 4], [-1, 1, 3], [0, 1, i64::MAX]] {
        assert!(
            save(&location, (1, 3), &[2.0], &[9, 9]).unwrap_err().to_string().contains("is outside"),
            "{location:?}"
        );
    }
    assert!(save(&[0, 1, 3], (1, 3), &[f32::NAN], &[9, 9]).is_err());
    assert!(save(&[0, 1, 3], (1, 3), &[1.0, 2.0], &[9, 9]).is_err());
    assert!(save(&[0, 1], (1, 2), &[1.0], &[9, 9]).is_err());
    save(&[0, 1, 3], (1, 3), &[2.0], &[9, 9]).unwrap();
    std::fs::copy(&path, folder.join("7_9.safetensors")).unwrap();
    assert!(error(&folder).contains("overlap"));
}

#[test]
fn an_export_that_ends_at_any_step_leaves_nothing_or_all_of_it() {
    let coder = Positive(WIDTH);
    let write = |dir: &Path| {
        let (targets, options) = ([target(&coder, 0, "layers.0")], DelphiOptions { n_splits: 2, ..options() });
        write_delphi(&mut Synthetic::new(2), &targets, &dir.join("out"), &options, &mut |_| {}).unwrap();
    };
    let all = |dir: &Path| -> Vec<Vec<u8>> {
        let folder = dir.join("out/layers.0");
        names(&folder).iter().map(|name| std::fs::read(folder.join(name)).unwrap()).collect()
    };
    let whole = tempfile::tempdir().unwrap();
    write(whole.path());
    crash::at_every_step(
        "an_export_that_ends_at_any_step_leaves_nothing_or_all_of_it",
        |_| {},
        write,
        |dir, finished| {
            if !dir.join("out").exists() {
                assert!(!finished);
                write(dir);
            }
            assert!(all(dir) == all(whole.path()));
            assert_eq!(names(dir), ["out"]);
        },
    );
}
