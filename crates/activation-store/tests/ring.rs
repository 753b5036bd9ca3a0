//! The ring and SAELens' mixing schedule on a source that counts.

use activation_store::{
    ActivationBatch, ActivationSource, ActivationSpec, Error, HookRows, Result, Ring, Shuffle, ShuffleOptions,
    Shuffled, TokenPos,
};
use candle_core::{Device, Tensor};
use model_hooks::{HookPoint, ModelShape};
use proptest::prelude::*;

/// Rows 0, 1, 2, ... in chunks of the given sizes: row `i` is `[i]` at the first hook, `[-i, i + 0.5]` at the second.
struct Counting {
    spec: ActivationSpec,
    sizes: std::vec::IntoIter<usize>,
    next: u64,
}

impl Counting {
    fn new(sizes: impl Into<Vec<usize>>) -> Self {
        let sizes = sizes.into();
        let hook = |point: HookPoint, width| HookRows::resolve(point, &ModelShape::new(width, 1, 1, 1)).unwrap();
        let hooks = vec![hook(HookPoint::Embed, 1), hook(HookPoint::PosEmbed, 2)];
        let spec = ActivationSpec::new("counting", hooks, sizes.iter().copied().max().unwrap_or(0));
        Self { spec, sizes: sizes.into_iter(), next: 0 }
    }
}

fn chunk(ids: std::ops::Range<u64>) -> ActivationBatch {
    let n = (ids.end - ids.start) as usize;
    let first: Vec<f32> = ids.clone().map(|i| i as f32).collect();
    let second: Vec<f32> = ids.clone().flat_map(|i| [-(i as f32), i as f32 + 0.5]).collect();
    ActivationBatch {
        rows: vec![
            Tensor::from_vec(first, (n, 1), &Device::Cpu).unwrap(),
            Tensor::from_vec(second, (n, 2), &Device::Cpu).unwrap(),
        ],
        at: ids.clone().map(|row| TokenPos { row, pos: 0 }).collect(),
        tokens: ids.map(|i| i as u32).collect(),
    }
}

impl Iterator for Counting {
    type Item = Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.next + self.sizes.next()? as u64;
        let ids = std::mem::replace(&mut self.next, end)..end;
        Some(Ok(chunk(ids)))
    }
}

impl ActivationSource for Counting {
    fn spec(&self) -> &ActivationSpec {
        &self.spec
    }
}

fn options(ring_rows: usize, batch_rows: usize) -> ShuffleOptions {
    ShuffleOptions { ring_rows, batch_rows, shuffle: Shuffle::Seeded(7), mix_fraction: None, drop_last: false }
}

/// The batches' row ids, after a check that address, token and both hooks of each row belong together.
fn ids(stream: Shuffled<Counting>) -> Vec<Vec<u64>> {
    stream.map(|batch| check(&batch.unwrap())).collect()
}

fn check(batch: &ActivationBatch) -> Vec<u64> {
    let first: Vec<Vec<f32>> = batch.rows[0].to_vec2().unwrap();
    let second: Vec<Vec<f32>> = batch.rows[1].to_vec2().unwrap();
    assert_eq!((first.len(), second.len(), batch.tokens.len()), (batch.len(), batch.len(), batch.len()));
    for (i, at) in batch.at.iter().enumerate() {
        let id = at.row as f32;
        assert_eq!((first[i].as_slice(), second[i].as_slice()), (&[id][..], &[-id, id + 0.5][..]));
        assert_eq!(u64::from(batch.tokens[i]), at.row);
    }
    batch.at.iter().map(|at| at.row).collect()
}

fn run(sizes: &[usize], options: ShuffleOptions) -> Vec<Vec<u64>> {
    ids(Shuffled::new(Counting::new(sizes), options).unwrap())
}

fn sorted(batches: &[Vec<u64>]) -> Vec<u64> {
    let mut all = batches.concat();
    all.sort_unstable();
    all
}

#[test]
fn saelens_vector_19_and_15_give_8_batches() {
    let mixing = ShuffleOptions { mix_fraction: Some(0.5), drop_last: true, ..options(16, 4) };
    let mut stream = Shuffled::new(Counting::new([19, 15]), mixing).unwrap();
    let batches: Vec<_> = stream.by_ref().map(|b| check(&b.unwrap())).collect();
    assert_eq!(batches.len(), 8);
    assert!(batches.iter().all(|b| b.len() == 4));
    assert_eq!(stream.dropped(), 2);
    // Without SAELens' habit of dropping it, the tail comes as a ninth.
    let whole = run(&[19, 15], ShuffleOptions { drop_last: false, ..mixing });
    assert_eq!((whole.len(), whole[8].len()), (9, 2));
    assert_eq!(sorted(&whole), (0..34).collect::<Vec<_>>());
    // The first two batches were served from the first chunk alone.
    assert!(batches[..2].concat().iter().all(|id| *id < 19));
}

#[test]
fn saelens_vector_mix_0_keeps_the_order() {
    let mixing = ShuffleOptions { mix_fraction: Some(0.0), drop_last: true, ..options(16, 4) };
    assert_eq!(run(&[19, 15], mixing).concat(), (0..32).collect::<Vec<_>>());
}

#[test]
fn saelens_vector_200_rows_give_20_batches() {
    for mix in [0.2, 0.7] {
        for sizes in [&[200][..], &[100, 100], &[50; 4], &[10; 20], &[1; 200], &[90, 90, 20]] {
            let mixing = ShuffleOptions { mix_fraction: Some(mix), ..options(100, 10) };
            let batches = run(sizes, mixing);
            assert_eq!(batches.len(), 20, "mix {mix}, {} chunks", sizes.len());
            assert_eq!(sorted(&batches), (0..200).collect::<Vec<_>>());
        }
    }
}

#[test]
fn saelens_vector_mix_07_serves_70_percent_old_rows() {
    // Each time the ring is full, 3 batches leave and 3,000 rows come: the other 7,000 are old.
    let mixing = ShuffleOptions { mix_fraction: Some(0.7), ..options(10_000, 1_000) };
    let mut stream = Shuffled::new(Counting::new(vec![1_000; 1_000]), mixing).unwrap();
    let (mut share, mut batches) = (0.0, 0);
    while let Some(batch) = stream.next() {
        let ids = check(&batch.unwrap());
        let seen = stream.source().next;
        // From the second filling on, and before the tail.
        if (13_000..1_000_000).contains(&seen) {
            share += ids.iter().filter(|id| **id < seen - 3_000).count() as f64 / ids.len() as f64;
            batches += 1;
        }
    }
    let mean = share / f64::from(batches);
    assert!((mean - 0.7).abs() < 0.03, "{mean} over {batches} batches");
}

#[test]
fn a_ring_smaller_than_a_batch_is_an_error() {
    let mut small = Shuffled::new(Counting::new([8]), options(3, 4)).unwrap();
    let message = small.next().unwrap().unwrap_err().to_string();
    assert!(small.next().is_none());
    assert!(message.contains("3 rows") && message.contains("train_batch_size_tokens = 4"), "{message}");
    for mix in [-0.1, 1.1, f64::NAN] {
        let bad = ShuffleOptions { mix_fraction: Some(mix), ..options(8, 4) };
        assert!(matches!(Shuffled::new(Counting::new([8]), bad), Err(Error::Option { option: "mix_fraction", .. })));
    }
    assert!(Shuffled::new(Counting::new([8]), options(4, 0)).is_err());
    let everything_stays = ShuffleOptions { mix_fraction: Some(1.0), ..options(8, 4) };
    assert_eq!(sorted(&run(&[8, 9, 3], everything_stays)), (0..20).collect::<Vec<_>>());
}

#[test]
fn the_tail_is_drained_or_counted() {
    let batches = run(&[5, 5, 5], options(6, 4));
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 3]);
    let mut dropping =
        Shuffled::new(Counting::new([5, 5, 5]), ShuffleOptions { drop_last: true, ..options(6, 4) }).unwrap();
    assert_eq!(dropping.by_ref().count(), 3);
    assert_eq!(dropping.dropped(), 3);
    assert!(dropping.next().is_none());
    assert!(run(&[], options(6, 4)).is_empty());
    assert!(run(&[0, 0], options(6, 4)).is_empty());
}

#[test]
fn each_resident_row_is_equally_likely() {
    // 4 of 16 rows, 4,000 seeds: each row is expected 1,000 times among the drawn, 250 times as the first.
    const SEEDS: u64 = 4_000;
    let (mut drawn, mut first) = ([0f64; 16], [0f64; 16]);
    for seed in 0..SEEDS {
        let stream =
            Shuffled::new(Counting::new([16]), ShuffleOptions { shuffle: Shuffle::Seeded(seed), ..options(16, 4) });
        let batch = check(&stream.unwrap().next().unwrap().unwrap());
        first[batch[0] as usize] += 1.0;
        batch.iter().for_each(|id| drawn[*id as usize] += 1.0);
    }
    let chi2 =
        |counts: [f64; 16], expected: f64| -> f64 { counts.iter().map(|n| (n - expected).powi(2) / expected).sum() };
    // 15 degrees of freedom: above 37.7 with probability 0.001.
    assert!(chi2(first, SEEDS as f64 / 16.0) < 37.7, "{first:?}");
    assert!(chi2(drawn, SEEDS as f64 / 4.0) < 37.7, "{drawn:?}");
}

#[test]
fn rows_of_different_times_share_a_batch() {
    // Ring of 64, batches of 4: a batch from a full ring reaches over more than its own 4 rows.
    let batches = run(&[8; 32], options(64, 4));
    let spread = |batch: &Vec<u64>| batch.iter().max().unwrap() - batch.iter().min().unwrap();
    let mean = batches.iter().map(spread).sum::<u64>() as f64 / batches.len() as f64;
    assert!(mean > 32.0, "{mean}");
}

#[test]
fn rows_of_the_wrong_shape_are_refused() {
    let mut ring = Ring::new(&[1, 3], 4, Shuffle::Unshuffled).unwrap();
    let message = ring.push(&chunk(0..2), 0).unwrap_err().to_string();
    assert!(message.contains("[[2, 1], [2, 2]]") && message.contains("[[2, 1], [2, 3]]"), "{message}");
    assert!(Ring::new(&[1], 0, Shuffle::Unshuffled).is_err());
    assert!(Ring::new(&[], usize::MAX, Shuffle::Unshuffled).is_err());
}

#[test]
fn after_an_error_there_is_nothing() {
    struct Failing(Counting);
    impl Iterator for Failing {
        type Item = Result<ActivationBatch>;
        fn next(&mut self) -> Option<Self::Item> {
            Some(self.0.next().unwrap_or(Err(Error::NoDocuments)))
        }
    }
    impl ActivationSource for Failing {
        fn spec(&self) -> &ActivationSpec {
            self.0.spec()
        }
    }
    let mut stream = Shuffled::new(Failing(Counting::new([6])), options(4, 4)).unwrap();
    assert!(stream.next().unwrap().is_ok());
    assert!(stream.next().unwrap().is_err());
    assert!(stream.next().is_none());
}

fn settings() -> impl Strategy<Value = ShuffleOptions> {
    let mix = prop_oneof![Just(None), Just(Some(0.0)), (0.0..=1.0).prop_map(Some)];
    (1usize..40, 0usize..60, any::<u64>(), any::<bool>(), mix).prop_map(
        |(batch_rows, more, seed, shuffled, mix_fraction)| {
            let shuffle = if shuffled { Shuffle::Seeded(seed) } else { Shuffle::Unshuffled };
            ShuffleOptions { shuffle, mix_fraction, ..options(batch_rows + more, batch_rows) }
        },
    )
}

proptest! {
    #[test]
    fn every_row_is_delivered_exactly_once(
        sizes in prop::collection::vec(0usize..50, 0..12),
        settings in settings(),
    ) {
        let total: usize = sizes.iter().sum();
        let mut stream = Shuffled::new(Counting::new(sizes.clone()), settings).unwrap();
        let slots = stream.spec().ring_slots;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next() {
            batches.push(check(&batch.unwrap()));
            prop_assert_eq!(stream.ring().len() + stream.ring().room(), slots);
        }
        prop_assert_eq!(sorted(&batches), (0..total as u64).collect::<Vec<_>>());
        if let Some((last, full)) = batches.split_last() {
            prop_assert!(full.iter().all(|b| b.len() == settings.batch_rows));
            prop_assert!(!last.is_empty() && last.len() <= settings.batch_rows);
        }
        if settings.shuffle == Shuffle::Unshuffled {
            prop_assert_eq!(batches.concat(), (0..total as u64).collect::<Vec<_>>());
        }
        // Same seed, same batches.
        prop_assert_eq!(&batches, &run(&sizes, settings));
        let cut = run(&sizes, ShuffleOptions { drop_last: true, ..settings });
        prop_assert_eq!(cut.concat().len(), total / settings.batch_rows * settings.batch_rows);
        prop_assert_eq!(&batches[..cut.len()], &cut[..]);
    }

    /// Without SAELens' schedule, how the rows were chunked (`store_batch_size_prompts`) does not show at all.
    #[test]
    fn chunks_do_not_show(total in 0usize..300, a in 1usize..40, b in 1usize..40, settings in settings()) {
        let chunks = |size: usize| -> Vec<usize> {
            (0..total).step_by(size).map(|at| size.min(total - at)).collect()
        };
        let settings = ShuffleOptions { mix_fraction: None, ..settings };
        prop_assert_eq!(run(&chunks(a), settings), run(&chunks(b), settings));
    }

    #[test]
    fn another_seed_is_another_order(seed in any::<u64>()) {
        let with = |seed| run(&[64; 4], ShuffleOptions { shuffle: Shuffle::Seeded(seed), ..options(128, 32) });
        prop_assert_ne!(with(seed), with(seed.wrapping_add(1)));
    }
}
