"""Files that their own tool writes: dictionary_learning (trained by its `trainSAE`) and sparsify."""

import contextlib
import io
import json
import sys
import types

from dialect_common import D_IN, D_SAE, Fixture, bind, compare_with_saelens, inputs, weights

import torch

DL = dict(versions={"dictionary-learning": "0.1.0"})
SPARSIFY = dict(versions={"eai-sparsify": "1.3.3"})
STEPS = 300


def import_from(lib):
    """The two packages without what their __init__ drags in; nnsight and natsort are needed by name only."""
    sys.path.insert(0, str(lib))
    for name in ("dictionary_learning", "sparsify"):
        package = types.ModuleType(name)
        package.__path__ = [str(lib / name)]
        sys.modules[name] = package
    sys.modules["nnsight"] = types.ModuleType("nnsight")
    sys.modules["nnsight"].LanguageModel = sys.modules["nnsight"].NNsight = object
    sys.modules["natsort"] = types.ModuleType("natsort")
    sys.modules["natsort"].natsorted = sorted


class Data:
    """Batches with planted features; `config` has the keys of the tool's ActivationBuffer."""

    config = dict(d_submodule=D_IN, io="out", n_ctxs=244, ctx_len=1024, refresh_batch_size=4, out_batch_size=256, device="cpu")

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)
        self.features = torch.randn(64, D_IN, generator=self.generator) * D_IN**-0.5

    def __iter__(self):
        while True:
            on = torch.rand(256, 64, generator=self.generator)
            yield torch.where(on < 0.06, on * 40 + 1, 0.0) @ self.features + 0.3


def train(fixture, trainer, name, **config):
    """Trains by the tool's own loop, which writes `trainer_0/{ae.pt,config.json}`."""
    from dictionary_learning.training import trainSAE

    config = dict(dict(
        trainer=trainer, steps=STEPS, activation_dim=D_IN, dict_size=D_SAE, layer=3, lm_name="EleutherAI/pythia-70m-deduped",
        device="cpu", seed=5, lr=3e-3, warmup_steps=10, submodule_name="resid_post_layer_3"), **config)
    with torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainSAE(Data(), [config], steps=config["steps"], save_dir=str(fixture.root / name), device="cpu")
    return f"{name}/trainer_0"


def dictionary_learning(fixture: Fixture, trainer, module, cls, notes="", extra=None, **config):
    from importlib import import_module

    load = lambda name, where: getattr(import_module(f"dictionary_learning.{where}"), name)
    if "dict_class" in config:
        config["dict_class"] = load(config["dict_class"], "dictionary")
    path = train(fixture, load(trainer, f"trainers.{module}"), "resid_post_layer_3", **config)
    state = torch.load(fixture.root / path / "ae.pt")
    where = "dictionary" if cls in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder") else f"trainers.{module}"
    sizes = (D_IN, D_SAE) + ((int(state["k"]),) if "k" in state else ())
    if "group_sizes" in state:
        sizes += (state["group_sizes"].tolist(),)
    own = load(cls, where)(*sizes)
    own.load_state_dict(state)
    x = next(iter(Data()))[:12]
    acts = own.encode(x)
    fixture.describe(
        "dictionary_learning", path, f"dictionary_learning's trainSAE, {trainer}, {config.get('steps', STEPS)} steps",
        f"{cls}.encode and .decode of dictionary_learning", d_in=D_IN, d_sae=D_SAE, d_out=D_IN,
        tensors={k: list(v.shape) for k, v in state.items()}, notes=notes, **DL)
    fixture.expect(x=x, acts=acts, recons=own.decode(acts))
    if extra:
        extra(fixture, own, x, fixture.root / path / "ae.pt")
    compare_with_saelens(fixture, "dictionary_learning_1", "canrager/lm_sae", path, x, acts, own.decode(acts))


def normalised(fixture, own, x, path):
    """AutoEncoder.from_pretrained normalises the decoder unless told not to."""
    with contextlib.redirect_stdout(io.StringIO()):
        folded = type(own).from_pretrained(str(path))
    fixture.expect(normalised__acts=folded.encode(x), normalised__recons=folded(x))


def gated_normalised(fixture, own, x, path):
    acts = own.encode(x, normalize_decoder=True)
    fixture.expect(normalised__acts=acts, normalised__recons=own.decode(acts, normalize_decoder=True))


def by_threshold(fixture, own, x, path):
    fixture.expect(by_threshold__acts=own.encode(x, use_threshold=True))


def by_batch(fixture, own, x, path):
    fixture.expect(by_batch__acts=own.encode(x, use_threshold=False))


def sparsify(fixture: Fixture, seed, name="layers.3", old=None, fill_dtype=torch.float32, notes="", **config):
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    cfg = SparseCoderConfig(**{**dict(expansion_factor=D_SAE // D_IN, k=6), **config})
    sae = SparseCoder(D_IN, cfg, dtype=fill_dtype)
    made = weights(seed, skip=True)
    for tensor, value in (
        (sae.encoder.weight, made["W_enc"].T), (sae.encoder.bias, made["b_enc"] + 0.7), (sae.W_dec, made["W_dec"]),
        (sae.b_dec, made["b_dec"]), (sae.W_skip, made["W_skip"])):
        if tensor is not None:
            tensor.data.copy_(value)
    if cfg.normalize_decoder:
        sae.set_decoder_norm_to_unit_norm()
    sae.save_to_disk(fixture.root / name)
    run = dict(sae=cfg.to_dict(), batch_size=32, model="EleutherAI/pythia-160m", dataset="togethercomputer/RedPajama-Data-1T-Sample",
               split="train", ctx_len=2048, hookpoints=[name])
    (fixture.root / "config.json").write_text(json.dumps(run))
    if old:
        (fixture.root / name / "cfg.json").write_text(json.dumps(old))
    own = SparseCoder.load_from_disk(fixture.root / name)
    x = inputs(seed)
    top = own.encode(x)
    acts = torch.zeros(len(x), D_SAE, dtype=top.top_acts.dtype).scatter_(-1, top.top_indices, top.top_acts)
    forward = own(x).sae_out
    fixture.describe(
        "sparsify", name, "SparseCoder.save_to_disk of sparsify" + (", with the cfg.json that older versions wrote" if old else ""),
        "SparseCoder.encode, .decode and forward of sparsify, loaded from disk", d_in=D_IN, d_sae=D_SAE, d_out=D_IN,
        repo_id="EleutherAI/sae-pythia-160m", notes=notes, **SPARSIFY)
    fixture.expect(x=x, acts=acts, recons=own.decode(top.top_acts, top.top_indices))
    if cfg.skip_connection:
        fixture.expect(forward=forward)
    compare_with_saelens(fixture, "sparsify", "EleutherAI/sae-pythia-160m", name, x, acts, forward)


def fixtures(lib):
    import_from(lib)
    dl = lambda *args, **more: bind(dictionary_learning, trainer=args[0], module=args[1], cls=args[2], **more)
    quick = dict(threshold_start_step=5, threshold_beta=0.9)
    return {
        "dictionary_learning_auto_encoder": dl(
            "StandardTrainerAprilUpdate", "standard", "AutoEncoder", extra=normalised, l1_penalty=0.6, sparsity_warmup_steps=20,
            notes="acts are of the stored weights; normalised.* of AutoEncoder.from_pretrained, which normalises the decoder by default"),
        "dictionary_learning_auto_encoder_new": dl(
            "StandardTrainerAprilUpdate", "standard", "AutoEncoderNew", l1_penalty=0.6, sparsity_warmup_steps=20, dict_class="AutoEncoderNew",
            notes="the bias is decoder.bias and is not subtracted from the input; config.json says AutoEncoder, because this trainer always does: "
                  "only the names of the tensors tell the two apart (older versions wrote AutoEncoderNew)"),
        "dictionary_learning_gated": dl(
            "GatedSAETrainer", "gdm", "GatedAutoEncoder", extra=gated_normalised, l1_penalty=0.2, sparsity_warmup_steps=20,
            notes="normalised.* with normalize_decoder=True in encode and decode"),
        "dictionary_learning_jump_relu": dl(
            "JumpReluTrainer", "jumprelu", "JumpReluAutoEncoder", bandwidth=0.05, target_l0=6.0, sparsity_warmup_steps=20,
            notes="b_dec is not subtracted from the input"),
        "dictionary_learning_top_k": dl(
            "TopKTrainer", "top_k", "AutoEncoderTopK", extra=by_threshold, k=6, **quick,
            notes="encode chooses k per token although a threshold is stored; by_threshold.acts with use_threshold=True"),
        "dictionary_learning_batch_top_k": dl(
            "BatchTopKTrainer", "batch_top_k", "BatchTopKSAE", extra=by_batch, k=6, **quick,
            notes="encode uses the stored threshold; by_batch.acts with use_threshold=False: the 12 * k largest of the batch"),
        "dictionary_learning_batch_top_k_untrained_threshold": dl(
            "BatchTopKTrainer", "batch_top_k", "BatchTopKSAE", extra=by_batch, k=6, steps=30,
            notes="the threshold is still -1: encode then keeps every positive pre-activation"),
        "dictionary_learning_matryoshka": dl(
            "MatryoshkaBatchTopKTrainer", "matryoshka_batch_top_k", "MatryoshkaBatchTopKSAE", extra=by_batch, k=6,
            group_fractions=[0.25, 0.25, 0.5], **quick, notes="W_enc and W_dec in SAELens' orientation; encode uses the threshold"),
        "sparsify_topk": bind(sparsify, seed=31),
        "sparsify_topk_old_cfg": bind(
            sparsify, seed=32, old=dict(expansion_factor=3, normalize_decoder=True, num_latents=0, k=6, signed=False, d_in=D_IN),
            notes="num_latents 0 means d_in * expansion_factor"),
        "sparsify_groupmax": bind(sparsify, seed=33, activation="groupmax", k=8),
        "sparsify_transcode": bind(
            sparsify, seed=34, name="layers.3.mlp", transcode=True, normalize_decoder=False, num_latents=D_SAE, expansion_factor=32,
            notes="b_dec is not subtracted from the input; the hookpoint is the MLP, input to output"),
        "sparsify_skip_transcode": bind(sparsify, seed=35, name="layers.3.mlp", transcode=True, skip_connection=True),
        "sparsify_skip_topk": bind(sparsify, seed=36, skip_connection=True, notes="a skip without transcode: the skip reads x, not x - b_dec"),
    }
