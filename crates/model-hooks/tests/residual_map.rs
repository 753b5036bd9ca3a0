//! Directions at a hook point as directions of the residual stream, against what an edit of that size adds there.

mod common;

use candle_core::{Device, Tensor};
use common::{Golden, assert_close, engines, families, folder, model, model_on, tolerance};
use model_hooks::{
    BlockPart, Capture, Edit, Engine, Error, HookPoint, HookRows, HookSelector, HookedModel, LanguageModel, ModelShape,
    Precision, Processing, ResidualMap, Result, Site, Start, Tap, TokenBatch, residual_directions,
};
use tensor_files::SafetensorsFile;

const LAYER: u16 = 1;

fn at(site: Site) -> HookPoint {
    HookPoint::Block { layer: LAYER, site }
}

/// Numbers between -1 and 1 that differ.
fn numbers(rows: usize, width: usize) -> Tensor {
    let values = (0..rows * width).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
}

/// What one direction at a hook point adds to the output of its part of the block, when an edit adds it at the last position.
fn added(model: &LanguageModel, tokens: &TokenBatch, from: HookSelector, to: Site, direction: &Tensor) -> Tensor {
    let rows = HookRows::resolve(from, model.shape()).unwrap();
    let direction = match rows.head_width() {
        Some(width) => direction.reshape(((), width)).unwrap(),
        None => direction.clone(),
    };
    let last = tokens.pos() - 1;
    let run = |edit: Option<Edit>| {
        let mut taps = (edit.into_iter().collect::<Vec<_>>(), Capture::new([at(to)]));
        model.hooked().forward_until(tokens, at(to), &mut taps).unwrap();
        taps.1.get(at(to)).unwrap().narrow(0, 0, 1).unwrap().narrow(1, last, 1).unwrap().flatten_to(1).unwrap()
    };
    let edit = Edit::add(from.point, direction).positions(last);
    let edit = match from.head {
        Some(head) => edit.head(head),
        None => edit,
    };
    (run(Some(edit)) - run(None)).unwrap()
}

/// The hook points from which a map leads, of a block with these sites, and where it leads.
fn mapped(has_post_norm: bool, n_heads: usize) -> Vec<(HookSelector, Site)> {
    let last = n_heads - 1;
    let mut found: Vec<(HookSelector, Site)> = vec![];
    if has_post_norm {
        found.push((at(Site::Ln1PostNormalized).into(), Site::AttnOut));
        found.push((at(Site::Ln2PostNormalized).into(), Site::MlpOut));
        return found;
    }
    for site in [Site::Z, Site::Result] {
        found.extend([(at(site).into(), Site::AttnOut), (HookSelector::head(at(site), last), Site::AttnOut)]);
    }
    found.push((at(Site::MlpPost).into(), Site::MlpOut));
    found
}

#[test]
fn the_map_is_what_an_edit_adds_to_the_stream() {
    let exact = |engine: &Engine| !matches!(engine, Engine::Kernels(a) if a.precision() == Precision::Bf16);
    for (_, name) in families() {
        let tokens = Golden::open(name).tokens();
        for engine in engines().filter(exact) {
            for processing in [Processing::None, Processing::TransformerLens] {
                let model = model_on(name, processing, engine);
                let has = |site| model.hooked().hook_points().contains(&at(site));
                for (from, to) in mapped(has(Site::Ln1PostScale), model.shape().n_heads) {
                    let map = ResidualMap::resolve(model.hooked(), from).unwrap();
                    let directions = numbers(2, map.width());
                    let found = map.apply(&directions).unwrap();
                    for row in 0..2 {
                        let direction = directions.get(row).unwrap();
                        let expected = added(&model, &tokens, from, to, &direction);
                        let what = format!("{name}, {processing:?}, {engine}, {from}");
                        // The difference of two runs loses a few bits.
                        let found = found.narrow(0, row, 1).unwrap();
                        assert_close(&what, &found, &expected, tolerance(engine, 2e-4));
                    }
                }
            }
        }
    }
}

#[test]
fn the_stream_and_what_is_added_to_it_are_themselves() {
    for (_, name) in families() {
        let model = model(name, Processing::None);
        let blocks = [Site::ResidPre, Site::ResidMid, Site::ResidPost, Site::AttnOut, Site::MlpOut].map(at);
        let directions = numbers(3, model.shape().d_model);
        for point in [HookPoint::Embed, HookPoint::PosEmbed].into_iter().chain(blocks) {
            if model.hooked().hook_points().contains(&point) {
                let found = residual_directions(model.hooked(), point, &directions).unwrap();
                common::assert_same_bits(name, &found, &directions);
            }
        }
    }
}

/// Against the tensors of the files.
#[test]
fn weights_are_those_of_the_files() {
    let open = |name: &str| SafetensorsFile::open(folder(name).join("model.safetensors")).unwrap();
    let (llama, gpt2) = (model("llama", Processing::None), model("gpt2", Processing::None));
    assert!(llama.shape().n_kv_heads < llama.shape().n_heads);
    let w_o = open("llama").load("model.layers.1.self_attn.o_proj.weight").unwrap().t().unwrap().contiguous().unwrap();
    let z = numbers(4, 64);
    let found = residual_directions(llama.hooked(), at(Site::Z), &z).unwrap();
    assert_close("all heads", &found, &z.matmul(&w_o).unwrap(), 1e-5);
    let one = numbers(4, 16);
    let found = residual_directions(llama.hooked(), HookSelector::head(at(Site::Z), 2), &one).unwrap();
    assert_close("one head", &found, &one.matmul(&w_o.narrow(0, 32, 16).unwrap().contiguous().unwrap()).unwrap(), 1e-5);
    let w_out = open("gpt2").load("transformer.h.1.mlp.c_proj.weight").unwrap();
    let neurons = numbers(4, 256);
    for site in [Site::MlpPre, Site::MlpPost] {
        let found = residual_directions(gpt2.hooked(), at(site), &neurons).unwrap();
        assert_close(site.name(), &found, &neurons.matmul(&w_out).unwrap(), 1e-5);
    }
}

#[test]
fn what_does_not_write_linearly_is_refused() {
    let refused = |model: &LanguageModel, at: HookSelector| match ResidualMap::resolve(model.hooked(), at) {
        Err(Error::NotWritten { at: named, reason }) => {
            assert_eq!(named, at);
            reason
        }
        found => panic!("{at}: {found:?}"),
    };
    let [gpt2, llama, gemma2, gemma3, olmo2] =
        ["gpt2", "llama", "gemma2", "gemma3", "olmo2"].map(|name| model(name, Processing::TransformerLens));
    let reads = [Site::AttnIn, Site::QInput, Site::VInput, Site::MlpIn, Site::MlpInput, Site::Q, Site::K, Site::V];
    for site in reads.into_iter().chain([Site::Ln1Normalized, Site::Ln2Normalized, Site::Ln1Scale]) {
        refused(&gpt2, at(site).into());
    }
    refused(&gpt2, HookPoint::Logits.into());
    refused(&gpt2, HookPoint::FinalNorm(model_hooks::NormSite::Normalized).into());
    // In a gated MLP the other factor decides the sign.
    assert!(refused(&llama, at(Site::MlpPre).into()).contains("hook_post"));
    assert!(refused(&llama, at(Site::MlpPreLinear).into()).contains("hook_post"));
    // A norm behind attention and MLP divides by a scale that depends on the text.
    for model in [&gemma2, &gemma3, &olmo2] {
        for site in [Site::Z, Site::Result, Site::MlpPost, Site::MlpPre] {
            assert!(refused(model, at(site).into()).contains("norm"), "{site}");
        }
        assert!(refused(model, HookSelector::head(at(Site::Z), 1)).contains("hook_attn_out"));
    }
    let error = |at: HookPoint| ResidualMap::resolve(gpt2.hooked(), at).unwrap_err();
    assert!(matches!(error(at(Site::Pattern)), Error::NotRows { .. }));
    assert!(matches!(error(at(Site::MlpPreLinear)), Error::UnknownHookPoint { .. }));
    let head = ResidualMap::resolve(gpt2.hooked(), HookSelector::head(at(Site::Z), 4)).unwrap_err();
    assert!(matches!(head, Error::NoSuchHead { head: 4, heads: 4, .. }));
    let width = residual_directions(gpt2.hooked(), at(Site::MlpPost), &numbers(2, 64)).unwrap_err();
    assert!(matches!(width, Error::Shape { .. }), "{width}");
}

/// A user's own model that says nothing of its weights.
struct Silent(LanguageModel);

impl HookedModel for Silent {
    fn shape(&self) -> &ModelShape {
        self.0.shape()
    }
    fn hook_points(&self) -> &[HookPoint] {
        self.0.hooked().hook_points()
    }
    fn run(&self, t: &TokenBatch, s: Start<'_>, last: Option<HookPoint>, tap: &mut dyn Tap) -> Result<Option<Tensor>> {
        self.0.hooked().run(t, s, last, tap)
    }
    fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.0.hooked().unembed(resid)
    }
    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        self.0.hooked().w_u_columns(start, len)
    }
}

#[test]
fn a_model_that_does_not_give_its_weights_says_so() {
    let model = Silent(model("gpt2", Processing::None));
    let found = ResidualMap::resolve(&model, at(Site::Z)).unwrap_err();
    assert!(found.to_string().contains("does not expose W_O"), "{found}");
    assert!(residual_directions(&model, at(Site::ResidPre), &numbers(1, 64)).is_ok());
    let layer = model.0.hooked().output_weights(3, BlockPart::Mlp).unwrap_err();
    assert!(matches!(layer, Error::OutOfRange { found: 3, limit: 3, .. }));
}
