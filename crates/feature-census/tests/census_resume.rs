//! A run that is killed at any moment ends with the files of a run that was not.

#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;
#[path = "census/source.rs"]
mod source;
#[path = "census/support.rs"]
mod support;

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions, TokenFilter};
use candle_core::Tensor;
use crash::{at_every_step, names};
use feature_census::*;
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use sae_core::{Codes, Coupling, Sae, SparseCoder};
use source::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Random;
use tensor_files::{SafetensorsFile, save_safetensors};

/// Every token counts: the synthetic source has no tokenizer.
fn every_token() -> CensusOptions {
    CensusOptions { filter: TokenFilter::everything(), ..CensusOptions::default() }
}

const FOLDER: &str = "SAESCOPE_CENSUS_CHILD";

/// How often random kills are tried, at most: the number of kills and the time.
const KILLS: usize = 50;
const KILL_TIME: Duration = Duration::from_secs(12);

fn run(folder: &Path, batches: usize, checkpoints: bool) {
    let (first, second) = (Positive(WIDTH), Positive(WIDTH));
    let options = CensusOptions { top: 5, samples_per_bin: 3, together: vec![1], ..every_token() };
    let census = |options| FeatureCensus::new(WIDTH, options).unwrap();
    // Two SAEs, one of which counts other tokens.
    let filter = TokenFilter::everything().from_position(1).with_max_norm(9.5);
    let others = CensusOptions { filter, ..options.clone() };
    let mut run = CensusRun::new().add(0, &first, census(options)).unwrap().add(1, &second, census(others)).unwrap();
    if checkpoints {
        run = run.checkpoints(Checkpoints::new(folder.join("state")).every_batches(2));
    }
    let report = run.run(&mut Synthetic::new(batches), &mut |_| {}).unwrap();
    assert_eq!((report.batches, report.tokens), (batches as u64, (batches * BATCH) as u64));
    assert_eq!(report.damaged_checkpoints, []);
    run.censuses().enumerate().for_each(|(i, census)| census.save(&folder.join(format!("{i}.parquet"))).unwrap());
    run.remove_checkpoints().unwrap();
    std::fs::write(folder.join("done"), "").unwrap();
}

/// Checks that a folder holds the files of an undisturbed run and nothing else.
fn same_files(ours: &Path, whole: &Path) {
    for file in ["0.parquet", "1.parquet"] {
        let [ours, theirs] = [ours, whole].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(ours == theirs, "{file} differs");
    }
    assert_eq!(names(ours), ["0.parquet", "1.parquet", "done"]);
}

#[test]
fn a_run_that_ends_at_any_step_is_resumed() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), 5, false);
    at_every_step(
        "a_run_that_ends_at_any_step_is_resumed",
        |_| {},
        |dir| run(dir, 5, true),
        |dir, _| {
            run(dir, 5, true);
            same_files(dir, whole.path());
        },
    );
}

#[test]
fn the_child() {
    if let Ok(folder) = std::env::var(FOLDER) {
        run(Path::new(&folder), 120, true);
    }
}

#[test]
fn random_kills_make_no_difference() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), 120, false);
    let spawn = |folder: &Path| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_child"]).env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        child.spawn().unwrap()
    };
    // How long a child takes on this machine as busy as it is: each lives for a random part of that.
    let (undisturbed, start) = (tempfile::tempdir().unwrap(), Instant::now());
    assert!(spawn(undisturbed.path()).wait_with_output().unwrap().status.success());
    let usual = start.elapsed().as_millis() as u64;
    let (mut kills, mut random) = (0, Random(std::process::id().into()));
    let time_left = || KILL_TIME.checked_sub(start.elapsed());
    while kills < KILLS && time_left().is_some() {
        let dir = tempfile::tempdir().unwrap();
        let mut longest = usual.max(10);
        loop {
            let mut child = spawn(dir.path());
            // The last one lives to its end.
            if let Some(left) = time_left().filter(|_| kills < KILLS) {
                std::thread::sleep(Duration::from_millis(random.below(longest)).min(left));
                child.kill().unwrap();
            }
            // A machine that has become busier must not kill every child before it gets anywhere.
            longest += longest / 8;
            let output = child.wait_with_output().unwrap();
            match output.status.code() {
                Some(0) => break,
                None => kills += 1,
                Some(_) => panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout)),
            }
        }
        same_files(dir.path(), whole.path());
    }
    println!("{kills} kills");
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_passed_over() {
    let coder = Positive(WIDTH);
    let start = |folder: &Path, batches| {
        let census = FeatureCensus::new(WIDTH, every_token()).unwrap();
        let checkpoints = Checkpoints::new(folder).every_batches(1);
        let mut run = CensusRun::new().add(0, &coder, census).unwrap().checkpoints(checkpoints);
        run.run(&mut Synthetic::new(batches), &mut |_| {}).map(|report| (report, support::bytes(&run.finish()[0])))
    };
    let whole = start(tempfile::tempdir().unwrap().path(), 5).unwrap().1;
    let (good, later) = ("checkpoint-00000000000000000002", "checkpoint-00000000000000000004");
    let copy = |dir: &Path| {
        std::fs::create_dir(dir.join(later)).unwrap();
        for file in ["census-0.parquet", "state.json"] {
            std::fs::copy(dir.join(good).join(file), dir.join(later).join(file)).unwrap();
        }
    };
    let cut = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    // The first is what a process killed in the midst of `remove_dir_all` leaves.
    let damages: [&dyn Fn(&Path); 5] = [
        &|later| std::fs::remove_file(later.join("state.json")).unwrap(),
        &|later| std::fs::remove_file(later.join("census-0.parquet")).unwrap(),
        &|later| cut(later.join("state.json")),
        &|later| cut(later.join("census-0.parquet")),
        &|later| std::fs::write(later.join("state.json"), "").unwrap(),
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path(), 2).unwrap();
        copy(dir.path());
        damage(&dir.path().join(later));
        let (report, bytes) = start(dir.path(), 5).unwrap();
        assert_eq!(report.resumed_at, 2 * BATCH as u64);
        let [damaged] = &report.damaged_checkpoints[..] else { panic!("{report:?}") };
        assert_eq!(damaged.path, dir.path().join(later));
        assert!(bytes == whole);
        assert_eq!(names(dir.path()), ["checkpoint-00000000000000000005"]);
        // Without an earlier checkpoint this is an error that says what to do; the damaged checkpoint is kept for inspection.
        let dir = tempfile::tempdir().unwrap();
        start(dir.path(), 2).unwrap();
        copy(dir.path());
        std::fs::remove_dir_all(dir.path().join(good)).unwrap();
        damage(&dir.path().join(later));
        let error = start(dir.path(), 5).unwrap_err().to_string();
        assert!(error.contains(later) && error.contains("remove the folder to start anew"), "{error}");
        assert!(dir.path().join(later).exists());
    }
}

#[test]
fn a_run_goes_on_with_the_next_token() {
    let census = || FeatureCensus::new(WIDTH, every_token()).unwrap();
    let coder = Positive(WIDTH);
    let mut whole = CensusRun::new().add(0, &coder, census()).unwrap().max_tokens(200);
    whole.run(&mut Synthetic::new(20), &mut |_| {}).unwrap();
    let whole = support::bytes(&whole.finish()[0]);
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(dir.path()).every_batches(1);
    let mut run = CensusRun::new().add(0, &coder, census()).unwrap().checkpoints(checkpoints);
    let mut source = Synthetic::new(20);
    // Within one batch, to its end, and beyond it.
    for stop in [100, 100, 101, 110, 128, 129, 200] {
        run = run.max_tokens(stop);
        let report = run.run(&mut source, &mut |_| {}).unwrap();
        assert_eq!((report.tokens, report.batches), (stop, stop.div_ceil(BATCH as u64)));
    }
    assert!(support::bytes(run.censuses().next().unwrap()) == whole);
    // The last checkpoint is that of the last whole batch.
    let mut resumed = CensusRun::new().add(0, &coder, census()).unwrap().max_tokens(200);
    resumed = resumed.checkpoints(Checkpoints::new(dir.path()));
    assert_eq!(resumed.run(&mut Synthetic::new(20), &mut |_| {}).unwrap().resumed_at, 192);
    assert!(support::bytes(&resumed.finish()[0]) == whole);
}

#[test]
fn a_run_stops_after_exactly_so_many_tokens() {
    let census = || FeatureCensus::new(WIDTH, every_token()).unwrap();
    let coder = Positive(WIDTH);
    let mut saved = Vec::new();
    for batch in [BATCH, 2 * BATCH] {
        let mut run = CensusRun::new().add(0, &coder, census()).unwrap().max_tokens(100);
        let mut source = Synthetic::new(20).batches_of(batch);
        let report = run.run(&mut source, &mut |_| {}).unwrap();
        assert_eq!((report.tokens, report.ended_early), (100, false));
        saved.push(support::bytes(&run.finish()[0]));
    }
    assert!(saved[0] == saved[1], "batches make no difference");
    let mut run = CensusRun::new().add(0, &coder, census()).unwrap().max_tokens(1_000_000);
    assert!(run.run(&mut Synthetic::new(2), &mut |_| {}).unwrap().ended_early);
}

#[test]
fn what_does_not_fit_is_refused() {
    let coder = Positive(WIDTH);
    let census = |d_sae| FeatureCensus::new(d_sae, every_token()).unwrap();
    assert!(CensusRun::new().add(0, &coder, census(WIDTH + 1)).is_err());
    let mut run = CensusRun::new().add(2, &coder, census(WIDTH)).unwrap();
    let error = run.run(&mut Synthetic::new(1), &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "option `hook` is 2, expected one of the source's hooks");
    let mut run = CensusRun::new().add(0, &coder, census(WIDTH)).unwrap();
    let error = run.run(&mut Synthetic::new(1).forgetful(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("this census counts documents"), "{error}");
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let coder = Positive(WIDTH);
    let start = |options: CensusOptions, batches| {
        let census = FeatureCensus::new(WIDTH, options).unwrap();
        let checkpoints = Checkpoints::new(dir.path()).every_batches(1);
        let mut run = CensusRun::new().add(0, &coder, census).unwrap().checkpoints(checkpoints);
        run.run(&mut Synthetic::new(batches), &mut |_| {})
    };
    start(every_token(), 3).unwrap();
    let refuse = |options, batches| start(options, batches).unwrap_err().to_string();
    assert!(refuse(CensusOptions { top: 2, ..every_token() }, 3).contains("their options differ"));
    assert_eq!(
        refuse(every_token(), 2),
        "the source ended after 2 batches, but 3 were taken from it before the run was interrupted"
    );
    assert_eq!(start(every_token(), 3).unwrap().batches, 3);
    // One that is to go less far.
    let census = FeatureCensus::new(WIDTH, every_token()).unwrap();
    let run = CensusRun::new().add(0, &coder, census).unwrap().checkpoints(Checkpoints::new(dir.path())).max_tokens(1);
    let error = { run }.run(&mut Synthetic::new(3), &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("the interrupted run had counted"), "{error}");
}

#[test]
fn a_second_pass_fills_intervals_exactly() {
    let coder = Positive(WIDTH);
    let filter = TokenFilter::everything().from_position(1);
    let options = CensusOptions { filter, seed: 5, ..every_token() };
    let mut run = CensusRun::new().add(0, &coder, FeatureCensus::new(WIDTH, options.clone()).unwrap()).unwrap();
    run.run(&mut Synthetic::new(60), &mut |_| {}).unwrap();
    let census = run.finish().remove(0);
    let pass = IntervalPass::new(&census, &[9, 3], 4, 6).unwrap();
    let mut run = CensusRun::new().add_intervals(1, &coder, pass).unwrap();
    run.run(&mut Synthetic::new(60), &mut |_| {}).unwrap();
    let pass = run.into_intervals().remove(0);

    for feature in [3, 9] {
        let stats = census.stats(feature).unwrap();
        let intervals = pass.intervals(feature).unwrap();
        assert_eq!(intervals.iter().map(|i| i.total).sum::<u64>(), stats.count);
        assert_eq!((intervals.len(), intervals[0].end), (4, stats.max));
        for interval in &intervals {
            let mut all = Vec::new();
            for batch in Synthetic::new(60) {
                let batch = batch.unwrap();
                let lines = batch.rows[0].to_vec2::<f32>().unwrap();
                for ((&at, &token), line) in batch.at.iter().zip(&batch.tokens).zip(lines) {
                    let activation = line[feature as usize];
                    let inside = activation >= interval.start && activation < interval.end || activation == stats.max;
                    if at.pos != 0
                        && activation > 0.0
                        && inside
                        && (activation < stats.max || interval.end == stats.max)
                    {
                        all.push(CensusExample { at, token, activation });
                    }
                }
            }
            assert_eq!(interval.total, all.len() as u64);
            all.sort_by_key(|e| support::sample_hash(5, feature, e.at));
            all.truncate(6);
            assert_eq!(interval.examples, all);
        }
    }
    let other = pass.intervals(4).unwrap_err().to_string();
    assert_eq!(other, "feature 4 was not collected; collected were [3, 9]");
}

#[test]
fn a_saved_census_is_old_or_new() {
    let write = |dir: &Path, n: usize| {
        let coder = Positive(WIDTH);
        let mut run = CensusRun::new().add(0, &coder, FeatureCensus::new(WIDTH, every_token()).unwrap()).unwrap();
        run.run(&mut Synthetic::new(n), &mut |_| {}).unwrap();
        run.finish()[0].save(&dir.join("census.parquet")).unwrap();
    };
    let saved = |dir: &Path| std::fs::read(dir.join("census.parquet")).unwrap();
    let [old, new] = [1, 2].map(|n| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), n);
        saved(dir.path())
    });
    at_every_step(
        "a_saved_census_is_old_or_new",
        |dir| write(dir, 1),
        |dir| write(dir, 2),
        |dir, finished| {
            let found = saved(dir);
            assert!(found == new || !finished && found == old);
            write(dir, 2);
            assert!(saved(dir) == new && names(dir) == ["census.parquet"]);
        },
    );
}

/// Another SAE of the same sizes: its codes are a little larger.
struct Larger<'a>(&'a Sae);

impl SparseCoder for Larger<'_> {
    fn d_in(&self) -> usize {
        self.0.d_in()
    }
    fn d_sae(&self) -> usize {
        self.0.d_sae()
    }
    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }
    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        self.0.encode(&(x * 1.001)?)
    }
    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        self.0.decode(codes)
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        self.0.decoder_rows(features)
    }
}

#[test]
fn a_checkpoint_of_another_stream_or_sae_is_refused() {
    let demo = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo").join(path);
    let model = |processing| load(&demo("lm"), &LoadOptions::new(processing)).unwrap();
    let (tl, none) = (model(Processing::TransformerLens), model(Processing::None));
    let sae = Sae::load(demo("sae")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Two texts of one name, as long as each other.
    let text = std::fs::read_to_string(demo("text.jsonl")).unwrap();
    let [a, b] = [("a", text.clone()), ("b", text.replacen(" the ", " teh ", 1))].map(|(folder, text)| {
        let path = dir.path().join(folder).join("text.jsonl");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    });
    let run = |model: &LanguageModel, coder: &dyn SparseCoder, text: &Path, options: StoreOptions, stop| {
        let documents = Documents::open(&[text], DocumentOptions::default()).unwrap();
        let options = StoreOptions { store_batch_size_prompts: 1, ..options };
        let mut harvest = ActivationStore::from_sae(model, &sae, documents, options).unwrap().in_order();
        let census = FeatureCensus::new(sae.d_sae(), CensusOptions::default()).unwrap();
        let mut run = CensusRun::new().add(0, coder, census).unwrap().max_tokens(stop);
        run = run.checkpoints(Checkpoints::new(dir.path().join("state")).every_batches(1));
        run.run(&mut harvest, &mut |_| {})
    };
    let same = StoreOptions::default;
    run(&tl, &sae, &a, same(), 256).unwrap();
    let refused = |model: &LanguageModel, coder: &dyn SparseCoder, text: &Path, options: StoreOptions, what: &str| {
        let error = run(model, coder, text, options, 512).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("of another run"), "{what}: {error}");
    };
    refused(&tl, &sae, &b, same(), "its documents, file 0");
    refused(&none, &sae, &a, same(), "its processing");
    refused(&tl, &sae, &a, StoreOptions { prepend_bos: Some(false), ..same() }, "its packing");
    refused(&tl, &sae, &a, StoreOptions { context_size: Some(64), ..same() }, "its packing");
    refused(&tl, &Larger(&sae), &a, same(), "its SAE 0");
    // Other files of the same names: a bias that is twice as large, a space before each text.
    let copy = |folder: &str, change: &dyn Fn(&Path)| {
        let to = dir.path().join(folder).join("lm");
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(demo("lm")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        change(&to);
        load(&to, &LoadOptions::new(Processing::TransformerLens)).unwrap()
    };
    let weights = copy("weights", &|folder| {
        let path = folder.join("model.safetensors");
        let file = SafetensorsFile::open(&path).unwrap();
        let tensors = file.names().into_iter().map(|name| {
            let tensor = file.load(&name).unwrap();
            let doubled = name.ends_with("h.0.mlp.c_fc.bias");
            (name, if doubled { (tensor * 2.0).unwrap() } else { tensor })
        });
        let tensors: Vec<_> = tensors.collect();
        save_safetensors(&path, &tensors, None).unwrap();
    });
    refused(&weights, &sae, &a, same(), "its weights");
    let tokenizer = copy("tokenizer", &|folder| {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = text.replacen("\"add_prefix_space\": false", "\"add_prefix_space\": true", 1);
        assert_ne!(text, changed);
        std::fs::write(&path, changed).unwrap();
    });
    refused(&tokenizer, &sae, &a, same(), "its tokenizer");
    // The same is the same, also from elsewhere.
    let moved = dir.path().join("text.jsonl");
    std::fs::copy(&a, &moved).unwrap();
    assert_eq!(run(&tl, &sae, &moved, same(), 512).unwrap().resumed_at, 256);
}
