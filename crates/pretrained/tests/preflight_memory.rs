//! What a preflight holds and how much it computes, on a wide model of many hook points, with codes in which every feature fires.
//!
//! The allocator counts for the whole process, so there is one test.

use candle_core::{DType, Device, Tensor};
use model_hooks::{
    ForwardPass, HookPoint, HookedModel, LanguageModel, ModelShape, Processing, Site, Start, Tap, TokenBatch,
};
use pretrained::preflight::{PreflightOptions, PreflightReport, PreflightSae, preflight};
use sae_core::{Codes, Coupling, SaeMetadata, SparseCoder, SparseFeatures};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tensor_kernels::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const WIDTH: usize = 1024;
const LAYERS: u16 = 40;
const FEATURES: usize = 8192;

/// A model of five hook points in each layer, whose values are cheap and all different.
struct Wide {
    shape: ModelShape,
    points: Vec<HookPoint>,
    /// What was asked for, run by run.
    watched: Arc<Mutex<Vec<Vec<HookPoint>>>>,
}

impl HookedModel for Wide {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn hook_points(&self) -> &[HookPoint] {
        &self.points
    }

    fn run(
        &self,
        tokens: &TokenBatch,
        _: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> model_hooks::Result<Option<Tensor>> {
        let wanted = tap.points(&self.points)?.into_iter().map(|(point, _)| point).collect();
        self.watched.lock().unwrap().push(wanted);
        ForwardPass::plan(&self.points, tokens, None, last, tap)?.through(|at| {
            let shape = (tokens.batch(), tokens.pos(), WIDTH);
            for (number, point) in self.points.iter().enumerate() {
                let value = |i: usize| ((i * (number + 3)) % 17) as f32 - 8.0;
                let values: Vec<f32> = (0..tokens.batch() * tokens.pos() * WIDTH).map(value).collect();
                at.tap(*point, Tensor::from_vec(values, shape, &Device::Cpu)?)?;
            }
            Ok(Tensor::zeros((tokens.batch(), tokens.pos(), 2), DType::F32, &Device::Cpu)?)
        })
    }

    fn unembed(&self, resid: &Tensor) -> model_hooks::Result<Tensor> {
        Ok(resid.clone())
    }

    fn w_u_columns(&self, _: usize, _: usize) -> model_hooks::Result<Tensor> {
        Ok(Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?)
    }
}

/// A dictionary that is all wrong: every feature fires on every token.
struct Dense {
    about: SaeMetadata,
    tokens: AtomicUsize,
}

impl SparseCoder for Dense {
    fn d_in(&self) -> usize {
        WIDTH
    }

    fn d_sae(&self) -> usize {
        FEATURES
    }

    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }

    fn metadata(&self) -> Option<&SaeMetadata> {
        Some(&self.about)
    }

    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        let rows = x.elem_count() / WIDTH;
        self.tokens.fetch_add(rows, Ordering::Relaxed);
        let indptr = (0..=rows as u64).map(|row| row * FEATURES as u64).collect();
        let index = (0..rows).flat_map(|_| 0..FEATURES as u32).collect();
        let features = SparseFeatures::new(indptr, index, vec![1.0; rows * FEATURES], FEATURES as u32)?;
        Ok(Codes::from_features(features))
    }

    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        Ok(Tensor::zeros((codes.features.rows(), WIDTH), DType::F32, &Device::Cpu)?)
    }

    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        Ok(Tensor::zeros((features.len(), WIDTH), DType::F32, &Device::Cpu)?)
    }
}

/// The verdict, the most that was held at once, the tokens that were encoded, and the points of each run.
fn run(tokens: &TokenBatch, options: &PreflightOptions) -> (PreflightReport, u64, usize, Vec<Vec<HookPoint>>) {
    let sites = [Site::ResidPre, Site::AttnOut, Site::ResidMid, Site::MlpOut, Site::ResidPost];
    let mut points: Vec<HookPoint> =
        (0..LAYERS).flat_map(|layer| sites.map(|site| HookPoint::Block { layer, site })).collect();
    points.sort();
    let watched = Arc::new(Mutex::new(Vec::new()));
    let shape = ModelShape::new(WIDTH, usize::from(LAYERS), 64, 4096);
    let wide = Wide { shape, points, watched: Arc::clone(&watched) };
    let model = LanguageModel::new(Arc::new(wide), None, "wide", Processing::None.into());
    let about = SaeMetadata { hook_name: Some("blocks.20.hook_resid_pre".into()), ..SaeMetadata::default() };
    let coder = Dense { about, tokens: AtomicUsize::new(0) };
    let before = CountingAllocator::live_bytes();
    CountingAllocator::reset_peak();
    let verdict = preflight(&model, PreflightSae::of(&coder), tokens, options).unwrap();
    let held = CountingAllocator::peak_bytes() - before;
    let watched = std::mem::take(&mut *watched.lock().unwrap());
    (verdict, held, coder.tokens.into_inner(), watched)
}

#[test]
fn memory_and_work_are_bounded() {
    let rows = |count: usize, pos: usize| {
        let rows: Vec<Vec<u32>> = (0..count).map(|row| (0..pos).map(|p| ((row + p) % 64) as u32).collect()).collect();
        TokenBatch::new(&rows).unwrap()
    };
    let mut options = PreflightOptions::default();
    options.loss = false;
    options.memory_bytes = 64 << 20;
    // A forward pass over 1,024 tokens has a few tensors of 4 MiB.
    let forward = 32 << 20;
    let (verdict, held, encoded, watched) = run(&rows(32, 128), &options);
    assert!(verdict.is_fail(), "{verdict}");
    assert_eq!(verdict.measured.as_ref().unwrap().tokens, 16 * 127);
    // At 4811b49 128 points of 2,048 tokens at 1,024 wide were 1 GiB, and their codes once more as much.
    assert!(held < options.memory_bytes + forward, "{held} bytes held");
    // The sample, what is tried on few tokens, and what did best on some more.
    assert!(encoded <= 16 * 127 + (1 + 11 + 128) * 73 + 6 * 512, "{encoded} tokens encoded");
    let most = watched.iter().map(Vec::len).max().unwrap();
    assert_eq!(most, 128);

    // Little work: the nearest eight, four on each side of the SAE's own. (What did best is run once more.)
    options.remedy_work = 0;
    let (_, _, _, watched) = run(&rows(32, 128), &options);
    let tried = watched.into_iter().max_by_key(Vec::len).unwrap();
    let near =
        |layer, sites: &[Site]| sites.iter().map(move |&site| HookPoint::Block { layer, site }).collect::<Vec<_>>();
    let before = near(19, &[Site::AttnOut, Site::ResidMid, Site::MlpOut, Site::ResidPost]);
    let behind = near(20, &[Site::AttnOut, Site::ResidMid, Site::MlpOut, Site::ResidPost]);
    let sorted = |mut points: Vec<HookPoint>| {
        points.sort();
        points
    };
    assert_eq!(sorted(tried), sorted([before, behind].concat()));

    // A row longer than the sample is cut to it.
    let (verdict, held, _, _) = run(&rows(1, 4096), &options);
    assert_eq!(verdict.measured.unwrap().tokens, 2047);
    assert!(held < options.memory_bytes + 2 * forward, "{held} bytes held for a long row");

    // Less memory, fewer tokens: 2 x 4 bytes of 1,024 numbers each fit 256 times into half of it.
    options.memory_bytes = 4 << 20;
    let (verdict, held, _, _) = run(&rows(32, 128), &options);
    assert_eq!(verdict.measured.unwrap().tokens, 2 * 127);
    // Codes of all its tokens would be 16 MiB, and the tensors of a forward pass over them are 1 MiB each.
    assert!(held < options.memory_bytes + (8 << 20), "{held} bytes held of a small memory");
}
