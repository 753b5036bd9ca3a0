//! Values as rows and back, at every hook point of every family; what the MLP reads behind its norm; names of modules.

mod common;

use candle_core::{D, Tensor};
use common::{Golden, MODELS, assert_close, assert_same_bits, engines, families, folder, model, model_on, tolerance};
use model_hooks::{Capture, Edit, Error, HookPoint, HookRows, HookSelector, LanguageModel, NoTap, Processing, Site};
use tensor_files::SafetensorsFile;

fn at(layer: u16, site: Site) -> HookPoint {
    HookPoint::Block { layer, site }
}

/// OLMo 2 takes the norm of queries (and of keys) over all heads at once, so that its scale has no axis of heads.
fn over_all_heads(name: &str, point: HookPoint) -> bool {
    name == "olmo2" && matches!(point.site(), Some(Site::QNormScale | Site::KNormScale))
}

#[test]
fn every_point_of_every_family_is_rows_and_back() {
    for name in MODELS {
        let (model, tokens) = (model(name, Processing::None), Golden::open(name).tokens());
        let points = model.hooked().hook_points();
        let mut capture = Capture::new(points.iter().copied());
        model.hooked().forward(&tokens, &mut capture).unwrap();
        let mut seen = 0;
        for (point, x) in capture.iter() {
            let what = format!("{name}, {point}");
            let rows = match HookRows::resolve(point, model.shape()) {
                Err(Error::NotRows { .. }) if matches!(point.site(), Some(Site::AttnScores | Site::Pattern)) => {
                    continue;
                }
                rows => rows.unwrap_or_else(|error| panic!("{what}: {error}")),
            };
            if over_all_heads(name, point) {
                assert!(matches!(rows.gather(x), Err(Error::Shape { .. })), "{what}");
                continue;
            }
            let gathered = rows.gather(x).unwrap();
            assert_eq!(gathered.dims(), [tokens.batch(), tokens.pos(), rows.width()], "{what}");
            assert_eq!(rows.width(), x.dims()[2..].iter().product::<usize>(), "{what}");
            let blank = x.zeros_like().unwrap();
            assert_same_bits(&what, &rows.scatter(&blank, &gathered).unwrap(), x);
            // Head by head, the heads fill the value.
            let Some(axis) = point.head_axis() else { continue };
            let mut filled = blank;
            for head in 0..x.dim(axis).unwrap() {
                let one = HookRows::resolve(HookSelector::head(point, head), model.shape()).unwrap();
                filled = one.scatter(&filled, &one.gather(x).unwrap()).unwrap();
                assert_same_bits(&what, &one.gather(&filled).unwrap(), &one.gather(x).unwrap());
            }
            assert_same_bits(&what, &filled, x);
            seen += 1;
        }
        assert!(seen > 10, "{name}: {seen} points with heads");
    }
}

fn weight(name: &str, tensor: &str) -> Tensor {
    SafetensorsFile::open(folder(name).join("model.safetensors")).unwrap().load(tensor).unwrap()
}

/// `x W + b` of rows `[batch, pos, k]`, `W` as Hugging Face has it (GPT-2's the other way round).
fn times(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    let y = x.broadcast_matmul(&w.contiguous().unwrap()).unwrap();
    b.map_or(y.clone(), |b| y.broadcast_add(b).unwrap())
}

/// `mlp.hook_in` is what `W_in` reads, behind the norm and its gain; `hook_mlp_in` lies before the norm.
#[test]
fn the_mlp_reads_its_hook_in() {
    let weights: [(&str, Tensor, Option<Tensor>); 3] = [
        (
            "gpt2",
            weight("gpt2", "transformer.h.1.mlp.c_fc.weight"),
            Some(weight("gpt2", "transformer.h.1.mlp.c_fc.bias")),
        ),
        ("llama", weight("llama", "model.layers.1.mlp.gate_proj.weight").t().unwrap(), None),
        ("gemma2", weight("gemma2", "model.layers.1.mlp.gate_proj.weight").t().unwrap(), None),
    ];
    for (name, w, b) in &weights {
        for engine in engines() {
            let (model, tokens) = (model_on(name, Processing::None, engine), Golden::open(name).tokens());
            let mut capture = Capture::new([at(1, Site::MlpInput), at(1, Site::MlpPre), at(1, Site::MlpIn)]);
            model.hooked().forward(&tokens, &mut capture).unwrap();
            let [input, pre] = [Site::MlpInput, Site::MlpPre].map(|site| capture.get(at(1, site)).unwrap());
            assert_close(&format!("{name}, {engine}"), pre, &times(input, w, b.as_ref()), tolerance(engine, 1e-4));
        }
    }
    // Without a norm before the MLP it is the stream.
    let (model, tokens) = (model("olmo2", Processing::None), Golden::open("olmo2").tokens());
    let mut capture = Capture::new([at(1, Site::MlpInput), at(1, Site::ResidMid)]);
    model.hooked().forward(&tokens, &mut capture).unwrap();
    let [input, mid] = [Site::MlpInput, Site::ResidMid].map(|site| capture.get(at(1, site)).unwrap());
    assert_same_bits("olmo2", input, mid);
}

#[test]
fn watching_what_the_mlp_reads_changes_no_bit_and_editing_it_changes_the_mlp_alone() {
    for (_, name) in families() {
        for engine in engines() {
            let (model, tokens) = (model_on(name, Processing::None, engine), Golden::open(name).tokens());
            let what = format!("{name}, {engine}");
            let plain = model.hooked().forward(&tokens, &mut NoTap).unwrap();
            let all = (0..model.shape().n_layers as u16).map(|layer| at(layer, Site::MlpInput));
            let mut capture = Capture::new(all);
            assert_same_bits(&what, &model.hooked().forward(&tokens, &mut capture).unwrap(), &plain);
            let mut patch = Edit::patch(at(0, Site::MlpInput), capture.get(at(0, Site::MlpInput)).unwrap().clone());
            assert_same_bits(&what, &model.hooked().forward(&tokens, &mut patch).unwrap(), &plain);

            let kept = [Site::AttnOut, Site::MlpPre];
            let mut taps = (Edit::zero(at(0, Site::MlpInput)), Capture::new(kept.map(|site| at(0, site))));
            model.hooked().forward(&tokens, &mut taps).unwrap();
            let mut untouched = Capture::new([at(0, Site::AttnOut)]);
            model.hooked().forward(&tokens, &mut untouched).unwrap();
            let same = |capture: &Capture| capture.get(at(0, Site::AttnOut)).unwrap().clone();
            assert_same_bits(&what, &same(&taps.1), &same(&untouched));
            // Only the bias is left.
            let pre = taps.1.get(at(0, Site::MlpPre)).unwrap().flatten_to(1).unwrap();
            let first = pre.narrow(0, 0, 1).unwrap().broadcast_as(pre.shape()).unwrap();
            let apart = (pre - first).unwrap().abs().unwrap().max(D::Minus1).unwrap().max(0).unwrap();
            assert_eq!(apart.to_scalar::<f32>().unwrap(), 0.0, "{what}");
        }
    }
}

/// The outputs of Hugging Face's modules are the hook points of the model that they are in.
#[test]
fn modules_are_found_in_models() {
    let found = |model: &LanguageModel, name: &str| model.hooked().hook_point(name).map(|point| point.to_string());
    let models = ["gpt2", "llama", "gemma2", "neox_parallel"].map(|name| model(name, Processing::None));
    let [gpt2, llama, gemma2, neox] = &models;
    for (model, name, point) in [
        (gpt2, "transformer.h.1", "blocks.1.hook_resid_post"),
        (gpt2, "transformer.h.1.mlp", "blocks.1.hook_mlp_out"),
        (llama, "model.layers.2", "blocks.2.hook_resid_post"),
        (llama, "model.layers.2.mlp", "blocks.2.hook_mlp_out"),
        (llama, "model.layers.2.self_attn", "blocks.2.hook_attn_out"),
        (llama, "model.layers.2.post_attention_layernorm", "blocks.2.mlp.hook_in"),
        (gemma2, "model.layers.2", "blocks.2.hook_resid_post"),
        (gemma2, "model.layers.2.post_attention_layernorm", "blocks.2.hook_attn_out"),
        (gemma2, "model.layers.2.pre_feedforward_layernorm", "blocks.2.mlp.hook_in"),
        (gemma2, "model.layers.2.post_feedforward_layernorm", "blocks.2.hook_mlp_out"),
        (neox, "gpt_neox.layers.1.attention", "blocks.1.hook_attn_out"),
        (llama, "blocks.0.mlp.hook_in", "blocks.0.mlp.hook_in"),
    ] {
        assert_eq!(found(model, name).unwrap(), point, "{name}");
    }
    // The module's own output lies before the norm, where Gemma 2 has no hook point.
    let error = found(gemma2, "model.layers.2.mlp").unwrap_err();
    assert!(
        matches!(error, Error::ModuleName { .. }) && error.to_string().contains("blocks.2.hook_mlp_out"),
        "{error}"
    );
    assert!(matches!(found(llama, "model.layers.9"), Err(Error::UnknownHookPoint { .. })));
    assert!(matches!(found(llama, "blocks.0.hook_resid_prae"), Err(Error::UnknownHookName { .. })));

    // The numbers are those of transformers' own modules.
    for name in ["gpt2", "llama", "gemma2", "neox_parallel"] {
        let (golden, model) = (Golden::open(name), model(name, Processing::None));
        let list = if name == "gpt2" { "transformer.h" } else { "model.layers" };
        let point = model.hooked().hook_point(&format!("{list}.1")).unwrap();
        let mut capture = Capture::new([point]);
        model.hooked().forward(&golden.tokens(), &mut capture).unwrap();
        assert_close(name, capture.get(point).unwrap(), &golden.tensor("hf.resid_post.1"), 1e-4);
    }
}
