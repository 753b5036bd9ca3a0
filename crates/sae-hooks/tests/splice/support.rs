//! Small models, small SAEs, and how errors are counted.

use candle_core::{Device, Tensor};
use model_hooks::{
    Arithmetic, Capture, Engine, HookPoint, HookedModel, LanguageModel, LoadOptions, Precision, Processing, TokenBatch,
    load,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_core::{Codes, Coupling, Sae, SaeParts, SparseCoder, SparseFeatures};
use sae_hooks::Result;
use std::path::PathBuf;

pub fn at(name: &str) -> HookPoint {
    name.parse().unwrap()
}

pub fn model_on(name: &str, engine: Engine) -> LanguageModel {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model-hooks/tests/golden").join(name);
    load(&folder, &LoadOptions::new(Processing::TransformerLens).engine(engine)).unwrap()
}

/// The reference, and the kernels in every arithmetic that this machine has.
pub fn engines() -> impl Iterator<Item = Engine> {
    std::iter::once(Engine::Reference).chain(Arithmetic::available().map(Engine::Kernels))
}

/// The bound on differences of logits in parts of their rms: 1e-4, and more where products round more. (In bf16 a last bit of the input
/// that differs is a difference of 1/256 after the next rounding: Gemma 2 has 2.6e-2.)
pub fn tolerance(engine: Engine) -> f64 {
    match engine {
        Engine::Kernels(arithmetic) if arithmetic.kernel_name() == "amx bf16x3" => 1e-3,
        Engine::Kernels(arithmetic) if arithmetic.precision() == Precision::Bf16 => 0.1,
        _ => 1e-4,
    }
}

/// Two small models on every engine.
pub fn each(check: impl Fn(&str, &dyn HookedModel, &TokenBatch, f64)) {
    each_of(&["gpt2", "llama"], check);
}

/// A small model of each family.
pub const FAMILIES: [&str; 8] = ["gpt2", "llama", "neox_parallel", "neox_serial", "gemma2", "gemma3", "olmo2", "qwen3"];

/// These models on every engine.
pub fn each_of(names: &[&str], check: impl Fn(&str, &dyn HookedModel, &TokenBatch, f64)) {
    for engine in engines() {
        for name in names {
            let model = model_on(name, engine);
            check(&format!("{name}, {engine}"), model.hooked(), &tokens(model.hooked()), tolerance(engine));
        }
    }
}

/// Two rows of tokens; token 3 stands at the start of both and once more inside the second.
pub fn tokens(model: &dyn HookedModel) -> TokenBatch {
    let vocab = model.shape().d_vocab as u32;
    let row = |step: u32| (0..10).map(|i| (3 + i * step) % vocab).collect::<Vec<u32>>();
    let (first, mut second) = (row(7), row(11));
    second[6] = 3;
    TokenBatch::new(&[first, second]).unwrap()
}

pub fn normal(rng: &mut ChaCha8Rng, scale: f32, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    // The sum of twelve uniform numbers: close enough to normal for weights.
    let values = (0..count).map(|_| scale * ((0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A ReLU SAE with random weights, far from reconstructing anything, on the engine that the model uses.
pub fn sae(engine: Engine, seed: u64, d_in: usize, d_sae: usize) -> Sae {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let scale = 1.0 / (d_in as f32).sqrt();
    let vector = |x: Tensor| x.to_vec1::<f32>().unwrap();
    let (w_enc, w_dec) = (normal(rng, scale, &[d_in, d_sae]), normal(rng, scale, &[d_sae, d_in]));
    let (b_enc, b_dec) = (vector(normal(rng, 0.1, &[d_sae])), vector(normal(rng, 0.1, &[d_in])));
    Sae::on(engine, SaeParts { input_shift: Some(b_dec.clone()), ..SaeParts::new(w_enc, b_enc, w_dec, b_dec) }).unwrap()
}

/// A dictionary of one's own: `f = max(x W_enc, 0)`, `y = f W_dec`, with any widths.
pub struct Plain {
    pub w_enc: Tensor,
    pub w_dec: Tensor,
}

impl Plain {
    pub fn new(seed: u64, d_in: usize, d_sae: usize, d_out: usize) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        Self { w_enc: normal(rng, 0.2, &[d_in, d_sae]), w_dec: normal(rng, 0.2, &[d_sae, d_out]) }
    }

    /// What it computes, on `[batch, pos, d_in]`.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.broadcast_matmul(&self.w_enc).unwrap().relu().unwrap().broadcast_matmul(&self.w_dec).unwrap()
    }
}

impl SparseCoder for Plain {
    fn d_in(&self) -> usize {
        self.w_enc.dims()[0]
    }
    fn d_out(&self) -> usize {
        self.w_dec.dims()[1]
    }
    fn d_sae(&self) -> usize {
        self.w_dec.dims()[0]
    }
    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }
    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        // Rows alone: a coder need not keep the leading axes.
        let dense = x.reshape(((), self.d_in()))?.matmul(&self.w_enc)?.relu()?;
        Ok(Codes::from_features(SparseFeatures::from_dense(&dense)?))
    }
    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        Ok(codes.to_dense()?.matmul(&self.w_dec)?)
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        Ok(self.w_dec.index_select(&Tensor::new(features, &Device::Cpu)?, 0)?)
    }
}

/// The dictionary whose features are the values themselves, of either sign: it loses nothing.
pub struct Identity(pub usize);

impl SparseCoder for Identity {
    fn d_in(&self) -> usize {
        self.0
    }
    fn d_sae(&self) -> usize {
        self.0
    }
    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }
    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        Ok(Codes::from_features(SparseFeatures::from_dense(&x.reshape(((), self.0))?)?))
    }
    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        codes.to_dense()
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        Ok(Tensor::eye(self.0, candle_core::DType::F32, &Device::Cpu)?
            .index_select(&Tensor::new(features, &Device::Cpu)?, 0)?)
    }
}

/// The plain model's value at a hook point.
pub fn value(model: &dyn HookedModel, tokens: &TokenBatch, hook: HookPoint) -> Tensor {
    let mut capture = Capture::new([hook]);
    model.forward_until(tokens, hook, &mut capture).unwrap();
    capture.take(hook).unwrap()
}

pub fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// `max |a - b| / rms(b)`.
pub fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    let worst = a
        .iter()
        .zip(&b)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |worst, x| if x <= worst { worst } else { x });
    worst / (b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>() / b.len() as f64).sqrt()
}

/// `rms(a - b) / rms(b)`.
pub fn rms_error(a: &Tensor, b: &Tensor) -> f64 {
    let square = |x: Tensor| flat(&x).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    (square((a - b).unwrap()) / square(b.clone())).sqrt()
}

#[track_caller]
pub fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let found = error(a, b);
    assert!(found <= tolerance, "{what}: error {found:.2e} of the rms, at most {tolerance:.0e} allowed");
}

/// The opposite, so that a test cannot pass because nothing happened.
#[track_caller]
pub fn assert_apart(what: &str, a: &Tensor, b: &Tensor) {
    let found = error(a, b);
    assert!(found > 0.01, "{what}: only {found:.2e} of the rms apart");
}

/// The message of what was refused.
#[track_caller]
pub fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}
