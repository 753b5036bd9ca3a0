//! A decoder of any family as a [`HookedModel`]: loading, checks before a run, the loop over blocks, unembedding.

use crate::config::Config;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::generate::last_column;
use crate::math::{Kernels, Math, Reference};
use crate::ops::{Norm, NormKind};
use crate::weights::{BlockWeights, EmbedWeights, Hold, Raw, RawEmbed, TensorSource, Weights};
use crate::{
    BlockPart, Error, FinalNorm, Generate, HookPoint, HookedModel, Interest, KvCache, ModelShape, NormSite,
    OutputWeights, PostNorm, ProcessingSteps, Result, Site, Start, Tap, TokenBatch,
};
use candle_core::Tensor;
use tensor_kernels::{Engine, Operand};

/// A family of decoders: its dimensions, the names of its weights, and its equations.
pub(crate) trait Family: Sized + Send + Sync + 'static {
    /// Reads a configuration in Hugging Face's words, whose `model_type` is one of the family's.
    fn parse(config: &Config) -> Result<Self>;

    /// Whether a tensor of a checkpoint carries nothing: a buffer, or what another tensor repeats.
    fn spares(&self, tensor: &str) -> bool;

    /// The dimensions.
    fn shape(&self) -> &ModelShape;

    /// The norm before the unembedding (and the one that weight processing folds).
    fn norm(&self) -> Norm;

    /// Whether `fold_ln` applies. TransformerLens leaves it out where norms stand behind what they normalize, and leaves the final norm
    /// unfolded with them.
    fn folds_norms(&self) -> bool {
        true
    }

    /// `c` in `c tanh(logit / c)`, where logits are capped.
    fn logit_softcap(&self) -> Option<f64> {
        None
    }

    /// Whether positions are embedded: [`HookPoint::PosEmbed`].
    fn has_positions(&self) -> bool;

    /// Whether batches of these two numbers of columns are turned by the same rotary angles, so that keys of the one can stand in a cache
    /// before columns that make it the other.
    fn turns_alike(&self, columns: [usize; 2]) -> bool;

    /// Whether each block has this site.
    fn has(&self, site: Site) -> bool;

    /// Reads what is not in a block.
    fn read_ends(&self, files: &dyn TensorSource) -> Result<RawEmbed>;

    /// Reads a block.
    fn read_block(&self, files: &dyn TensorSource, layer: usize) -> Result<BlockWeights<Raw>>;

    /// From tokens to the residual stream that enters the first block.
    fn embed<M: Math>(
        &self,
        m: &M,
        at: &mut ForwardPass<'_>,
        w: &EmbedWeights<M>,
        tokens: &TokenBatch,
    ) -> PassResult<M::Value>;

    /// A block: from `resid_pre` to `resid_post`.
    fn block<M: Math>(
        &self,
        m: &M,
        at: &mut BlockPass<'_, '_>,
        w: &BlockWeights<M>,
        layer: usize,
        resid: M::Value,
    ) -> PassResult<M::Value>;
}

/// A model of a family, its weights held by its engine.
#[derive(Debug)]
pub(crate) struct Decoder<F> {
    family: F,
    points: Vec<HookPoint>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Reference(Reference, Weights<Reference>),
    Kernels(Kernels, Weights<Kernels>),
}

impl<F: Family> Decoder<F> {
    /// Reads, processes and takes the weights, one tensor or block after the other: beside what is already in its final form, memory
    /// holds one block as it was read (and before that the unembedding). A tensor that is left over is an error.
    pub fn load(family: F, files: &dyn TensorSource, processing: ProcessingSteps, engine: Engine) -> Result<Self> {
        let points = points(&family)?;
        // A constant per token does change capped logits; TransformerLens leaves the step out too.
        let center_unembed = processing.center_unembed && family.logit_softcap().is_none();
        let fold_ln = processing.fold_ln && family.folds_norms();
        let processing = ProcessingSteps { center_unembed, fold_ln, ..processing };
        let held = match engine {
            Engine::Reference => Held::Reference(Reference, hold(&Reference, &family, files, processing)?),
            Engine::Kernels(arithmetic) => {
                let kernels = Kernels::new(arithmetic);
                let weights = hold(&kernels, &family, files, processing)?;
                Held::Kernels(kernels, weights)
            }
        };
        files.finish(&|tensor| family.spares(tensor))?;
        Ok(Self { family, points, held })
    }

    /// The equations of a run, the same for both engines.
    fn run_on<M: Math>(
        &self,
        (m, w): (&M, &Weights<M>),
        stage: ForwardPass<'_>,
        start: Start<'_>,
    ) -> Result<Option<Tensor>> {
        stage.through(|at| {
            let tokens = at.tokens();
            let (first, mut resid) = match start {
                Start::Tokens => (0, self.family.embed(m, at, &w.ends, tokens)?),
                Start::Residual { layer, resid } => (layer, m.residual(resid)?),
            };
            for (layer, block) in w.blocks.iter().enumerate().skip(first) {
                resid = self.family.block(m, &mut at.block(layer as u16), block, layer, resid)?;
            }
            let points = [NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm);
            let watched = points.into_iter().chain([HookPoint::Logits]).any(|point| at.interest(point).is_some());
            if at.last_alone() && !watched {
                resid = m.last_column(resid)?;
            }
            let x = m.norm(at, points, self.family.norm(), &w.ends.ln_final, &resid)?;
            at.tap(HookPoint::Logits, m.logits(&x, &w.ends.u, self.family.logit_softcap())?)
        })
    }

    fn run_through(&self, stage: ForwardPass<'_>, start: Start<'_>) -> Result<Option<Tensor>> {
        match &self.held {
            Held::Reference(m, w) => self.run_on((m, w), stage, start),
            Held::Kernels(m, w) => self.run_on((m, w), stage, start),
        }
    }

    fn unembed_on<M: Math>(&self, (m, w): (&M, &Weights<M>), resid: &Tensor) -> Result<Tensor> {
        let x = m.norm_alone(self.family.norm(), &w.ends.ln_final, resid)?;
        let logits = m.logits(&x, &w.ends.u, self.family.logit_softcap())?;
        let mut shape = resid.dims().to_vec();
        shape.pop();
        shape.push(self.family.shape().d_vocab);
        Ok(logits.reshape(shape)?)
    }

    fn final_norm_on<M: Math>(&self, (m, w): (&M, &Weights<M>)) -> Result<FinalNorm> {
        let tensor = |v: &Option<M::Vector>| v.as_ref().map(|v| m.vector(v)).transpose();
        let EmbedWeights { ln_final, u, .. } = &w.ends;
        Ok(FinalNorm {
            centers: self.family.norm().kind == NormKind::Layer,
            gain: tensor(&ln_final.w)?,
            bias: tensor(&ln_final.b)?,
            b_u: tensor(&u.b)?,
        })
    }

    fn output_on<M: Math>(&self, (m, w): (&M, &Weights<M>), layer: usize, part: BlockPart) -> Result<OutputWeights> {
        let Some(block) = w.blocks.get(layer) else {
            return Err(Error::OutOfRange { what: "layer", found: layer, limit: w.blocks.len() });
        };
        let (linear, norm, site) = match part {
            BlockPart::Attention => (&block.o, &block.ln1_post, Site::Ln1PostScale),
            BlockPart::Mlp => (&block.mlp_out, &block.ln2_post, Site::Ln2PostScale),
        };
        let gain = norm.w.as_ref().map(|w| m.vector(w)).transpose()?;
        Ok(OutputWeights {
            w: m.columns(&linear.w, 0, self.family.shape().d_model)?.contiguous()?,
            post_norm: self.family.has(site).then(|| PostNorm::new(gain)),
            gated: part == BlockPart::Mlp && block.gate.is_some(),
        })
    }

    /// Everything that can be wrong is found here, before anything runs.
    fn plan<'a>(
        &self,
        tokens: &'a TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &'a mut dyn Tap,
    ) -> Result<ForwardPass<'a>> {
        self.check_tokens(tokens)?;
        let start = match start {
            Start::Tokens => None,
            Start::Residual { layer, resid } => Some(self.check_start(tokens, layer, resid)?),
        };
        let stage = ForwardPass::plan(&self.points, tokens, start, last, tap)?;
        self.points.iter().try_for_each(|point| check_split_norm(&stage, *point))?;
        Ok(stage)
    }

    fn check_tokens(&self, tokens: &TokenBatch) -> Result<()> {
        let &ModelShape { d_vocab, n_ctx, .. } = self.family.shape();
        let longest = (0..tokens.batch()).map(|row| tokens.token_range(row).len()).max().unwrap_or(0);
        if longest > n_ctx {
            return Err(Error::ContextExceeded { pos: longest, n_ctx });
        }
        match tokens.ids().iter().position(|&id| id as usize >= d_vocab) {
            None => Ok(()),
            Some(i) => Err(Error::TokenOutOfVocabulary {
                id: tokens.ids()[i],
                row: i / tokens.pos(),
                pos: i % tokens.pos(),
                d_vocab,
            }),
        }
    }

    fn check_start(&self, tokens: &TokenBatch, layer: usize, resid: &Tensor) -> Result<HookPoint> {
        let &ModelShape { d_model, n_layers, .. } = self.family.shape();
        let expected = [tokens.batch(), tokens.pos(), d_model];
        if resid.dims() != expected {
            let expected = format!("[batch, pos, d_model] = {expected:?}");
            return Err(Error::Shape { what: "the residual to start from", expected, found: resid.dims().to_vec() });
        }
        match u16::try_from(layer) {
            Ok(index) if layer < n_layers => Ok(HookPoint::Block { layer: index, site: Site::ResidPre }),
            _ => Err(Error::OutOfRange { what: "start layer", found: layer, limit: n_layers }),
        }
    }
}

/// The hook points: those outside the blocks, and in each block the sites that the family has.
fn points(family: &impl Family) -> Result<Vec<HookPoint>> {
    let &ModelShape { n_layers, n_heads, n_kv_heads, .. } = family.shape();
    let layers = u16::try_from(n_layers).map_err(|_| Error::OutOfRange {
        what: "number of layers",
        found: n_layers,
        limit: usize::from(u16::MAX) + 1,
    })?;
    let mut points = vec![HookPoint::Embed];
    points.extend(family.has_positions().then_some(HookPoint::PosEmbed));
    for layer in 0..layers {
        // One value for a head's query, key and value: grouped heads have none.
        let has = |site: &Site| family.has(*site) && (*site != Site::AttnIn || n_heads == n_kv_heads);
        points.extend(Site::all().filter(has).map(|site| HookPoint::Block { layer, site }));
    }
    points.extend([NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm));
    points.push(HookPoint::Logits);
    Ok(points)
}

/// While inputs of single heads are edited, each head has a norm of its own; the points of the one that is not split lead nowhere.
fn check_split_norm(stage: &ForwardPass<'_>, norm: HookPoint) -> Result<()> {
    let HookPoint::Block { layer, site: Site::Ln1Scale | Site::Ln1Normalized } = norm else { return Ok(()) };
    let edited = |point: &HookPoint| stage.interest(*point) == Some(Interest::Edit);
    let inputs = [Site::AttnIn, Site::QInput, Site::KInput, Site::VInput];
    match inputs.map(|site| HookPoint::Block { layer, site }).into_iter().find(edited) {
        Some(input) if edited(&norm) => Err(Error::SplitNorm { point: norm, input }),
        _ => Ok(()),
    }
}

/// The ends first: what they need while they are read is less than what the blocks will take.
fn hold<H: Hold>(
    form: &H,
    family: &impl Family,
    files: &dyn TensorSource,
    processing: ProcessingSteps,
) -> Result<Weights<H>> {
    let (shape, norm) = (family.shape(), family.norm().kind);
    let mut ends = family.read_ends(files)?;
    processing.apply_to_ends(&mut ends, norm);
    let ends = form.hold_ends(ends)?;
    let block = |layer| {
        let mut block = family.read_block(files, layer)?;
        processing.apply_to_block(&mut block, shape, norm);
        form.hold_block(block)
    };
    Ok(Weights { ends, blocks: (0..shape.n_layers).map(block).collect::<Result<_>>()? })
}

impl<F: Family> HookedModel for Decoder<F> {
    fn shape(&self) -> &ModelShape {
        self.family.shape()
    }

    fn hook_points(&self) -> &[HookPoint] {
        &self.points
    }

    fn run(
        &self,
        tokens: &TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> Result<Option<Tensor>> {
        self.run_through(self.plan(tokens, start, last, tap)?, start)
    }

    fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        let d_model = self.family.shape().d_model;
        if resid.dims().last() != Some(&d_model) {
            let expected = format!("[.., {d_model}]");
            return Err(Error::Shape { what: "the residual to unembed", expected, found: resid.dims().to_vec() });
        }
        match &self.held {
            Held::Reference(m, w) => self.unembed_on((m, w), resid),
            Held::Kernels(m, w) => self.unembed_on((m, w), resid),
        }
    }

    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        let limit = self.family.shape().d_vocab;
        if start.checked_add(len).is_none_or(|end| end > limit) {
            let found = start.saturating_add(len).saturating_sub(1);
            return Err(Error::OutOfRange { what: "last column of W_U", found, limit });
        }
        match &self.held {
            Held::Reference(m, w) => m.columns(&w.ends.u.w, start, len),
            Held::Kernels(m, w) => m.columns(&w.ends.u.w, start, len),
        }
    }

    fn final_norm(&self) -> Result<Option<FinalNorm>> {
        match &self.held {
            Held::Reference(m, w) => self.final_norm_on((m, w)),
            Held::Kernels(m, w) => self.final_norm_on((m, w)),
        }
        .map(Some)
    }

    fn output_weights(&self, layer: usize, part: BlockPart) -> Result<OutputWeights> {
        match &self.held {
            Held::Reference(m, w) => self.output_on((m, w), layer, part),
            Held::Kernels(m, w) => self.output_on((m, w), layer, part),
        }
    }

    fn engine(&self) -> Engine {
        match &self.held {
            Held::Reference(..) => Engine::Reference,
            Held::Kernels(m, _) => Engine::Kernels(m.arithmetic()),
        }
    }

    fn generator(&self) -> Option<&dyn Generate> {
        Some(self)
    }

    fn w_u_operand(&self) -> Option<Operand<'_>> {
        match &self.held {
            Held::Reference(..) => None,
            Held::Kernels(_, w) => Some(w.ends.u.w.operand()),
        }
    }
}

impl<F: Family> Generate for Decoder<F> {
    fn new_cache(&self) -> KvCache {
        KvCache::new(self.family.shape(), HookedModel::engine(self))
    }

    fn forward_cached(&self, tokens: &TokenBatch, cache: &mut KvCache, tap: &mut dyn Tap) -> Result<Tensor> {
        self.run_cached(tokens, cache, tap, false)
    }

    fn next_logits(&self, tokens: &TokenBatch, cache: &mut KvCache, tap: &mut dyn Tap) -> Result<Tensor> {
        last_column(&self.run_cached(tokens, cache, tap, true)?)
    }

    fn keeps_angles(&self, cache: &KvCache, columns: usize) -> bool {
        cache.is_empty() || self.family.turns_alike([cache.turned_for(), cache.columns().saturating_add(columns)])
    }
}

impl<F: Family> Decoder<F> {
    /// Logits of new columns; only of the last one where `last_alone` is set and no tap sees those of the others.
    fn run_cached(
        &self,
        tokens: &TokenBatch,
        cache: &mut KvCache,
        tap: &mut dyn Tap,
        last_alone: bool,
    ) -> Result<Tensor> {
        cache.check_model(self.family.shape(), HookedModel::engine(self))?;
        let columns = cache.plan(tokens)?;
        if !self.keeps_angles(cache, tokens.pos()) {
            let (cached, turned_for) = (cache.columns(), cache.turned_for());
            return Err(Error::CachedAngles { cached, turned_for, pos: columns.end() });
        }
        let stage = self.plan(tokens, Start::Tokens, None, tap)?;
        cache.begin(tokens.batch(), &columns)?;
        // Whatever fails on the way leaves the cache with the columns that it had.
        let stage = stage.caching(columns.clone(), cache, last_alone);
        let logits = self.run_through(stage, Start::Tokens)?.ok_or(Error::NoLogits)?;
        cache.commit(tokens.batch(), &columns);
        Ok(logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::gpt2::Gpt2;
    use crate::families::llama::Llama;
    use crate::folder::HfFolder;
    use crate::{Capture, NoTap, PaddingSide, Processing};
    use std::path::PathBuf;

    fn check<F: Family>(model: &Decoder<F>) {
        let Held::Kernels(kernels, _) = &model.held else { panic!("the kernels were asked for") };
        let taken_by = |rows: usize, pos: usize, tap: &mut dyn Tap| {
            let before = kernels.memory_taken();
            model.forward(&TokenBatch::new(&vec![vec![7; pos]; rows]).unwrap(), tap).unwrap();
            kernels.memory_taken() - before
        };
        assert!(taken_by(3, 20, &mut NoTap) > 0);
        // The second run may still find that a smaller buffer went where a larger one was needed.
        taken_by(3, 20, &mut NoTap);
        assert_eq!([taken_by(3, 20, &mut NoTap), taken_by(2, 30, &mut NoTap), taken_by(1, 1, &mut NoTap)], [0; 3]);
        taken_by(3, 20, &mut Capture::all());
        taken_by(3, 20, &mut Capture::all());
        assert_eq!(taken_by(3, 20, &mut Capture::all()), 0, "a capture's own memory is no business of the workspace");
        // Steps behind a cache with room: two rows of different lengths.
        let mut cache = model.new_cache();
        cache.reserve(40);
        let prompt = TokenBatch::padded(&[vec![7; 20], vec![7; 9]], 0, PaddingSide::Left).unwrap();
        model.forward_cached(&prompt, &mut cache, &mut NoTap).unwrap();
        let (taken, bytes) = (kernels.memory_taken(), cache.bytes());
        for _ in 0..20 {
            model.forward_cached(&TokenBatch::new(&[[5], [6]]).unwrap(), &mut cache, &mut NoTap).unwrap();
        }
        assert_eq!((kernels.memory_taken(), cache.bytes()), (taken, bytes));
    }

    fn open<F: Family>(name: &str, prefix: &str) -> Decoder<F> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let config = Config::read(&folder.join("config.json")).unwrap();
        let files = HfFolder::open(&folder, &[prefix]).unwrap();
        Decoder::load(F::parse(&config).unwrap(), &files, Processing::None.into(), Engine::default()).unwrap()
    }

    #[test]
    fn a_warm_model_asks_for_no_memory() {
        check(&open::<Gpt2>("gpt2", "transformer."));
        check(&open::<Llama>("llama", "model."));
    }
}
