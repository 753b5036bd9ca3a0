"""Small SAEs of every architecture that SAELens can make, saved by its own functions, and what it computes with them.

    python tools/goldens/golden_sae.py --out DIR [NAME ...]

writes DIR/NAME/{cfg.json, sae_weights.safetensors, golden.safetensors} for the given names (all without any) and
DIR/index.json. golden.safetensors holds x and what the loaded SAE makes of it: encode, decode, forward; folded.* after
fold_W_dec_norm where that is defined; scaled.* after fold_activation_norm_scaling_factor(1.7) where that is meaningful;
f32.* computed in float32 for SAEs stored in a lower precision; `predicted`, the codes a temporal SAE predicts from the
positions before. Seeds are fixed: the same versions give the same bits (and the same key order in cfg.json, for which
PYTHONHASHSEED=0 is needed: SAELens goes through a set).
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump, versions

import sae_lens as S
import torch
from safetensors.torch import load_file, save_file
from sae_lens.saes.sae import SAEMetadata

torch.set_grad_enabled(False)
D_IN, D_SAE, D_OUT, TOKENS = 32, 96, 24, 24
SCALE = 1.7
BASE = dict(d_in=D_IN, d_sae=D_SAE)
X = torch.randn(2, TOKENS // 2, D_IN, generator=torch.Generator().manual_seed(7)) * 1.5 + 0.2


def metadata(hook="blocks.3.hook_resid_pre"):
    return SAEMetadata(model_name="tiny", hook_name=hook, hook_head_index=None, context_size=128, prepend_bos=True)


def randomise(sae, seed, bias=-0.6):
    """Weights of a size that leaves about a third of the features active."""
    generator = torch.Generator().manual_seed(seed)

    def fill(tensor, scale):
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * scale)

    for name, tensor in sorted(sae.named_parameters()):
        if name in ("W_dec", "W_enc", "W_skip"):
            fill(tensor, D_IN**-0.5)
        elif name in ("b_enc", "b_gate", "b_mag"):
            fill(tensor, 0.3)
            tensor.data += bias
        elif name in ("b_dec", "r_mag"):
            fill(tensor, 0.2)
        elif name == "threshold":
            tensor.data.copy_((torch.rand(tensor.shape, generator=generator) * 0.8).to(tensor.dtype))
        elif name == "log_threshold":
            tensor.data.copy_((torch.randn(tensor.shape, generator=generator) * 0.3 - 1).to(tensor.dtype))
        else:
            fill(tensor, 0.1)
    return sae


def dense(tensor):
    return tensor.to_dense() if tensor.is_sparse else tensor


def inference_saes():
    standard = lambda seed, hook="blocks.3.hook_resid_pre", **more: randomise(
        S.StandardSAE(S.StandardSAEConfig(**BASE, metadata=metadata(hook), **more)), seed)
    topk = lambda seed, bias=-0.6, **more: randomise(S.TopKSAE(S.TopKSAEConfig(**BASE, metadata=metadata(), **more)), seed, bias)
    transcoder = lambda seed, cls, cfg: randomise(
        cls(cfg(**BASE, d_out=D_OUT, apply_b_dec_to_input=False, metadata=metadata("blocks.3.ln2.hook_normalized"))), seed)
    yield "standard", standard(1), X
    yield "standard_no_b_dec_in", standard(2, apply_b_dec_to_input=False), X
    yield "standard_layer_norm", standard(3, normalize_activations="layer_norm"), X
    yield "standard_constant_norm_rescale", standard(4, normalize_activations="constant_norm_rescale"), X
    yield "standard_expected_average_only_in", standard(5, normalize_activations="expected_average_only_in"), X
    yield "standard_hook_z", standard(6, "blocks.3.attn.hook_z", reshape_activations="hook_z"), X.reshape(2, TOKENS // 2, 4, D_IN // 4)
    yield "standard_bf16", standard(7, dtype="bfloat16"), X
    yield "standard_f16", standard(8, dtype="float16"), X
    yield "gated", randomise(S.GatedSAE(S.GatedSAEConfig(**BASE, metadata=metadata())), 9), X
    yield "topk", topk(10, k=8), X
    yield "topk_rescaled", topk(11, k=8, rescale_acts_by_decoder_norm=True), X
    yield "topk_fewer_positive_than_k", topk(12, bias=-2.5, k=40), X
    yield "abstopk", randomise(S.AbsTopKSAE(S.AbsTopKSAEConfig(**BASE, k=8, metadata=metadata())), 13), X
    yield "jumprelu", randomise(S.JumpReLUSAE(S.JumpReLUSAEConfig(**BASE, metadata=metadata())), 14), X
    yield "matching_pursuit", randomise(S.MatchingPursuitSAE(S.MatchingPursuitSAEConfig(
        **BASE, metadata=metadata(), residual_threshold=0.5, max_iterations=10)), 15), X
    yield "transcoder", transcoder(16, S.Transcoder, S.TranscoderConfig), X
    yield "skip_transcoder", transcoder(17, S.SkipTranscoder, S.SkipTranscoderConfig), X
    yield "jumprelu_transcoder", transcoder(18, S.JumpReLUTranscoder, S.JumpReLUTranscoderConfig), X
    yield "jumprelu_skip_transcoder", transcoder(19, S.JumpReLUSkipTranscoder, S.JumpReLUSkipTranscoderConfig), X
    yield "temporal", randomise(S.TemporalSAE(S.TemporalSAEConfig(
        **BASE, n_heads=4, n_attn_layers=2, bottleneck_factor=2, sae_diff_type="topk", kval_topk=8, metadata=metadata())), 20), X


def training_saes():
    """Training classes; each is saved for inference (NAME_from_training) and as it is (NAME_training)."""
    pursuit = dict(residual_threshold=0.5, max_iterations=10)
    classes = (
        ("standard{}", S.StandardTrainingSAE, S.StandardTrainingSAEConfig, {}),
        ("gated{}", S.GatedTrainingSAE, S.GatedTrainingSAEConfig, {}),
        ("topk{}", S.TopKTrainingSAE, S.TopKTrainingSAEConfig, dict(k=8)),
        ("topk{}_norescale", S.TopKTrainingSAE, S.TopKTrainingSAEConfig, dict(k=8, rescale_acts_by_decoder_norm=False)),
        ("abstopk{}", S.AbsTopKTrainingSAE, S.AbsTopKTrainingSAEConfig, dict(k=8)),
        ("jumprelu{}", S.JumpReLUTrainingSAE, S.JumpReLUTrainingSAEConfig, {}),
        ("batchtopk{}", S.BatchTopKTrainingSAE, S.BatchTopKTrainingSAEConfig, dict(k=8.0)),
        ("matryoshka_batchtopk{}", S.MatryoshkaBatchTopKTrainingSAE, S.MatryoshkaBatchTopKTrainingSAEConfig,
         dict(k=8.0, matryoshka_widths=[16, 48, D_SAE])),
        ("matching_pursuit{}", S.MatchingPursuitTrainingSAE, S.MatchingPursuitTrainingSAEConfig, pursuit),
    )
    for at, (name, cls, cfg, more) in enumerate(classes):
        sae = cls(cfg(**BASE, **more))
        sae.cfg.metadata = metadata()
        randomise(sae, 50 + 2 * at)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.7)
        yield name, sae


def goldens(folder, x, training_class):
    """What SAELens computes with a saved folder."""
    load = lambda **more: (S.TrainingSAE if training_class else S.SAE).load_from_disk(str(folder), **more)
    sae = load()
    acts = dense(sae.encode(x))
    out = dict(x=x, encode=acts, decode=sae.decode(acts), forward=sae(x))
    if sae.dtype != torch.float32:
        wide = load(dtype="float32")
        out.update({"f32.encode": dense(wide.encode(x)), "f32.forward": wide(x)})
    if isinstance(sae, S.TemporalSAE):
        out["predicted"] = sae.encode_with_predictions(x)[1]
    folded = load()
    try:
        folded.fold_W_dec_norm()
        out.update({"folded.encode": dense(folded.encode(x)), "folded.forward": folded(x)})
    except NotImplementedError:
        pass
    if sae.cfg.normalize_activations in ("none", "expected_average_only_in") and not isinstance(sae, S.TemporalSAE):
        scaled = load(dtype="float32")
        scaled.fold_activation_norm_scaling_factor(SCALE)
        out.update({"scaled.encode": dense(scaled.encode(x)), "scaled.forward": scaled(x)})
    return sae, out


def write(out, name, sae, x, save, index, training_class=False):
    folder = out / name
    getattr(sae, save)(folder)
    loaded, tensors = goldens(folder, x, training_class)
    if save == "save_inference_model":
        # A training encoder may choose over the whole batch (BatchTopK); kept for comparison.
        tensors["training_encode"] = dense(sae.encode(x))
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "golden.safetensors")
    index[name] = dict(
        architecture=json.loads((folder / "cfg.json").read_text())["architecture"], cls=type(loaded).__name__, saved_by=save,
        l0=float((tensors["encode"] != 0).float().sum(-1).mean()))


def legacy(out, index):
    """A configuration of the shape that gpt2-small-res-jb has, from before SAELens 6."""
    folder = out / "legacy_res_jb_style"
    folder.mkdir()
    save_file(load_file(str(out / "standard/sae_weights.safetensors")), folder / "sae_weights.safetensors")
    dump(folder / "cfg.json", {
        "model_name": "gpt2-small", "hook_point": "blocks.7.hook_resid_pre", "hook_point_layer": 7, "hook_point_head_index": None,
        "dataset_path": "Skylion007/openwebtext", "is_dataset_tokenized": False, "context_size": 128,
        "use_cached_activations": False, "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu",
        "b_dec_init_method": "geometric_median", "expansion_factor": 3, "l1_coefficient": 8e-05})
    sae = S.SAE.load_from_disk(str(folder))
    save_file(dict(x=X, encode=sae.encode(X), forward=sae(X)), folder / "golden.safetensors")
    dump(folder / "cfg_as_loaded.json", sae.cfg.to_dict())
    index["legacy_res_jb_style"] = dict(architecture=sae.cfg.architecture(), cls=type(sae).__name__, saved_by="hand")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    index = {}
    with tempfile.TemporaryDirectory() as tmp:
        made = Path(tmp)
        for name, sae, x in inference_saes():
            write(made, name, sae, x, "save_model", index)
        flat = X.reshape(-1, D_IN)
        for name, sae in training_saes():
            write(made, name.format("_from_training"), sae, flat, "save_inference_model", index)
            write(made, name.format("_training"), sae, flat, "save_model", index, training_class=True)
        legacy(made, index)
        names = args.names or list(index)
        if unknown := set(names) - set(index):
            parser.error(f"unknown names {sorted(unknown)}; there are {sorted(index)}")
        for name in names:
            shutil.copytree(made / name, args.out / name, dirs_exist_ok=True)
    dump(args.out / "index.json", dict(versions=versions(), d_in=D_IN, d_sae=D_SAE, scale=SCALE, saes={n: index[n] for n in names}))
    print(f"{len(names)} SAEs written to {args.out}")


if __name__ == "__main__":
    main()
