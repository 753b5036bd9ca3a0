"""The small seeded models of the goldens: configurations, weights, and how each gets into TransformerLens.

A part of `golden_small.py` and of the scripts that compute more with the same models. Vocabulary 384, d_model 64, 3 or 4 layers, 4 heads; windows of 8
under prompts of 24 tokens; random gains and biases, so that nothing drops out of the sums.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common  # noqa: F401  (environment of the libraries below)
import torch
import transformers as T
from common import tl_from_local
from transformer_lens import HookedTransformer
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gemma_weights, convert_olmo2_weights

torch.set_grad_enabled(False)
torch.set_num_threads(1)
VOCAB, D_MODEL, LAYERS, HEADS, KV_HEADS, SEQ, CTX, WINDOW = 384, 64, 3, 4, 2, 24, 256, 8
SPECIAL = dict(bos_token_id=1, eos_token_id=2)
GPT2 = dict(vocab_size=VOCAB, n_positions=CTX, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS, **SPECIAL)
NEOX = dict(vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=256,
            max_position_embeddings=CTX, **SPECIAL)
LLAMA = dict(vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=160, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
             num_key_value_heads=KV_HEADS, max_position_embeddings=CTX, pad_token_id=0, tie_word_embeddings=False, rms_norm_eps=1e-5, **SPECIAL)
GEMMA = {**LLAMA, "head_dim": 32, "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh"}


def rope(theta=10000.0, kind="default", **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


ROPE_LLAMA3 = rope(500000.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
GEMMA3_ROPE = dict(full_attention=rope(1000000.0), sliding_attention=rope())
GEMMA3_LAYERS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]


@dataclass
class Small:
    cls: type
    config: object
    seed: int  # of the weights
    prompts: int = 1
    complete: bool = False  # every layer's hook_result, and only bit-equal tensors left out
    local: list = field(default_factory=list)  # layers that see only the last WINDOW positions


ALL = list(range(LAYERS))
MODELS = dict(
    gpt2=Small(T.GPT2LMHeadModel, T.GPT2Config(**GPT2), 1000, 2, True),
    gpt2_scale_by_layer=Small(T.GPT2LMHeadModel, T.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True), 1001, 1, True),
    neox_parallel=Small(T.GPTNeoXForCausalLM, T.GPTNeoXConfig(**NEOX, use_parallel_residual=True, rope_parameters=rope(partial_rotary_factor=0.25)), 1002),
    neox_serial=Small(T.GPTNeoXForCausalLM, T.GPTNeoXConfig(**NEOX, use_parallel_residual=False, rope_parameters=rope(partial_rotary_factor=1.0)), 1003),
    llama=Small(T.LlamaForCausalLM, T.LlamaConfig(**LLAMA, rope_parameters=rope()), 1004, 2, True),
    llama3_rope=Small(T.LlamaForCausalLM, T.LlamaConfig(**LLAMA, rope_parameters=ROPE_LLAMA3), 1005, 1, True),
    mistral_sliding=Small(T.MistralForCausalLM, T.MistralConfig(**LLAMA, sliding_window=WINDOW, head_dim=16, rope_parameters=rope()), 1006, local=ALL),
    mistral=Small(T.MistralForCausalLM, T.MistralConfig(**LLAMA, sliding_window=None, head_dim=16, rope_parameters=rope(1000000.0)), 1007),
    qwen2=Small(T.Qwen2ForCausalLM, T.Qwen2Config(**{**LLAMA, "tie_word_embeddings": True}, use_sliding_window=False, rope_parameters=rope(1000000.0)), 1008),
    qwen3=Small(T.Qwen3ForCausalLM, T.Qwen3Config(**LLAMA, head_dim=32, use_sliding_window=False, rope_parameters=rope(1000000.0)), 1009),
    gemma1=Small(T.GemmaForCausalLM, T.GemmaConfig(**{**GEMMA, "num_key_value_heads": 1}, rope_parameters=rope()), 1010),
    gemma2=Small(T.Gemma2ForCausalLM, T.Gemma2Config(
        **{**GEMMA, "num_hidden_layers": 4}, sliding_window=WINDOW, query_pre_attn_scalar=32, attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
        layer_types=["sliding_attention", "full_attention"] * 2, rope_parameters=rope()), 1011, local=[0, 2]),
    gemma3=Small(T.Gemma3ForCausalLM, T.Gemma3TextConfig(
        **{**GEMMA, "num_hidden_layers": 4, "num_key_value_heads": 1}, sliding_window=WINDOW, query_pre_attn_scalar=32, layer_types=GEMMA3_LAYERS,
        rope_parameters=GEMMA3_ROPE), 1012, local=[0, 1, 3]),
    gpt_neo=Small(T.GPTNeoForCausalLM, T.GPTNeoConfig(
        vocab_size=VOCAB, max_position_embeddings=CTX, hidden_size=D_MODEL, num_layers=LAYERS, attention_types=[[["global", "local"], 1], [["global"], 1]],
        num_heads=HEADS, window_size=WINDOW, **SPECIAL), 1013, local=[1]),
    gptj=Small(T.GPTJForCausalLM, T.GPTJConfig(**GPT2, rotary_dim=8, tie_word_embeddings=False), 1014),
    phi3=Small(T.Phi3ForCausalLM, T.Phi3Config(**LLAMA, sliding_window=WINDOW, rope_parameters=rope()), 1015, local=ALL),
    phi3_partial=Small(T.Phi3ForCausalLM, T.Phi3Config(**LLAMA, rope_parameters=rope(partial_rotary_factor=0.5)), 1016),
    olmo2=Small(T.Olmo2ForCausalLM, T.Olmo2Config(**{**LLAMA, "num_key_value_heads": HEADS}, rope_parameters=rope(500000.0)), 1017),
)
tokens_rng = torch.Generator().manual_seed(99)
TOKENS = torch.cat([torch.ones(2, 1, dtype=torch.long), torch.randint(3, VOCAB, (2, SEQ - 1), generator=tokens_rng)], 1)


def fill(model, seed, gemma):
    """Weights large enough that attention, norms and biases all matter. Gemma's norms store gain - 1, and its embedding is multiplied by sqrt(d)."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.named_parameters()):
        noise = torch.randn(tensor.shape, generator=rng)
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor.copy_((0.0 if gemma else 1.0) + 0.2 * noise)
        elif name.endswith("bias"):
            tensor.copy_(0.1 * noise)
        elif "embed" in name or "wte" in name or "wpe" in name:
            tensor.copy_(noise * (0.3 if not gemma else 0.3 / D_MODEL**0.5 * 2))
        else:
            unscaled = "attn.attention.q_proj" in name or "attn.attention.k_proj" in name  # GPT-Neo does not divide scores by sqrt(d_head)
            tensor.copy_(noise * (0.8 if unscaled else 1.6) / max(tensor.shape) ** 0.5)
    model.tie_weights()


def save_model(name, folder):
    small = MODELS[name]
    shutil.rmtree(folder, ignore_errors=True)
    small.config._attn_implementation = "eager"
    model = small.cls(small.config).eval()
    fill(model, small.seed, "gemma" in name)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if small.config.model_type == "gpt2":  # TransformerLens reads the hub's own key
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "n_ctx": small.config.n_positions}, indent=2) + "\n")
    return open_model(folder)


def open_model(folder):
    return T.AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation="eager").eval()


def base_of(hf):
    """(decoder layers, final norm) of a transformers model."""
    base = next(getattr(hf, n) for n in ("transformer", "gpt_neox", "model") if hasattr(hf, n))
    layers = base.h if hasattr(base, "h") else base.layers
    return layers, next(getattr(base, n) for n in ("ln_f", "final_layer_norm", "norm") if hasattr(base, n))


def hugging_face(hf, tokens):
    """Residuals, final norm, logits and loss by forward hooks on the plain model."""
    layers, norm = base_of(hf)
    out, handles = {}, []
    for i, layer in enumerate(layers):
        def hook(_, positional, named, result, i=i):
            if i == 0:
                out["hf.resid_pre.0"] = (positional[0] if positional else named["hidden_states"]).clone()
            out[f"hf.resid_post.{i}"] = (result[0] if isinstance(result, tuple) else result).clone()
        handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    handles.append(norm.register_forward_hook(lambda _, a, r: out.update({"hf.final_norm": r.clone()})))
    logits = hf(tokens).logits
    for handle in handles:
        handle.remove()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return {**out, "hf.logits": logits, "hf.loss": loss.reshape(1)}


def rms_config(c, **more):
    """TransformerLens configurations of the families for which it has only tables of the published models."""
    return dict(d_model=c.hidden_size, d_head=getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads, n_heads=c.num_attention_heads,
                d_mlp=c.intermediate_size, n_layers=c.num_hidden_layers, n_ctx=CTX, eps=c.rms_norm_eps, d_vocab=c.vocab_size, initializer_range=0.02,
                normalization_type="RMS", positional_embedding_type="rotary", use_attn_scale=True, gated_mlp=True, final_rms=True,
                original_architecture=c.architectures[0], device="cpu", dtype=torch.float32, **more)


def gemma_config(c):
    d = rms_config(c, act_fn="gelu_pytorch_tanh", n_key_value_heads=c.num_key_value_heads, rotary_dim=c.head_dim)
    rotary, v2, v3 = c.rope_parameters, c.model_type == "gemma2", c.model_type.startswith("gemma3")
    if v2 or v3:
        d |= dict(window_size=c.sliding_window, use_local_attn=True, use_normalization_before_and_after=True,
                  attn_types=["local" if k == "sliding_attention" else "global" for k in c.layer_types])
    if v2:
        d |= dict(attn_scores_soft_cap=c.attn_logit_softcapping, output_logits_soft_cap=c.final_logit_softcapping)
    if v3:
        d |= dict(rotary_base=int(rotary["full_attention"]["rope_theta"]), rotary_base_local=int(rotary["sliding_attention"]["rope_theta"]), use_qk_norm=True)
    else:
        d |= dict(rotary_base=rotary["rope_theta"])
    return d


def hooked(folder, hf, processing, cls=HookedTransformer):
    """The model in TransformerLens, processed as `from_pretrained` would: RMS families are not centred, post-norm ones not folded, and the unembedding
    stays where logits are soft-capped."""
    c, processing = hf.config, dict(processing)
    if c.model_type.startswith("gemma"):
        d, convert = gemma_config(c), convert_gemma_weights
        processing |= dict(center_writing_weights=False)
        if c.model_type == "gemma2":
            processing |= dict(center_unembed=False)
    elif c.model_type == "olmo2":
        d, convert = rms_config(c, act_fn="silu", rotary_base=c.rope_parameters["rope_theta"]), convert_olmo2_weights
        processing |= dict(fold_ln=False, center_writing_weights=False)
    else:
        partial = (c.rope_parameters or {}).get("partial_rotary_factor", 1.0) if c.model_type == "phi3" else 1.0
        adjust = (lambda cfg: setattr(cfg, "rotary_dim", int(cfg.d_head * partial))) if partial < 1.0 else None
        return tl_from_local(folder, processing, hf_model=hf, adjust=adjust, cls=cls), processing
    if processing["fold_ln"]:
        d["normalization_type"] = "RMSPre"
    cfg = HookedTransformerConfig.from_dict(d)
    model = cls(cfg, None, move_to_device=False)
    model.load_and_process_state_dict(convert(hf, cfg), refactor_factored_attn_matrices=False, **processing)
    return model.eval(), processing
