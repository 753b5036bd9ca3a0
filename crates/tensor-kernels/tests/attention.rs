//! Attention on every arithmetic of this machine, against f64 and against itself in stages.

mod common;

use common::{bits, normal, on_pools};
use tensor_kernels::{
    Arithmetic, AttentionOptions, AttentionShape, AttentionTaps, Error, KeyValuePanels, attention, attention_mix,
    attention_scores, panels_packed, softmax_rows,
};

struct Case {
    shape: AttentionShape,
    softcap: Option<f32>,
    window: Option<usize>,
    kept: Option<Vec<bool>>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(shape: AttentionShape, seed: u64) -> Self {
        let AttentionShape { batch, queries, keys, room, n_heads, n_kv_heads, d_head } = shape;
        let q = normal(batch * queries * n_heads * d_head, seed, 2.0);
        let row = n_kv_heads * d_head;
        let [mut k, mut v] = [seed + 1, seed + 2].map(|seed| normal(batch * room * row, seed, 1.0));
        for x in k.chunks_exact_mut((room * row).max(1)).chain(v.chunks_exact_mut((room * row).max(1))) {
            x[keys * row..].fill(f32::NAN); // room that is not read
        }
        Self { shape, softcap: None, window: None, kept: None, q, k, v }
    }

    fn options(&self) -> AttentionOptions<'_> {
        let mut options = AttentionOptions::new((self.shape.d_head as f32).sqrt());
        (options.softcap, options.window, options.kept_keys) = (self.softcap, self.window, self.kept.as_deref());
        options
    }

    fn scores_len(&self) -> usize {
        self.shape.batch * self.shape.n_heads * self.shape.queries * self.shape.keys
    }

    /// Scores, pattern and `z`, all tapped.
    fn run(&self, arithmetic: Arithmetic) -> [Vec<f32>; 3] {
        let [mut scores, mut pattern] = [(); 2].map(|()| vec![f32::NAN; self.scores_len()]);
        let mut z = vec![f32::NAN; self.q.len()];
        let taps = AttentionTaps { scores: Some(&mut scores), pattern: Some(&mut pattern) };
        let (q, k, v) = (&self.q, &self.k, &self.v);
        attention(arithmetic, &self.shape, &self.options(), q, k, v, taps, &mut z).unwrap();
        [scores, pattern, z]
    }

    fn sees(&self, batch: usize, query: usize, key: usize) -> bool {
        let at = self.shape.keys - self.shape.queries + query;
        let kept = self.kept.as_ref().is_none_or(|kept| kept[batch * self.shape.keys + key]);
        key <= at && self.window.is_none_or(|window| key + window > at) && kept
    }

    /// Holds the three against f64, each computed from what the one before gave.
    fn check(&self, arithmetic: Arithmetic, [scores, pattern, z]: &[Vec<f32>; 3]) {
        let AttentionShape { batch, queries, keys, room, n_heads, n_kv_heads, d_head } = self.shape;
        let group = n_heads / n_kv_heads;
        let divisor = f64::from((d_head as f32).sqrt());
        for b in 0..batch {
            for h in 0..n_heads {
                for i in 0..queries {
                    let row = ((b * n_heads + h) * queries + i) * keys;
                    let q = &self.q[((b * queries + i) * n_heads + h) * d_head..][..d_head];
                    let at = |j: usize| ((b * room + j) * n_kv_heads + h / group) * d_head;
                    for j in 0..keys {
                        let score = scores[row + j];
                        if !self.sees(b, i, j) {
                            assert!(score == f32::NEG_INFINITY && pattern[row + j] == 0.0);
                            continue;
                        }
                        let terms = q.iter().zip(&self.k[at(j)..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                        let right = sum / divisor;
                        let right = self.softcap.map_or(right, |c| f64::from(c) * (right / f64::from(c)).tanh());
                        let bound = arithmetic.precision().bound(d_head) * size / divisor + 1e-6 * right.abs() + 1e-12;
                        assert!((f64::from(score) - right).abs() <= bound, "{arithmetic:?} {score} {right}");
                    }
                    let total: f64 = scores[row..row + keys].iter().map(|s| f64::from(*s).exp()).sum();
                    for j in 0..keys {
                        let right = if total > 0.0 { f64::from(scores[row + j]).exp() / total } else { 0.0 };
                        assert!((f64::from(pattern[row + j]) - right).abs() <= 2e-6, "{arithmetic:?}");
                    }
                    for d in 0..d_head {
                        let terms = (0..keys).map(|j| f64::from(pattern[row + j]) * f64::from(self.v[at(j) + d]));
                        let (right, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                        let bound = arithmetic.precision().bound(keys) * size + 1e-12;
                        let z = f64::from(z[((b * queries + i) * n_heads + h) * d_head + d]);
                        assert!((z - right).abs() <= bound, "{arithmetic:?} {z} {right}");
                    }
                }
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let shape = |batch, queries, keys, n_heads, n_kv_heads, d_head| AttentionShape {
        batch,
        queries,
        keys,
        room: keys,
        n_heads,
        n_kv_heads,
        d_head,
    };
    let with_room = |room, shape| AttentionShape { room, ..shape };
    let mut cases: Vec<Case> = [
        shape(1, 1, 1, 1, 1, 1),
        shape(2, 3, 3, 2, 1, 7),
        shape(2, 128, 128, 2, 2, 64),
        shape(1, 131, 131, 6, 2, 17),
        shape(2, 5, 77, 3, 3, 33),
        shape(1, 1, 300, 2, 1, 64),
        shape(1, 40, 600, 2, 1, 8),
        with_room(64, shape(3, 1, 41, 4, 2, 20)),
        with_room(300, shape(2, 7, 70, 3, 3, 33)),
        // More heads that share their keys than are computed together.
        shape(1, 2, 130, 40, 1, 20),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, shape)| Case::new(shape, 10 * i as u64))
    .collect();
    let mut capped = Case::new(shape(1, 70, 70, 2, 1, 16), 100);
    capped.softcap = Some(2.5);
    cases.push(capped);
    for window in [1, 5, 31, 64, 290] {
        let mut windowed = Case::new(shape(1, 400, 600, 2, 2, 8), 200);
        windowed.window = Some(window);
        cases.push(windowed);
    }
    let mut padded = Case::new(shape(2, 90, 90, 2, 1, 16), 300);
    // The first sequence starts with padding (its first queries see nothing), the second has holes.
    padded.kept = Some((0..180).map(|i| if i < 90 { i >= 40 } else { i % 3 != 0 }).collect());
    padded.window = Some(50);
    cases.push(padded);
    cases
}

#[test]
fn attention_equals_the_f64_oracle_and_its_stages() {
    for arithmetic in Arithmetic::available() {
        for case in cases() {
            let tapped = case.run(arithmetic);
            case.check(arithmetic, &tapped);
            let mut z = vec![f32::NAN; case.q.len()];
            let (q, k, v, options) = (&case.q, &case.k, &case.v, case.options());
            attention(arithmetic, &case.shape, &options, q, k, v, AttentionTaps::default(), &mut z).unwrap();
            assert_eq!(bits(&z), bits(&tapped[2]), "{arithmetic:?} {:?}: watching", case.shape);
            let mut scores = vec![f32::NAN; case.scores_len()];
            attention_scores(arithmetic, &case.shape, &options, q, k, &mut scores).unwrap();
            assert_eq!(bits(&scores), bits(&tapped[0]), "{arithmetic:?} {:?}: scores", case.shape);
            softmax_rows(arithmetic.backend(), &mut scores, case.shape.keys).unwrap();
            assert_eq!(bits(&scores), bits(&tapped[1]), "{arithmetic:?} {:?}: softmax", case.shape);
            let mut z = vec![f32::NAN; case.q.len()];
            attention_mix(arithmetic, &case.shape, &scores, v, &mut z).unwrap();
            assert_eq!(bits(&z), bits(&tapped[2]), "{arithmetic:?} {:?}: mix", case.shape);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_threads_batch_or_the_number_of_queries() {
    for arithmetic in Arithmetic::available() {
        for case in cases() {
            let all = on_pools(|| case.run(arithmetic));
            assert!((0..3).all(|i| bits(&all[1][i]) == bits(&all[0][i]) && bits(&all[2][i]) == bits(&all[0][i])));
            // The last sequence, its last queries alone.
            let AttentionShape { batch, queries, keys, room, n_heads, n_kv_heads, d_head } = case.shape;
            for last in [1, queries.div_ceil(3)] {
                let shape = AttentionShape { batch: 1, queries: last, ..case.shape };
                let kv = (batch - 1) * room * n_kv_heads * d_head;
                let q = case.q[(batch * queries - last) * n_heads * d_head..].to_vec();
                let kept = case.kept.as_ref().map(|kept| kept[(batch - 1) * keys..].to_vec());
                let (k, v) = (case.k[kv..].to_vec(), case.v[kv..].to_vec());
                let alone = Case { shape, q, k, v, kept, softcap: case.softcap, window: case.window };
                let z = &alone.run(arithmetic)[2];
                assert_eq!(bits(z), bits(&all[0][2][case.q.len() - z.len()..]), "{arithmetic:?} {shape:?}");
            }
        }
    }
}

#[test]
fn what_is_not_seen_has_no_influence() {
    let shape = AttentionShape::new(1, 90, 2, 2, 16);
    for arithmetic in Arithmetic::available() {
        for window in [None, Some(20)] {
            let mut case = Case::new(shape, 5);
            case.window = window;
            let clean = case.run(arithmetic);
            // From key 50 on nothing is finite; queries before it do not notice, nor do those whose window is past key 52.
            for (j, bad) in [(50, f32::NAN), (51, f32::INFINITY), (52, f32::NEG_INFINITY)] {
                case.k[j * 32..(j + 1) * 32].fill(f32::NAN);
                case.v[j * 32..(j + 1) * 32].fill(bad);
            }
            let dirty = case.run(arithmetic);
            assert_eq!(bits(&dirty[2][..50 * 32]), bits(&clean[2][..50 * 32]), "{arithmetic:?}");
            if window.is_some() {
                assert_eq!(bits(&dirty[2][72 * 32..]), bits(&clean[2][72 * 32..]), "{arithmetic:?}");
            }
            // NaN scores make a row of the pattern zeros, and so of z.
            assert!(dirty[2][50 * 32..51 * 32].iter().all(|z| *z == 0.0), "{arithmetic:?}");
            // A finite score for a value that is not finite: it shows.
            case.k = Case::new(shape, 5).k;
            let shown = case.run(arithmetic);
            assert_eq!(bits(&shown[2][..50 * 32]), bits(&clean[2][..50 * 32]), "{arithmetic:?}");
            assert!(shown[2][50 * 32..51 * 32].iter().all(|z| z.is_nan()), "{arithmetic:?}");
            let mut z = vec![0.0; case.q.len()];
            attention_mix(arithmetic, &shape, &shown[1], &case.v, &mut z).unwrap();
            assert_eq!(bits(&z), bits(&shown[2]), "{arithmetic:?}");
        }
    }
}

#[test]
fn wrong_shapes_are_errors_and_nothing_is_fine() {
    let options = AttentionOptions::new(1.0);
    for arithmetic in Arithmetic::available() {
        for shape in [
            AttentionShape::new(0, 3, 2, 1, 4),
            AttentionShape::new(2, 0, 2, 1, 4),
            AttentionShape::new(2, 3, 2, 1, 0),
            AttentionShape::new(2, 3, 0, 1, 4),
            AttentionShape::new(2, 3, 0, 0, 4),
        ] {
            let case = Case::new(shape, 1);
            assert!(case.run(arithmetic)[2].is_empty());
        }
        let x = [0.0; 24];
        let run = |shape: AttentionShape, options: &AttentionOptions<'_>, q: &[f32], k: &[f32], v: &[f32]| {
            attention(arithmetic, &shape, options, q, k, v, AttentionTaps::default(), &mut [0.0; 24])
        };
        let shape = AttentionShape::new(1, 3, 2, 2, 4);
        run(shape, &options, &x, &x, &x).unwrap();
        for wrong in [[23, 24, 24], [24, 23, 24], [24, 24, 23]] {
            let [q, k, v] = wrong.map(|n| &x[..n]);
            assert!(matches!(run(shape, &options, q, k, v), Err(Error::Length { .. })));
        }
        let mut kept = options;
        kept.kept_keys = Some(&[true]);
        assert!(matches!(run(shape, &kept, &x, &x, &x), Err(Error::Length { .. })));
        let mut short = [0.0; 17];
        let taps = AttentionTaps { scores: Some(&mut short), pattern: None };
        let result = attention(arithmetic, &shape, &options, &x, &x, &x, taps, &mut [0.0; 24]);
        assert!(matches!(result, Err(Error::Length { expected: 18, found: 17, .. })));
        let mismatch = |shape| assert!(matches!(run(shape, &options, &x, &x, &x), Err(Error::Mismatch { .. })));
        mismatch(AttentionShape { queries: 4, ..shape });
        mismatch(AttentionShape { n_kv_heads: 4, ..shape });
        mismatch(AttentionShape { n_heads: 3, ..shape });
        mismatch(AttentionShape { keys: 4, ..shape });
        let huge = AttentionShape { keys: usize::MAX / 2, room: usize::MAX / 2, ..shape };
        assert!(matches!(run(huge, &options, &x, &x, &x), Err(Error::TooLarge { .. })));
    }
}

impl Case {
    /// Keys and values packed in pieces of so many, in turn; room grows on the way.
    fn panels(&self, arithmetic: Arithmetic, pieces: &[usize]) -> KeyValuePanels {
        let AttentionShape { batch, keys, room, n_kv_heads, d_head, .. } = self.shape;
        let width = n_kv_heads * d_head;
        let piece = |x: &[f32], first: usize, pos: usize| -> Vec<f32> {
            (0..batch).flat_map(|b| x[(b * room + first) * width..][..pos * width].to_vec()).collect()
        };
        let mut panels = KeyValuePanels::new(arithmetic, batch, pieces[0].min(keys), n_kv_heads, d_head).unwrap();
        let (mut done, mut pieces) = (0, pieces.iter().cycle());
        while done < keys {
            let pos = (*pieces.next().unwrap()).min(keys - done);
            if done + pos > panels.room() {
                panels = panels.with_room(done + pos, done).unwrap();
            }
            panels.append(done, pos, &piece(&self.k, done, pos), &piece(&self.v, done, pos)).unwrap();
            done += pos;
        }
        panels
    }
}

#[test]
fn packed_keys_and_values_have_the_bits_of_plain_ones() {
    for arithmetic in Arithmetic::available() {
        for (i, mut case) in cases().into_iter().enumerate() {
            // A value that is not finite, at a key that most queries weigh.
            let small = case.shape.queries * case.shape.keys < 17_000;
            for bad in [None, Some(f32::INFINITY), Some(f32::NAN)].into_iter().filter(|bad| small || bad.is_none()) {
                let (row, at) = (case.shape.n_kv_heads * case.shape.d_head, case.shape.keys / 2);
                if let Some(bad) = bad {
                    case.v[at * row..(at + 1) * row].fill(bad);
                    case.v[at * row / 2] = bad;
                }
                let plain = case.run(arithmetic);
                for pieces in [&[7, 1, 1, 40][..], &[1], &[1000]].into_iter().take(if bad.is_none() { 3 } else { 1 }) {
                    let panels = case.panels(arithmetic, pieces).clone();
                    let what = format!("{arithmetic:?}, case {i}, {bad:?}, {pieces:?}");
                    let (options, [mut z, mut alone]) =
                        (case.options(), [(); 2].map(|()| vec![f32::NAN; case.q.len()]));
                    let [mut scores, mut pattern] = [(); 2].map(|()| vec![f32::NAN; case.scores_len()]);
                    let taps = AttentionTaps { scores: Some(&mut scores), pattern: Some(&mut pattern) };
                    attention(arithmetic, &case.shape, &options, &case.q, &panels, &panels, taps, &mut z).unwrap();
                    let none = AttentionTaps::default();
                    attention(arithmetic, &case.shape, &options, &case.q, &panels, &panels, none, &mut alone).unwrap();
                    for (found, right) in [&scores, &pattern, &z, &alone].into_iter().zip([0, 1, 2, 2]) {
                        assert_eq!(bits(found), bits(&plain[right]), "{what}: {right}");
                    }
                    scores.fill(f32::NAN);
                    attention_scores(arithmetic, &case.shape, &options, &case.q, &panels, &mut scores).unwrap();
                    assert_eq!(bits(&scores), bits(&plain[0]), "{what}: scores");
                    attention_mix(arithmetic, &case.shape, &pattern, &panels, &mut z).unwrap();
                    assert_eq!(bits(&z), bits(&plain[2]), "{what}: mix");
                }
            }
        }
    }
}

/// A text that is cut back and goes on otherwise: nothing of what was there matters.
#[test]
fn packed_keys_and_values_are_replaced() {
    for arithmetic in Arithmetic::available() {
        for kept in [0, 1, 31, 33, 40] {
            let shape = AttentionShape { queries: 3, ..AttentionShape::new(2, 45, 2, 1, 20) };
            let (case, mut other) = (Case::new(shape, 1), Case::new(AttentionShape { keys: 60, room: 60, ..shape }, 2));
            let row = 20;
            for b in 0..2 {
                for (to, from) in [(&mut other.k, &case.k), (&mut other.v, &case.v)] {
                    to[b * 60 * row..][..kept * row].copy_from_slice(&from[b * 45 * row..][..kept * row]);
                }
                other.v[(b * 60 + kept) * row..(b + 1) * 60 * row].fill(f32::NAN);
            }
            let mut panels = other.panels(arithmetic, &[60]);
            let rest = |x: &[f32]| -> Vec<f32> {
                (0..2).flat_map(|b| x[(b * 45 + kept) * row..(b + 1) * 45 * row].to_vec()).collect()
            };
            panels.append(kept, 45 - kept, &rest(&case.k), &rest(&case.v)).unwrap();
            let mut z = vec![f32::NAN; case.q.len()];
            let none = AttentionTaps::default();
            attention(arithmetic, &case.shape, &case.options(), &case.q, &panels, &panels, none, &mut z).unwrap();
            assert_eq!(bits(&z), bits(&case.run(arithmetic)[2]), "{arithmetic:?}, {kept}");
        }
    }
}

#[test]
fn a_query_packs_nothing_of_packed_keys() {
    for arithmetic in Arithmetic::available() {
        let case = Case::new(AttentionShape { queries: 1, ..AttentionShape::new(1, 300, 4, 2, 33) }, 3);
        let panels = case.panels(arithmetic, &[300]);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let packed = one.install(|| {
            let (mut z, before) = (vec![0.0; case.q.len()], panels_packed());
            let none = AttentionTaps::default();
            attention(arithmetic, &case.shape, &case.options(), &case.q, &panels, &panels, none, &mut z).unwrap();
            panels_packed() - before
        });
        assert_eq!(packed, 0, "{arithmetic:?}");
    }
}

#[test]
fn panels_of_other_shapes_are_errors() {
    let shape = AttentionShape::new(1, 40, 2, 2, 8);
    let all: Vec<_> = Arithmetic::available().collect();
    let case = Case::new(shape, 4);
    let run = |arithmetic, panels: &KeyValuePanels| {
        let (mut z, none) = (vec![0.0; case.q.len()], AttentionTaps::default());
        attention(arithmetic, &shape, &case.options(), &case.q, panels, panels, none, &mut z)
    };
    let new = |batch, room, heads, d_head| KeyValuePanels::new(all[0], batch, room, heads, d_head).unwrap();
    run(all[0], &new(1, 40, 2, 8)).unwrap();
    for wrong in [new(2, 40, 2, 8), new(1, 32, 2, 8), new(1, 40, 1, 8), new(1, 40, 2, 4)] {
        assert!(matches!(run(all[0], &wrong), Err(Error::Mismatch { .. })), "{wrong:?}");
    }
    for other in &all[1..] {
        assert!(matches!(run(*other, &new(1, 40, 2, 8)), Err(Error::Mismatch { .. })));
    }
    let mut panels = new(1, 40, 2, 8);
    assert_eq!(panels.room(), 64);
    let x = vec![0.0; 16 * 65];
    assert!(matches!(panels.append(0, 65, &x, &x), Err(Error::Mismatch { .. })));
    assert!(matches!(panels.append(usize::MAX, 2, &x, &x), Err(Error::Mismatch { .. })));
    assert!(matches!(panels.append(0, 2, &x, &x[..32]), Err(Error::Length { .. })));
    assert!(matches!(panels.with_room(40, 65), Err(Error::Mismatch { .. })));
    assert!(matches!(KeyValuePanels::new(all[0], 1, usize::MAX, 2, 8), Err(Error::TooLarge { .. })));
}
