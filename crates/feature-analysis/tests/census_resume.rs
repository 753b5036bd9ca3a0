//! A run that is killed fifty times ends with the files of a run that was not.

#[path = "census/source.rs"]
mod source;
#[path = "census/support.rs"]
mod support;

use activation_store::TokenFilter;
use feature_analysis::census::*;
use source::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Random;

/// Every token counts: the synthetic source has no tokenizer.
fn every_token() -> CensusOptions {
    CensusOptions { filter: TokenFilter::everything(), ..CensusOptions::default() }
}

const FOLDER: &str = "SAESCOPE_CENSUS_CHILD";

fn run(folder: &Path, checkpoints: bool) {
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
    let report = run.run(&mut Synthetic::new(120), &mut |_| {}).unwrap();
    assert_eq!((report.batches, report.tokens), (120, 120 * BATCH as u64));
    run.censuses().enumerate().for_each(|(i, census)| census.save(&folder.join(format!("{i}.parquet"))).unwrap());
    run.remove_checkpoints().unwrap();
    std::fs::write(folder.join("done"), "").unwrap();
}

/// Whether something half-written lies in a folder.
fn partial(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(".partial-"))
}

#[test]
fn the_child() {
    if let Ok(folder) = std::env::var(FOLDER) {
        run(Path::new(&folder), true);
    }
}

#[test]
fn fifty_kills_make_no_difference() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), false);
    let spawn = |folder: &Path| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_child"]).env(FOLDER, folder).stdout(Stdio::null()).spawn().unwrap()
    };
    // How long a child takes on this machine as busy as it is: each lives for a random part of that.
    let (undisturbed, start) = (tempfile::tempdir().unwrap(), Instant::now());
    assert!(spawn(undisturbed.path()).wait().unwrap().success());
    let usual = start.elapsed().as_millis() as u64;
    let (mut kills, mut mid_write, mut random) = (0, 0, Random(std::process::id().into()));
    while kills < 50 {
        let dir = tempfile::tempdir().unwrap();
        let mut longest = usual.max(10);
        while !dir.path().join("done").exists() {
            let mut child = spawn(dir.path());
            std::thread::sleep(Duration::from_millis(random.below(longest)));
            // A machine that has become busier must not kill every child before it gets anywhere.
            longest += longest / 8;
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
            }
            child.wait().unwrap();
            mid_write += usize::from(partial(dir.path()) || partial(&dir.path().join("state")));
        }
        for file in ["0.parquet", "1.parquet"] {
            let [ours, theirs] = [dir.path(), whole.path()].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(ours == theirs, "{file} differs after {kills} kills");
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        // What a kill in the midst of a final save leaves under its temporary name is all the litter there is.
        let named = left.iter().filter(|name| !name.to_string_lossy().starts_with(".partial-"));
        assert_eq!(named.count(), 3, "{left:?}");
    }
    println!("{kills} kills, {mid_write} of them in the midst of a write");
    // About half of them are; none in fifty would mean that the test tests nothing.
    assert!(mid_write > 0);
}

#[test]
fn a_run_stops_after_exactly_so_many_tokens() {
    let census = || FeatureCensus::new(WIDTH, every_token()).unwrap();
    let coder = Positive(WIDTH);
    let mut saved = Vec::new();
    for batch in [BATCH, 2 * BATCH] {
        let mut run = CensusRun::new().add(0, &coder, census()).unwrap().stop_after(100);
        let mut source = Synthetic::new(20).batches_of(batch);
        let report = run.run(&mut source, &mut |_| {}).unwrap();
        assert_eq!((report.tokens, report.ended_early), (100, false));
        saved.push(support::bytes(&run.into_censuses()[0]));
    }
    assert!(saved[0] == saved[1], "batches make no difference");
    let mut run = CensusRun::new().add(0, &coder, census()).unwrap().stop_after(1_000_000);
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
    let run = CensusRun::new().add(0, &coder, census).unwrap().checkpoints(Checkpoints::new(dir.path())).stop_after(1);
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
    let census = run.into_censuses().remove(0);
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
