"""SAELens' own folders as versions before 6 wrote them (6 and later: golden_sae.py)."""

import json

from dialect_common import D_IN, D_SAE, Fixture, bind, inputs, open_in_saelens, weights

import torch
from safetensors.torch import save_file

BASE = dict(d_in=D_IN, d_sae=D_SAE, dtype="torch.float32", device="cuda", dataset_path="Skylion007/openwebtext", context_size=128)
V2 = dict(
    BASE, model_name="gpt2-small", hook_point="blocks.7.hook_resid_pre", hook_point_layer=7, hook_point_head_index=None,
    is_dataset_tokenized=False, use_cached_activations=False, b_dec_init_method="geometric_median", expansion_factor=3,
    l1_coefficient=8e-05, noise_scale=0, lr=0.0004)
V3 = dict(
    BASE, model_name="gpt2-small", hook_name="blocks.7.hook_mlp_out", hook_layer=7, hook_head_index=None, prepend_bos=True,
    activation_fn_str="relu", apply_b_dec_to_input=False, finetuning_scaling_factor=False, normalize_activations="none",
    sae_lens_training_version="3.7.0")
V4 = dict(V3, architecture="standard", activation_fn_kwargs={}, dataset_trust_remote_code=True, model_from_pretrained_kwargs={},
          sae_lens_training_version="4.3.1", neuronpedia_id=None)
V5 = dict(V4, sae_lens_training_version="5.9.1", seqpos_slice=[None])


def native(fixture: Fixture, seed, cfg, age, names=("W_enc", "W_dec", "b_enc", "b_dec"), scaling_factor=None, width=None, notes="",
           own=None):
    made = weights(seed, threshold=True)
    generator = torch.Generator().manual_seed(seed + 1000)
    made |= {name: torch.randn(D_SAE, generator=generator) * 0.2 - (0.5 if name != "r_mag" else 0) for name in ("b_gate", "b_mag", "r_mag")}
    state = {name: made[name] for name in names}
    if scaling_factor is not None:
        state["scaling_factor"] = torch.full((D_SAE,), 1.0) if scaling_factor == 1 else 1 + 0.3 * torch.rand(D_SAE, generator=generator)
    path = "blocks.7"
    save_file(state, fixture.path(f"{path}/sae_weights.safetensors"))
    sparsity = torch.linspace(-6, -0.5, D_SAE)
    save_file(dict(sparsity=sparsity), fixture.path(f"{path}/sparsity.safetensors"))
    fixture.path(f"{path}/cfg.json").write_text(json.dumps(cfg))
    x = inputs(seed)
    if width:
        x = x.reshape(width)
    fixture.describe("saelens", path, f"by hand, after the cfg.json of SAELens {age}", "SAELens' own loader, encode, decode and forward",
                     d_in=D_IN, d_sae=D_SAE, d_out=D_IN, notes=notes)
    if own:
        fixture.meta["reference"] = "the formula of SAELens 5, by hand: SAELens 6 does not load it"
        fixture.expect(x=x, **own(x, state))
    try:
        sae, loaded = open_in_saelens(fixture, "sae_lens", "someone/saes", path)
        acts = sae.encode(x)
        if not own:
            fixture.expect(x=x, acts=acts, recons=sae.decode(acts), forward=sae(x))
        fixture.meta["saelens"] = dict(loader="sae_lens", config=loaded)
    except Exception as error:
        fixture.meta["saelens"] = dict(loader="sae_lens", fails=f"{type(error).__name__}: {error}".splitlines()[0])


def finetuned(x, state):
    """SAELens 3 to 5: codes are multiplied by the factor in decode, not in encode."""
    acts = torch.relu((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    return dict(acts=acts, recons=acts * state["scaling_factor"] @ state["W_dec"] + state["b_dec"])


def fixtures(_lib):
    gated = ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag")
    jump = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    on = dict(apply_b_dec_to_input=True)
    return {
        "saelens_2": bind(native, seed=41, cfg=V2, age="2", notes="no architecture, no apply_b_dec_to_input (true), prepend_bos (true)"),
        "saelens_2_hook_z": bind(
            native, seed=42, cfg={**V2, "hook_point": "blocks.7.attn.hook_z"}, age="2", width=(2, 6, 4, 4),
            notes="reshape_activations follows from the hook's name"),
        "saelens_3_scaling_factor_of_ones": bind(native, seed=43, cfg={**V3, **on}, age="3", scaling_factor=1, notes="the tensor is dropped"),
        "saelens_3_scaling_factor_used": bind(
            native, seed=44, cfg={**V3, **on, "finetuning_scaling_factor": True}, age="3", scaling_factor=2, own=finetuned,
            notes="codes are scaled in decode"),
        "saelens_3_scaling_factor_refused": bind(
            native, seed=45, cfg={**V3, **on}, age="3", scaling_factor=2, notes="a factor that is not all ones, and no flag: an error"),
        "saelens_3_no_b_dec": bind(native, seed=46, cfg=V3, age="3"),
        "saelens_4_topk_oai": bind(
            native, seed=47, age="4", cfg={**V4, **on, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}, "prepend_bos": False,
                                           "normalize_activations": "layer_norm", "context_size": 64},
            notes="architecture says standard; activation_fn_str makes it topk (as gpt2-small-*-v5-32k)"),
        "saelens_4_gated": bind(native, seed=48, cfg={**V4, **on, "architecture": "gated"}, age="4", names=gated),
        "saelens_4_jumprelu": bind(native, seed=49, cfg={**V4, "architecture": "jumprelu"}, age="4", names=jump),
        "saelens_5_bool_normalisation": bind(
            native, seed=50, cfg={**V5, **on, "normalize_activations": True}, age="5",
            notes="true means expected_average_only_in; without a factor in the registry nothing is folded"),
        "saelens_5_constant_norm_rescale": bind(native, seed=51, cfg={**V5, **on, "normalize_activations": "constant_norm_rescale"}, age="5"),
        "saelens_5_null_normalisation": bind(native, seed=52, cfg={**V5, **on, "normalize_activations": None, "architecture": "jumprelu"},
                                                age="5", names=jump, notes="null means none"),
    }
