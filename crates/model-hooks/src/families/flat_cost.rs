//! Counted cost of one more token: it does not grow with the tokens before it.

use super::angles::COMPUTED;
use super::gpt2::Gpt2;
use super::llama::Llama;
use super::{Decoder, Family};
use crate::config::Config;
use crate::folder::HfFolder;
use crate::math::LOGITS_OF;
use crate::{Capture, Generate, HookPoint, KvCache, NoTap, Processing, Tap, TokenBatch};
use rayon::ThreadPoolBuilder;
use serde_json::Value;
use std::path::PathBuf;
use tensor_kernels::{Arithmetic, Engine, Precision, panels_packed};

const CONTEXT: usize = 8192;

/// A golden model, with rotary positions up to [`CONTEXT`].
fn open<F: Family>(name: &str, prefix: &str, arithmetic: Arithmetic) -> Decoder<F> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    if config["max_position_embeddings"].is_u64() {
        config["max_position_embeddings"] = CONTEXT.into();
    }
    let family = F::parse(&Config::of(&config)).unwrap();
    let files = HfFolder::open(&folder, &[prefix]).unwrap();
    Decoder::load(family, &files, Processing::None.into(), Engine::Kernels(arithmetic)).unwrap()
}

/// `[rows of the rotary table, tokens whose logits were computed, panels packed]` by what runs; on one thread, whose counts they are.
fn counted(run: impl FnOnce()) -> [usize; 3] {
    let now = || [COMPUTED.get(), LOGITS_OF.get(), panels_packed() as usize];
    let before = now();
    run();
    let after = now();
    std::array::from_fn(|i| after[i] - before[i])
}

fn on_one_thread(run: impl FnOnce() + Send) {
    ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
}

fn step(model: &impl Generate, cache: &mut KvCache, columns: usize, tap: &mut dyn Tap) {
    let first = cache.columns();
    let ids: Vec<u32> = (first..first + columns).map(|i| (i * 31 % 384) as u32).collect();
    let logits = model.next_logits(&TokenBatch::new(&[ids]).unwrap(), cache, tap).unwrap();
    assert_eq!(logits.dims(), [1, 1, 384]);
}

#[test]
fn a_token_costs_the_same_after_eight_thousand_others() {
    // Each precision on the machine's best back end: eight thousand tokens take the portable one seconds.
    for arithmetic in [Precision::F32, Precision::F32Fast, Precision::Bf16].map(Arithmetic::new) {
        on_one_thread(|| {
            let model = open::<Llama>("llama", "model.", arithmetic);
            let mut cache = model.new_cache();
            let (mut rows, mut costs) = (0, Vec::new());
            for reach in [1, 2, 40, 500, 1000, 4000, CONTEXT] {
                while cache.columns() + 1 < reach {
                    let columns = (reach - 1 - cache.columns()).min(1024);
                    let [computed, logits, _] = counted(|| step(&model, &mut cache, columns, &mut NoTap));
                    assert_eq!(logits, 1, "of a prompt only the last token's logits are computed");
                    rows += computed;
                }
                let [computed, logits, packed] = counted(|| step(&model, &mut cache, 1, &mut NoTap));
                rows += computed;
                costs.push((logits, packed));
            }
            // What is packed is the new key and the new value of each head of keys, 16 wide, in each layer: no weight, nothing of the cache.
            assert!(costs.iter().all(|cost| *cost == (1, 3 * 2 * 2)), "{arithmetic:?}: {costs:?}");
            assert!(rows <= 2 * CONTEXT, "{rows} rows of the rotary table for {CONTEXT} positions");
        });
    }
}

/// The unembedding of GPT-2 is its embedding.
#[test]
fn a_tied_unembedding_is_packed_once() {
    for arithmetic in Arithmetic::available() {
        on_one_thread(|| {
            let model = open::<Gpt2>("gpt2", "transformer.", arithmetic);
            let resid =
                candle_core::Tensor::ones((1, 1, 64), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
            let [_, logits, packed] = counted(|| drop(crate::HookedModel::unembed(&model, &resid).unwrap()));
            assert_eq!((logits, packed), (1, 0), "{arithmetic:?}");
        });
    }
}

#[test]
fn a_tap_on_the_logits_sees_those_of_every_column() {
    for arithmetic in Arithmetic::available() {
        on_one_thread(|| {
            let model = open::<Gpt2>("gpt2", "transformer.", arithmetic);
            let mut points = crate::HookedModel::hook_points(&model).to_vec();
            points.retain(|point| matches!(point, HookPoint::FinalNorm(_) | HookPoint::Logits));
            assert_eq!(points.len(), 3);
            for point in points {
                let mut capture = Capture::new([point]);
                let mut cache = model.new_cache();
                let [_, logits, _] = counted(|| step(&model, &mut cache, 9, &mut capture));
                assert_eq!((logits, capture.get(point).unwrap().dim(1).unwrap()), (9, 9), "{point}");
            }
        });
    }
}
