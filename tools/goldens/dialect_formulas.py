"""Formats with neither an installable writer nor a faithful loader: laid out by hand, computed by their published formulas."""

from collections import OrderedDict

from dialect_common import D_IN, D_SAE, Fixture, bind, inputs, open_in_saelens, weights

import torch
from safetensors.torch import save_file

LAYERS = 3
CLT_D_IN, CLT_D_SAE = 16, 24


def openai(fixture: Fixture, seed, path, activation, tied=False, twice=False):
    """openai/sparse_autoencoder: LN only with TopK, decoder(latents) + pre_bias, then LN undone."""
    made = weights(seed)
    latent_bias = made["b_enc"] + (0.7 if activation == "TopK" else 0)
    decoder = made["W_enc"] if tied else made["W_dec"].T.contiguous()
    state = OrderedDict(
        pre_bias=made["b_dec"], latent_bias=latent_bias, stats_last_nonzero=torch.arange(D_SAE),
        latents_activation_frequency=torch.full((D_SAE,), 0.01), latents_mean_square=torch.full((D_SAE,), 0.5))
    state["encoder.weight"] = made["W_enc"].T.contiguous()
    state["decoder.linear.weight" if tied else "decoder.weight"] = state["encoder.weight"] if tied else decoder
    if twice:
        state |= {"activation.k": 6, "activation.postact_fn": "ReLU"}
    state["activation"] = activation
    state["activation_state_dict"] = OrderedDict(k=6, postact_fn="ReLU") if activation == "TopK" else OrderedDict()
    state._metadata = OrderedDict([("", dict(version=1)), ("encoder", dict(version=1)), ("decoder", dict(version=1)), ("activation", dict(version=1))])
    torch.save(state, fixture.path(path))
    x = inputs(seed)
    mu, sd = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    seen = (x - mu) / (sd + 1e-5) if activation == "TopK" else x
    acts = (seen - made["b_dec"]) @ made["W_enc"] + latent_bias
    if activation == "TopK":
        top = acts.topk(6, dim=-1)
        acts = torch.zeros_like(acts).scatter_(-1, top.indices, torch.relu(top.values))
    acts = torch.relu(acts)
    out = acts @ decoder.T + made["b_dec"]
    fixture.describe(
        "openai", path, "torch.save of a state dict as openai/sparse_autoencoder's Autoencoder.state_dict makes it",
        "its formulas, by hand", d_in=D_IN, d_sae=D_SAE, d_out=D_IN,
        notes="LN with the unbiased standard deviation when the activation is TopK, and only then" if activation == "TopK" else
              "no LN; a tied decoder stores decoder.linear.weight = encoder.weight and decodes with its transpose" if tied else "no LN")
    if twice:
        fixture.meta["notes"] += "; TopK.state_dict also leaves activation.k and activation.postact_fn, which from_state_dict refuses: a reader need not"
    fixture.expect(x=x, acts=acts, recons=out * sd + mu if activation == "TopK" else out)


def clt_layers(seed, jump, skip):
    layers = []
    for at in range(LAYERS):
        made = weights(seed + at, CLT_D_IN, CLT_D_SAE, threshold=jump, skip=skip)
        generator = torch.Generator().manual_seed(seed + 50 + at)
        made["W_dec"] = torch.randn(CLT_D_SAE, LAYERS - at, CLT_D_IN, generator=generator) * 0.25
        made["W_enc"] = made["W_enc"].T.contiguous()
        layers.append(made)
    return layers


def clt(fixture: Fixture, seed, repo, jump=False, skip=False):
    """circuit-tracer's files of a cross-layer transcoder; without threshold and skip they are mntss's."""
    layers = clt_layers(seed, jump, skip)
    x = torch.stack([inputs(seed + at, CLT_D_IN) for at in range(LAYERS)])
    fixture.path("config.yaml").write_text(
        'model_name: "google/gemma-2-2b"\nmodel_kind: "cross_layer_transcoder"\nfeature_input_hook: "hook_resid_mid"\n'
        f'feature_output_hook: "hook_mlp_out"\nscan: "{repo}"\n')
    acts, recons = [], [made["b_dec"].expand(x.shape[1], -1).clone() for made in layers]
    for at, made in enumerate(layers):
        state = {f"{name}_{at}": made[name].clone() for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip") if name in made}
        save_file(state, fixture.path(f"W_enc_{at}.safetensors"))
        save_file({f"W_dec_{at}": made["W_dec"]}, fixture.path(f"W_dec_{at}.safetensors"))
        pre = x[at] @ made["W_enc"].T + made["b_enc"]
        acts.append(torch.relu(pre) * (pre > made["threshold"]) if jump else torch.relu(pre))
        for to in range(at, LAYERS):
            recons[to] += acts[at] @ made["W_dec"][:, to - at]
        if skip:
            recons[at] += x[at] @ made["W_skip"]
    skips = "; W_skip is applied as x @ W_skip (the per-layer files: x @ W_skip^T)" if skip else ""
    fixture.describe(
        "clt", ".", "by hand, after circuit-tracer's to_safetensors", "its formulas, by hand", d_in=CLT_D_IN, d_sae=CLT_D_SAE, d_out=CLT_D_IN,
        layers=LAYERS, repo_id=repo,
        notes="x, acts and recons are [layer, token, ..]; W_dec_l is [d_sae, layers - l, d_out], entry j writes to layer l + j" + skips)
    fixture.expect(x=x, acts=torch.stack(acts), recons=torch.stack(recons))
    if not jump:
        for at in range(LAYERS):
            sae, cfg = open_in_saelens(fixture, "mntss_clt_layer_transcoder", repo, str(at))
            fixture.expect(**{f"layer_{at}.acts": sae.encode(x[at]), f"layer_{at}.recons": sae(x[at])})
            fixture.meta["saelens"] = dict(loader="mntss_clt_layer_transcoder", config_of_the_last_layer=cfg)
        fixture.meta["notes"] += "; layer_L.* is SAELens' view of one layer, which sums W_dec over its layers: good for codes, not for reconstruction"


def slt_codes(pre, layer, activation):
    if activation == "topk":
        return torch.zeros_like(pre).scatter_(-1, (top := pre.topk(24, dim=-1)).indices, top.values)
    return pre * (pre > layer["threshold"]) if activation == "jumprelu" else torch.relu(pre)


def slt(fixture: Fixture, seed, activation="relu", skip=False):
    """circuit-tracer's per-layer transcoders: one file a layer."""
    made = [weights(seed + at, skip=skip, threshold=activation == "jumprelu") for at in range(2)]
    x = torch.stack([inputs(seed + at) for at in range(2)])
    acts, recons, forward = [], [], []
    for at, layer in enumerate(made):
        state = {name: layer[name] for name in ("W_dec", "b_enc", "b_dec", "W_skip") if name in layer}
        if activation == "jumprelu":
            state["activation_function.threshold"] = layer["threshold"]
        save_file(state | dict(W_enc=layer["W_enc"].T.contiguous()), fixture.path(f"layer_{at}.safetensors"))
        acts.append(slt_codes(x[at] @ layer["W_enc"] + layer["b_enc"], layer, activation))
        recons.append(acts[at] @ layer["W_dec"] + layer["b_dec"])
        forward.append(recons[at] + (x[at] @ layer["W_skip"].T if skip else 0))
    fixture.path("config.yaml").write_text(
        'model_name: "meta-llama/Llama-3.2-1B"\nmodel_kind: "transcoder_set"\nfeature_input_hook: "mlp.hook_in"\n'
        'feature_output_hook: "mlp.hook_out"\nscan: "someone/transcoders"\ntranscoders:\n  - "layer_0.safetensors"\n  - "layer_1.safetensors"\n'
        + ('activation: "topk"\nk: 24\n' if activation == "topk" else ""))
    notes = "x, acts, recons and forward are [layer, token, ..]; W_enc is [d_sae, d_in]; forward adds x @ W_skip^T"
    if activation == "topk":
        notes += "; the activation is named in config.yaml alone, and keeps the k largest pre-activations even when they are negative"
    fixture.describe(
        "slt", ".", "by hand, after circuit-tracer's SingleLayerTranscoder", "its formulas, by hand", d_in=D_IN, d_sae=D_SAE, d_out=D_IN,
        layers=2, notes=notes)
    fixture.expect(x=x, acts=torch.stack(acts), recons=torch.stack(recons), forward=torch.stack(forward))


def llama_scope_publisher(fixture: Fixture, s, state, x, threshold, include_norms):
    """OpenMOSS' own: biases are brought to the input's scale, decoder rows (if included) to norm 1; the threshold is used as it is."""
    w_enc, b_enc, w_dec, b_dec = (state[n].float() for n in ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"))
    norms = w_dec.norm(dim=0) if include_norms else torch.ones(D_SAE)
    pre = (x @ w_enc.T + b_enc / s) * norms
    acts = pre.where(pre > threshold, torch.zeros(()))
    fixture.expect(publisher__acts=acts, publisher__recons=(acts / norms) @ w_dec.T + b_dec / s)


def fixtures(_lib):
    return {
        "openai_v5_topk": bind(openai, 91, "resid_post_mlp_v5_32k/autoencoders/7.pt", "TopK"),
        "openai_topk_as_saved_again": bind(openai, 94, "autoencoder.pt", "TopK", twice=True),
        "openai_v1_relu": bind(openai, 92, "resid_post_mlp_v1/autoencoders/7.pt", "ReLU"),
        "openai_tied": bind(openai, 93, "tied/autoencoders/7.pt", "ReLU", tied=True),
        "clt_mntss": bind(clt, 101, "mntss/clt-gemma-2-2b-426k"),
        "clt_jump_relu_skip": bind(clt, 111, "someone/clt-jump-relu", jump=True, skip=True),
        "slt_relu": bind(slt, 121),
        "slt_skip": bind(slt, 131, skip=True),
        "slt_jump_relu": bind(slt, 141, "jumprelu"),
        "slt_topk": bind(slt, 151, "topk"),
    }
