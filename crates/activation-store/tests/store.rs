//! The store on the small golden GPT-2 (3 layers, d_model 64, 4 heads of 16, vocabulary 384, n_ctx 256, no tokenizer).

mod common;

use activation_store::{
    ActivationBatch, ActivationSource, ActivationStore, Content, DocId, Error, HookSelector, KeepRows,
    PretokenizedRows, Shuffle, StoreOptions, TokenFilter, TokenPos, memory_bytes,
};
use candle_core::{Device, Tensor};
use common::InMemory;
use model_hooks::{Capture, HookPoint, LanguageModel, TokenBatch};
use sae_core::{ExcludeSpecialTokens, Sae, SaeMetadata, SaeParts, SeparatorToken, SeqposSlice};
use std::sync::LazyLock;

static GPT2: LazyLock<LanguageModel> = LazyLock::new(|| common::model("crates/model-hooks/tests/golden/gpt2"));

const RESID: &str = "blocks.1.hook_resid_pre";

fn hook(name: &str) -> HookPoint {
    name.parse().unwrap()
}

fn tokens(documents: Vec<Vec<u32>>) -> InMemory {
    InMemory::new(documents, Content::Tokens)
}

/// `count` rows of `len` tokens, none alike.
fn rows(count: usize, len: usize) -> Vec<Vec<u32>> {
    (0..count).map(|r| (0..len).map(|p| ((r * 31 + p * 7 + r * p) % 384) as u32).collect()).collect()
}

fn small() -> StoreOptions {
    StoreOptions {
        store_batch_size_prompts: 4,
        train_batch_size_tokens: 32,
        n_batches_in_buffer: 6,
        context_size: Some(16),
        ..Default::default()
    }
}

fn store(options: StoreOptions) -> ActivationStore {
    ActivationStore::new(&GPT2, [hook(RESID)], tokens(rows(10, 16)), options).unwrap()
}

fn all(store: &mut ActivationStore) -> Vec<ActivationBatch> {
    store.by_ref().collect::<Result<_, _>>().unwrap()
}

/// Addresses and rows of the first hook, one after another.
fn flat(batches: &[ActivationBatch]) -> Vec<(TokenPos, Vec<f32>)> {
    let rows = |b: &ActivationBatch| b.at.iter().copied().zip(b.rows[0].to_vec2().unwrap()).collect::<Vec<_>>();
    batches.iter().flat_map(rows).collect()
}

/// What a plain forward with a capture gives for row `row`, `[pos, ..]`.
fn direct(name: &str, row: usize) -> Tensor {
    let mut capture = Capture::new([hook(name)]);
    let tokens = TokenBatch::new(&[rows(10, 16)[row].clone()]).unwrap();
    GPT2.hooked().forward_until(&tokens, hook(name), &mut capture).unwrap();
    capture.get(hook(name)).unwrap().squeeze(0).unwrap()
}

fn assert_close(a: &[f32], b: &[f32]) {
    let rms = (b.iter().map(|x| x * x).sum::<f32>() / b.len() as f32).sqrt();
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && worst <= 1e-6 * rms, "{worst} of rms {rms}");
}

fn sae(d_in: usize, metadata: SaeMetadata) -> Sae {
    let w = Tensor::ones((d_in, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut parts = SaeParts::new(w.clone(), vec![0.0; 3], w.t().unwrap(), vec![0.0; d_in]);
    parts.metadata = metadata;
    Sae::new(parts).unwrap()
}

fn metadata() -> SaeMetadata {
    SaeMetadata {
        hook_name: Some(RESID.into()),
        context_size: Some(16),
        prepend_bos: Some(true),
        sequence_separator_token: Some(SeparatorToken::Named("bos".into())),
        ..Default::default()
    }
}

#[test]
fn the_two_halves_equal_a_plain_forward() {
    let mut store = store(small());
    let mut seen = 0;
    while let Some(batch) = store.get_batch_tokens().unwrap() {
        let x = store.activations(&batch).unwrap();
        assert_eq!(x.dims(), [batch.len(), 16, 64]);
        for (i, row) in batch.rows.iter().enumerate() {
            assert_eq!((row.row, &row.tokens), (seen, &rows(10, 16)[seen as usize]));
            let found: Vec<f32> = x.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_close(&found, &direct(RESID, seen as usize).flatten_all().unwrap().to_vec1().unwrap());
            seen += 1;
        }
    }
    // 4 + 4 + 2: the last, smaller batch is not lost.
    assert_eq!(seen, 10);
}

#[test]
fn every_row_comes_once_with_its_address_and_values() {
    let mut store = store(small());
    let batches = all(&mut store);
    assert_eq!(batches.iter().map(ActivationBatch::len).collect::<Vec<_>>(), [32; 5]);
    let mut found = flat(&batches);
    assert!(!found.is_sorted_by_key(|(at, _)| *at), "not shuffled");
    found.sort_by_key(|(at, _)| *at);
    let expected = (0..10).flat_map(|row| (0..16).map(move |pos| TokenPos { row, pos }));
    assert!(found.iter().map(|(at, _)| *at).eq(expected));
    for (at, row) in found {
        assert_close(&row, &direct(RESID, at.row as usize).get(at.pos as usize).unwrap().to_vec1().unwrap());
    }
    for (at, token) in batches.iter().flat_map(|b| b.at.iter().zip(&b.tokens)) {
        assert_eq!(*token, rows(10, 16)[at.row as usize][at.pos as usize]);
    }
    assert_eq!(store.report().rows, 160);
}

#[test]
fn seed_and_batch_size_decide_nothing_else() {
    let run = |options| flat(&all(&mut store(options)));
    let a = run(small());
    assert_eq!(a, run(small()));
    let other_batches = run(StoreOptions { store_batch_size_prompts: 3, ..small() });
    assert_ne!(a, run(StoreOptions { shuffle: Shuffle::Seeded(1), ..small() }));
    assert_eq!(a.len(), other_batches.len());
    for ((at, row), (other_at, other_row)) in a.iter().zip(&other_batches) {
        assert_eq!(at, other_at);
        assert_close(row, other_row);
    }
    let in_order = run(StoreOptions { shuffle: Shuffle::Unshuffled, ..small() });
    assert!(in_order.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(in_order.len(), 160);
    let mixed = run(StoreOptions { mix_fraction: Some(0.5), train_batch_size_tokens: 24, drop_last: true, ..small() });
    assert_eq!(mixed.len(), 160 / 24 * 24);
}

#[test]
fn heads_are_flattened_or_chosen() {
    let z = hook("blocks.1.attn.hook_z");
    let choices = [HookSelector { point: z, head: None }, HookSelector { point: z, head: Some(2) }, hook(RESID).into()];
    let options = StoreOptions { shuffle: Shuffle::Unshuffled, ..small() };
    let mut store = ActivationStore::new(&GPT2, choices, tokens(rows(2, 16)), options).unwrap();
    assert_eq!(store.spec().hooks.iter().map(|h| h.width()).collect::<Vec<_>>(), [64, 16, 64]);
    assert_eq!(store.spec().hooks[1].to_string(), "blocks.1.attn.hook_z[2]");
    let batch = store.next_batch().unwrap().unwrap();
    let direct = direct("blocks.1.attn.hook_z", 1); // [pos, head, d_head]
    let rows_of = |i: usize| batch.rows[i].narrow(0, 16, 16).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_close(&rows_of(0), &direct.flatten_all().unwrap().to_vec1().unwrap());
    let head: Vec<f32> = direct.narrow(1, 2, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_close(&rows_of(1), &head);
    assert_eq!(batch.rows[2].dims(), [32, 64]);
}

#[test]
fn positions_are_sliced() {
    let slice = |start, stop, step| Some(SeqposSlice { start, stop, step });
    let options =
        StoreOptions { seqpos_slice: slice(Some(1), Some(-1), Some(5)), train_batch_size_tokens: 8, ..small() };
    let mut store = store(options);
    assert_eq!(store.spec().positions, [1, 6, 11]);
    assert_eq!(store.spec().ring_slots, 6 * 3);
    let batch = store.get_batch_tokens().unwrap().unwrap();
    let x = store.activations(&batch).unwrap();
    assert_eq!(x.dims(), [4, 3, 64]);
    let found: Vec<f32> = x.get(2).unwrap().get(1).unwrap().to_vec1().unwrap();
    assert_close(&found, &direct(RESID, 2).get(6).unwrap().to_vec1().unwrap());
    let rest = flat(&all(&mut store));
    assert_eq!(rest.len(), 6 * 3); // the four rows above were taken from the same stream
    assert!(rest.iter().all(|(at, _)| [1, 6, 11].contains(&at.pos) && at.row >= 4));
}

#[test]
fn excluded_tokens_are_left_out_and_counted() {
    let ids = [7, 31, 38];
    let occurring = rows(10, 16).concat().iter().filter(|t| ids.contains(t)).count();
    assert!(occurring > 0);
    let mut store =
        store(StoreOptions { filter: Some(TokenFilter::everything().with_ids(ids.iter().copied())), ..small() });
    let batches = all(&mut store);
    assert!(batches.iter().all(|b| b.tokens.iter().all(|t| !ids.contains(t))));
    let report = store.report();
    assert_eq!((report.excluded.ids, report.rows), (occurring as u64, (160 - occurring) as u64));
    assert_eq!(flat(&batches).len(), 160 - occurring);
}

#[test]
fn in_order_every_token_is_delivered_whatever_the_training_excluded() {
    let options = || StoreOptions { filter: Some(TokenFilter::everything().with_ids([7, 31, 38])), ..small() };
    let mut harvest = store(options()).in_order();
    assert_eq!(harvest.spec().filter, TokenFilter::everything());
    assert_eq!(harvest.by_ref().map(|batch| batch.unwrap().len()).sum::<usize>(), 160);
    assert_eq!((harvest.report().rows, harvest.report().excluded.total()), (160, 0));
    let mut passed = store(options()).in_order();
    assert!(passed.skip_batches(99).unwrap() > 0);
    assert_eq!(passed.report(), harvest.report());
    // The norm of the activation decides too.
    let norms = StoreOptions { filter: Some(TokenFilter::everything().with_max_norm(0.0)), ..small() };
    let mut nothing = store(norms);
    assert!(nothing.next_batch().unwrap().is_none());
    assert_eq!((nothing.report().rows, nothing.report().excluded.norm), (0, 160));
}

#[test]
fn addresses_resolve_while_rows_are_kept() {
    let mut store = store(StoreOptions { keep_rows: KeepRows::All, ..small() });
    for batch in all(&mut store) {
        for (at, token) in batch.at.iter().zip(&batch.tokens) {
            let found = store.index().locate(*at).unwrap();
            let origin = found.origin.unwrap();
            assert_eq!(found.token, *token);
            assert_eq!((origin.doc, origin.span.start), (DocId { file: 0, ordinal: at.row }, u64::from(at.pos)));
        }
    }
    assert!(store.index().locate(TokenPos { row: 10, pos: 0 }).is_none());
    assert!(store.index().locate(TokenPos { row: 0, pos: 16 }).is_none());
    let mut latest = self::store(StoreOptions { keep_rows: KeepRows::Latest(3), ..small() });
    all(&mut latest);
    assert_eq!(latest.index().iter().map(|row| row.row).collect::<Vec<_>>(), [7, 8, 9]);
    let mut in_use = self::store(StoreOptions { keep_rows: KeepRows::InUse, n_batches_in_buffer: 2, ..small() });
    let mut most = 0;
    while let Some(batch) = in_use.next_batch().unwrap() {
        assert!(batch.at.iter().all(|at| in_use.index().locate(*at).unwrap().row.row == at.row));
        most = most.max(in_use.index().len());
    }
    assert!((4..10).contains(&most), "{most} of 10 rows held");
    let mut none = self::store(small());
    all(&mut none);
    assert!(none.index().is_empty());
}

#[test]
fn documents_of_tokens_can_be_packed() {
    let documents = tokens(vec![vec![5; 20], vec![9; 20]]);
    let options = StoreOptions {
        token_documents: PretokenizedRows::Pack,
        sequence_separator_token: Some(SeparatorToken::Id(1)),
        ..small()
    };
    let mut store = ActivationStore::new(&GPT2, [hook(RESID)], documents, options).unwrap();
    let batch = store.get_batch_tokens().unwrap().unwrap();
    assert_eq!(batch.rows[1].tokens, [&[5; 4][..], &[1], &[9; 11]].concat());
    assert_eq!(store.report().packing.dropped_tokens, 9);
}

#[test]
fn from_sae_reads_the_metadata() {
    let with = SaeMetadata {
        exclude_special_tokens: Some(ExcludeSpecialTokens::Ids(vec![7])),
        seqpos_slice: Some(SeqposSlice { start: Some(2), stop: None, step: None }),
        ..metadata()
    };
    let documents = || tokens(rows(10, 16));
    let options = StoreOptions { context_size: None, ..small() };
    let store = ActivationStore::from_sae(&GPT2, &sae(64, with.clone()), documents(), options.clone()).unwrap();
    let spec = store.spec();
    assert_eq!((spec.hooks[0].point(), spec.context_size, spec.positions.len()), (hook(RESID), 16, 14));
    assert_eq!(spec.filter, TokenFilter::everything().with_ids([7]));
    let head = SaeMetadata { hook_name: Some("blocks.2.attn.hook_z".into()), hook_head_index: Some(1), ..with.clone() };
    let store = ActivationStore::from_sae(&GPT2, &sae(16, head), documents(), options.clone()).unwrap();
    assert_eq!((store.spec().hooks[0].head(), store.spec().hooks[0].width()), (Some(1), 16));
    let set = StoreOptions {
        filter: Some(TokenFilter::everything()),
        hook_name: Some("blocks.0.hook_mlp_out".into()),
        seqpos_slice: Some(SeqposSlice::default()),
        ..options
    };
    let store = ActivationStore::from_sae(&GPT2, &sae(64, with), documents(), set).unwrap();
    assert!(store.spec().filter == TokenFilter::everything() && store.spec().positions.len() == 16);
    assert_eq!(store.spec().hooks[0].point(), hook("blocks.0.hook_mlp_out"));
}

#[test]
fn the_notebooks_defaults() {
    let defaults = StoreOptions { context_size: Some(128), ..Default::default() };
    let store = ActivationStore::new(&GPT2, [hook(RESID)], tokens(rows(1, 128)), defaults).unwrap();
    let spec = store.spec();
    // n_batches_in_buffer x context_size, not times the batch.
    assert_eq!((spec.ring_slots, spec.batch_rows, spec.store_batch_size_prompts), (32 * 128, 4096, 8));
    let row = 4 * 64 + 32;
    assert_eq!(memory_bytes(spec), (4096 + 3 * 1024 + 4096) * row);
}

/// The notebook's loop takes tokens and activations and no shuffled batch: it works for an SAE of any context size.
#[test]
fn a_ring_smaller_than_a_batch_matters_only_to_who_draws_from_it() {
    let mut store = store(StoreOptions { n_batches_in_buffer: 1, ..small() });
    let tokens = store.get_batch_tokens().unwrap().unwrap();
    assert_eq!(store.activations(&tokens).unwrap().dims()[1..], [16, 64]);
    let ring = store.next_batch().unwrap_err().to_string();
    assert!(ring.contains("16 rows") && ring.contains("32 rows"), "{ring}");
}

#[test]
fn what_cannot_work_is_refused_at_construction() {
    let documents = || tokens(rows(1, 16));
    let from_sae = |sae: &Sae, options| ActivationStore::from_sae(&GPT2, sae, documents(), options).err().unwrap();
    let new = |choice: HookSelector, options| {
        ActivationStore::new(&GPT2, [choice], documents(), options).err().unwrap().to_string()
    };
    let width = from_sae(&sae(32, metadata()), small()).to_string();
    assert!(width.contains("d_in is 32") && width.contains(RESID) && width.contains("64 wide"), "{width}");
    let absent = SaeMetadata { hook_name: Some("blocks.7.hook_resid_pre".into()), ..metadata() };
    let absent = from_sae(&sae(64, absent), small());
    assert!(matches!(absent, Error::MissingHook { n_layers: 3, .. }), "{absent}");
    assert!(absent.to_string().contains("blocks.7.hook_resid_pre"));
    let misspelled = SaeMetadata { hook_name: Some("blocks.1.hook_resid_prae".into()), ..metadata() };
    assert!(from_sae(&sae(64, misspelled), small()).to_string().contains(RESID));
    for (key, gap) in [
        ("context_size", SaeMetadata { context_size: None, ..metadata() }),
        ("prepend_bos", SaeMetadata { prepend_bos: None, ..metadata() }),
        ("hook_name", SaeMetadata { hook_name: None, ..metadata() }),
    ] {
        let error = from_sae(&sae(64, gap), StoreOptions { context_size: None, ..small() });
        assert!(matches!(error, Error::Metadata { key: k } if k == key), "{error}");
    }
    let long = new(hook(RESID).into(), StoreOptions { context_size: Some(257), ..small() });
    assert!(long.contains("257") && long.contains("n_ctx = 256"), "{long}");
    assert!(new(hook("blocks.1.attn.hook_pattern").into(), small()).contains("one vector for each position"));
    let head = HookSelector { point: hook("blocks.1.attn.hook_z"), head: Some(4) };
    assert!(new(head, small()).contains("4 heads"));
    let no_heads = HookSelector { point: hook(RESID), head: Some(0) };
    assert!(new(no_heads, small()).contains("no heads"));
    assert!(new(hook(RESID).into(), StoreOptions { store_batch_size_prompts: 0, ..small() }).contains("prompts is 0"));
    let special = StoreOptions { filter: Some(TokenFilter::structural()), ..small() };
    assert!(new(hook(RESID).into(), special).contains("tokenizer"));
    let none: [HookSelector; 0] = [];
    assert!(ActivationStore::new(&GPT2, none, documents(), small()).is_err());
}

#[test]
fn documents_shorter_than_the_context_are_an_error() {
    let mut store = ActivationStore::new(&GPT2, [hook(RESID)], tokens(vec![vec![1; 15]]), small()).unwrap();
    let message = store.next_batch().unwrap_err().to_string();
    assert!(message.contains("15 tokens") && message.contains("16"), "{message}");
    assert!(store.next_batch().unwrap().is_none());
    let nothing = tokens(vec![vec![]]);
    let mut no_tokens = ActivationStore::new(&GPT2, [hook(RESID)], nothing, small()).unwrap();
    assert!(no_tokens.next_batch().unwrap_err().to_string().contains("0 tokens"));
    let mut empty = ActivationStore::new(&GPT2, [hook(RESID)], tokens(vec![]), small()).unwrap();
    assert!(empty.next_batch().unwrap().is_none() && empty.get_batch_tokens().unwrap().is_none());
}
