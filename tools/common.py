"""What the scripts share (each puts this folder on `sys.path`): loading a local folder into TransformerLens, hashes, versions, JSON.

Nothing here, and nothing in the generators, reaches the network.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
warnings.filterwarnings("ignore")

PROCESSED = dict(fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True)
RAW = dict(fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False)
PACKAGES = ("torch", "transformers", "tokenizers", "transformer-lens", "sae-lens", "datasets", "numpy", "pandas",
            "scikit-learn", "safetensors")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def versions():
    from importlib.metadata import version

    return {name: version(name) for name in PACKAGES}


def dump(path, value, indent=1):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def tl_from_local(path, processing, dtype=None, tokenizer=None, cls=None, hf_model=None, adjust=None):
    """What `HookedTransformer.from_pretrained` does, for a local folder; `adjust` changes the configuration it reads.

    `from_pretrained` itself cannot: it resolves the name against its list of hub names before it looks at the disk,
    and fetches the hub's config even when `hf_model` is given. The family is guessed from the path's words first, so the
    folder is shown to it under a name without any.
    """
    import tempfile

    import torch
    from transformer_lens import HookedTransformer
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM

    dtype = dtype or torch.float32
    cls = cls or HookedTransformer
    if hf_model is None:
        hf_model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype)
    hf_cfg = hf_model.config.to_dict()
    with tempfile.TemporaryDirectory() as tmp:
        name = Path(tmp) / "m"
        name.symlink_to(Path(path).resolve())
        cfg = loading.get_pretrained_model_config(str(name), hf_cfg=hf_cfg, fold_ln=processing["fold_ln"], device="cpu", dtype=dtype)
        if adjust:
            adjust(cfg)
        state = loading.get_pretrained_state_dict(str(name), cfg, hf_model, dtype=dtype)
    if tokenizer is None:
        cfg.tokenizer_name = None  # or it tries to build one from the folder
    model = cls(cfg, tokenizer, move_to_device=False)
    model.load_and_process_state_dict(state, refactor_factored_attn_matrices=False, **processing)
    return model.eval()
