"""Formats of published SAEs without an installable writer: laid out by hand, read by SAELens' loaders."""

import json

from dialect_common import D_IN, D_SAE, Fixture, bind, inputs, open_in_saelens, weights
from dialect_formulas import llama_scope_publisher

import numpy as np
import torch
from safetensors.torch import save_file

HAND = "by hand, after the documented layout"
SIZES = dict(d_in=D_IN, d_sae=D_SAE)


def reference(fixture: Fixture, dialect, loader, repo_id, path, x, overrides=None, norm=None, notes="", **more):
    """Loads what was written and records what SAELens computes."""
    sae, cfg = open_in_saelens(fixture, loader, repo_id, path, overrides, norm)
    fixture.describe(
        dialect, path, HAND, f"SAELens' loader {loader}; its encode, decode and forward", repo_id=repo_id, notes=notes,
        d_in=cfg["d_in"], d_sae=cfg["d_sae"], d_out=cfg.get("d_out", cfg["d_in"]), saelens=dict(loader=loader, config=cfg), **more)
    if overrides:
        fixture.meta["overrides"] = overrides
    if norm:
        fixture.meta["norm_scaling_factor"] = norm
    acts = sae.encode(x)
    fixture.expect(x=x, acts=acts, recons=sae.decode(acts), forward=sae(x))
    if cfg["architecture"] == "temporal":
        fixture.expect(predicted=sae.encode_with_predictions(x)[1])


def linear(made, encoder, decoder, dtype=torch.float32):
    """torch.nn.Linear's orientation: [out, in]."""
    return {
        f"{encoder}.weight": made["W_enc"].T.contiguous().to(dtype), f"{encoder}.bias": made["b_enc"].to(dtype),
        f"{decoder}.weight": made["W_dec"].T.contiguous().to(dtype), f"{decoder}.bias": made["b_dec"].to(dtype)}


def connor_rob(fixture: Fixture):
    path = "gpt2-small_L5_Hcat_z_lr1.20e-03_l11.80e+00_ds48_bs4096_dc1.00e-06_rsanthropic_rie25000_nr4_v9.pt"
    made = weights(61)
    torch.save({name: made[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")}, fixture.path(path))
    cfg = dict(seed=49, batch_size=4096, model_name="gpt2-small", layer=5, site="z", act_name="blocks.5.attn.hook_z", act_size=D_IN,
               dict_size=D_SAE, dict_mult=3, concat_heads=True, lr=0.0012, l1_coeff=1.8, seq_len=128, enc_dtype="fp32", device="cuda:0")
    fixture.path(path.replace(".pt", "_cfg.json")).write_text(json.dumps(cfg))
    reference(fixture, "connor_rob", "connor_rob_hook_z", "ckkissane/attn-saes-gpt2-small-all-layers", path,
              inputs(61).reshape(2, 6, 4, 4), notes="heads are flattened before, and split after")


def gemma_scope(fixture: Fixture, seed, repo, path, save, loader="gemma_2", hook_z=False, notes=""):
    made = weights(seed, threshold=True)
    if "embedding" in path:
        made["b_enc"] += 0.7
        made["threshold"] *= 0.3
    save(fixture.path(f"{path}/params.npz"), **{name: tensor.numpy() for name, tensor in made.items()})
    x = inputs(seed).reshape(2, 6, 4, 4) if hook_z else inputs(seed)
    sizes = SIZES if loader == "gemma_2" else dict(SIZES, d_out=D_IN)
    reference(fixture, "gemma_scope", loader, repo, path, x, sizes,
              notes="; ".join(filter(None, [notes, "the real sizes follow from names alone, so these are overrides"])))


def gemma_scope_2(fixture: Fixture, seed, path, config=None, skip=False, layers=None, notes=""):
    made = weights(seed, threshold=True, skip=skip)
    state = dict(w_enc=made["W_enc"], w_dec=made["W_dec"], b_enc=made["b_enc"], b_dec=made["b_dec"], threshold=made["threshold"])
    if layers:
        generator = torch.Generator().manual_seed(seed + 1)
        state["w_dec"] = torch.randn(D_SAE, layers, D_IN, generator=generator) * 0.15
        state["w_dec"][:, : layers - 2] = 0  # layer `layers - 2` writes to itself and those after it
    if skip:
        state["affine_skip_connection"] = made["W_skip"].T.contiguous()
    save_file(state, fixture.path(path + (".safetensors" if layers else "/params.safetensors")))
    if config:
        fixture.path(f"{path}/config.json").write_text(json.dumps(dict(architecture="jump_relu", model_name="gemma-v3-270m-pt", **config)))
    reference(fixture, "gemma_scope_2", "gemma_3", "google/gemma-scope-2-270m-pt", path, inputs(seed), notes=notes)


def llama_scope(fixture: Fixture, seed, include_norms):
    path, made, threshold, norm = "Llama3_1-8B-Base-L3R-8x", weights(seed), 0.40625, 5.5
    state = linear(made, "encoder", "decoder", torch.bfloat16)
    save_file(state, fixture.path(f"{path}/checkpoints/final.safetensors"))
    fixture.path(f"{path}/hyperparams.json").write_text(json.dumps(dict(
        device="cuda", seed=42, dtype="torch.bfloat16", hook_point_in="blocks.3.hook_resid_post", hook_point_out="blocks.3.hook_resid_post",
        use_decoder_bias=True, apply_decoder_bias_to_pre_encoder=False, expansion_factor=3, d_model=D_IN, d_sae=D_SAE, act_fn="jumprelu",
        jump_relu_threshold=threshold, norm_activation="dataset-wise", dataset_average_activation_norm={"in": norm, "out": norm},
        sparsity_include_decoder_norm=include_norms, use_glu_encoder=False)))
    s = D_IN**0.5 / norm
    same = "publisher.* is what the publisher's own code computes: the same decisions, its codes times sqrt(d)/norm are these"
    other = ("publisher.* is what the publisher's own code computes: it compares the threshold with the pre-activation times the decoder row's "
             "norm (sparsity_include_decoder_norm), which SAELens leaves out; the two agree when those norms are 1")
    reference(fixture, "llama_scope", "llama_scope", "fnlp/Llama3_1-8B-Base-LXR-8x", path, inputs(seed), norm=s, notes=other if include_norms else same)
    llama_scope_publisher(fixture, s, state, inputs(seed), threshold, include_norms)


def llama_scope_r1(fixture: Fixture):
    path, made = "400M-Slimpajama-400M-OpenR1-Math-220k/L3R", weights(72, threshold=True)
    state = linear(made, "encoder", "decoder") | dict(log_jumprelu_threshold=made["threshold"].log())
    save_file(state, fixture.path(f"{path}/sae_weights.safetensors"))
    fixture.path(f"{path}/config.json").write_text(json.dumps(dict(
        sae_type="sae", hook_point_in="blocks.3.hook_resid_post", hook_point_out="blocks.3.hook_resid_post", d_model=D_IN,
        expansion_factor=3, use_decoder_bias=True, use_glu_encoder=False, act_fn="jumprelu", norm_activation="inference",
        sparsity_include_decoder_norm=True, top_k=50, dtype="torch.float32")))
    reference(fixture, "llama_scope_r1", "llama_scope_r1_distill", "fnlp/Llama-Scope-R1-Distill", path, inputs(72), norm=0.7,
              notes="the factor comes from the registry and is folded into W_enc, W_dec and b_dec, not into the threshold")


def deepseek(fixture: Fixture):
    path = "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"
    torch.save(linear(weights(73), "encoder", "decoder", torch.bfloat16), fixture.path(path))
    reference(fixture, "deepseek_r1", "deepseek_r1", "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19", path, inputs(73), SIZES,
              notes="stored in bf16; the layer follows from the file's name")


def qwen(fixture: Fixture):
    made = weights(74)
    torch.save(dict(W_enc=made["W_enc"].T.contiguous(), W_dec=made["W_dec"].T.contiguous(), b_enc=made["b_enc"] + 0.7, b_dec=made["b_dec"]),
               fixture.path("layer3.sae.pt"))
    reference(fixture, "qwen_scope", "qwen_scope", "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_6", "layer3.sae.pt", inputs(74), SIZES,
              notes="k is the L0 of the repository's name, the width its W32K (here an override)")


def goodfire(fixture: Fixture, seed, repo, path):
    torch.save(linear(weights(seed), "encoder_linear", "decoder_linear"), fixture.path(path))
    reference(fixture, "goodfire", "goodfire", repo, path, inputs(seed), SIZES)


def mwhanna(fixture: Fixture, seed, repo, typo=False):
    made = weights(seed)
    save_file(dict(W_enc=made["W_enc"].T.contiguous(), W_dec=made["W_dec"], b_enc=made["b_enc"], b_dec=made["b_dec"]),
              fixture.path("layer_3.safetensors"))
    wandb = f"_wandb:\n  value:\n    cli_version: 0.19.1\nbatch_size:\n  value: 2048\nd_feature:\n  value: {D_SAE}\nd_model:\n  value: {D_IN}\n"
    fixture.path("wanb-config.yaml" if typo else "wandb-config.yaml").write_text(wandb)
    if not typo:
        fixture.path("config.yaml").write_text(
            f'model_name: "Qwen/Qwen3-4B"\nmodel_kind: "transcoder_set"\nfeature_input_hook: "mlp.hook_in"\n'
            f'feature_output_hook: "mlp.hook_out"\nscan: "{repo}"\n')
    reference(fixture, "mwhanna", "mwhanna_transcoder", repo, "layer_3.safetensors", inputs(seed),
              notes="wanb-config.yaml and no config.yaml: the model follows from the repository's name" if typo else "")


def temporal(fixture: Fixture, seed, tied, diff_type="topk"):
    import sae_lens as S

    more = dict(n_heads=4, n_attn_layers=2 if tied else 1, bottleneck_factor=2, sae_diff_type=diff_type,
                kval_topk=6 if diff_type == "topk" else None, tied_weights=tied)
    torch.manual_seed(seed)
    sae = S.TemporalSAE(S.TemporalSAEConfig(**SIZES, **more))
    made = weights(seed)
    state = {name: tensor for name, tensor in sae.state_dict().items() if name.startswith("attn_layers.")}
    state |= dict(D=made["W_dec"], b=made["b_dec"]) | ({} if tied else dict(E=made["W_enc"]))
    path = "layer_3/temporal"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, fixture.path(f"{path}/latest_ckpt.safetensors"))
    lines = ["llm:", f"  dimin: {D_IN}", "sae:", f"  exp_factor: {D_SAE / D_IN}", "  scaling_factor: 0.37"]
    lines += [f"  {name}: {'null' if value is None else str(value).lower()}" for name, value in more.items()] + ["data:", "  dtype: float32"]
    fixture.path(f"{path}/conf.yaml").write_text("\n".join(lines) + "\n")
    reference(fixture, "temporal", "temporal", "canrager/temporalSAEs", path, inputs(seed).reshape(2, 6, D_IN),
              dict(model_name="gemma-2-2b", hook_name="blocks.12.hook_resid_post", dataset_path="monology/pile-uncopyrighted"),
              notes="acts are the novel codes, predicted those from the positions before; forward decodes their sum, recons the novel ones alone")


def fixtures(_lib):
    scope, scope_2 = "google/gemma-scope-2b-pt-", "layer_3_width_16k_l0_small"
    return {
        "connor_rob_hook_z": connor_rob,
        "gemma_scope_res_stored": bind(gemma_scope, 62, scope + "res", "layer_3/width_16k/average_l0_59", np.savez),
        "gemma_scope_mlp_deflated": bind(gemma_scope, 63, scope + "mlp", "layer_3/width_16k/average_l0_62", np.savez_compressed),
        "gemma_scope_att_hook_z": bind(gemma_scope, 64, scope + "att", "layer_3/width_16k/average_l0_76", np.savez, hook_z=True),
        "gemma_scope_embedding": bind(
            gemma_scope, 65, scope + "res", "embedding/width_4k/average_l0_6", np.savez_compressed,
            notes="W_enc is divided by, and W_dec multiplied with, sqrt(d_in)"),
        "gemma_scope_transcoder": bind(
            gemma_scope, 66, scope + "transcoders", "layer_3/width_16k/average_l0_54", np.savez, loader="gemma_2_transcoder"),
        "gemma_scope_2_resid": bind(gemma_scope_2, 81, f"resid_post/{scope_2}", dict(hf_hook_point_in="model.layers.3.output")),
        "gemma_scope_2_attn": bind(
            gemma_scope_2, 82, f"attn_out_all/{scope_2}", notes="no config.json; SAELens leaves reshape_activations at none although hook_z has heads"),
        "gemma_scope_2_transcoder": bind(gemma_scope_2, 83, f"transcoder_all/{scope_2}", dict(
            hf_hook_point_in="model.layers.3.pre_feedforward_layernorm.output",
            hf_hook_point_out="model.layers.3.post_feedforward_layernorm.output", affine_connection=False)),
        "gemma_scope_2_skip_transcoder": bind(
            gemma_scope_2, 84, f"transcoder_all/{scope_2}_affine", skip=True, notes="no config.json: affine follows from the name"),
        "gemma_scope_2_clt": bind(
            gemma_scope_2, 85, "clt/width_262k_l0_small/params_layer_3", layers=5,
            notes="w_dec is [d_sae, layers, d_out]; recons and forward sum it over all layers, as SAELens' view of one layer does: good for codes, "
                  "not for reconstruction. Entry l of dimension 1 is written to layer l; those before the SAE's own layer are not used"),
        "llama_scope": bind(llama_scope, 71, False),
        "llama_scope_decoder_norms": bind(llama_scope, 70, True),
        "llama_scope_r1_distill": llama_scope_r1,
        "deepseek_r1": deepseek,
        "qwen_scope": qwen,
        "goodfire_pt": bind(goodfire, 75, "Goodfire/Llama-3.3-70B-Instruct-SAE-l50", "Llama-3.3-70B-Instruct-SAE-l50.pt"),
        "goodfire_pth": bind(goodfire, 76, "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
        "mwhanna_transcoder": bind(mwhanna, 77, "mwhanna/qwen3-4b-transcoders"),
        "mwhanna_transcoder_without_config": bind(mwhanna, 78, "mwhanna/qwen3-14b-transcoders-lowl0", typo=True),
        "temporal_tied": bind(temporal, 86, True),
        "temporal_untied": bind(temporal, 87, False),
        "temporal_relu": bind(temporal, 88, False, "relu"),
    }
