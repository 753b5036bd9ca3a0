"""The table of published SAEs, from the data of the installed sae-lens package.

    python tools/assets/make_registry.py --out crates/pretrained/data

Writes OUT/releases.tsv.gz (one line per SAE, under one line per release) and OUT/summary.tsv (counts, for tests and for reading
differences). What the lines hold is said in OUT/README.md. Hooks and sizes that the package's data do not give are derived where a
name implies them: by the package's own configuration functions where these need no file, else by the rules below.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import yaml
from huggingface_hub.utils import EntryNotFoundError
from sae_lens.loading import pretrained_sae_loaders as loaders

DIALECTS = {
    None: "saelens", "connor_rob_hook_z": "connor_rob", "gemma_2": "gemma_scope", "gemma_2_transcoder": "gemma_scope",
    "gemma_3": "gemma_scope_2", "dictionary_learning_1": "dictionary_learning", "sparsify": "sparsify", "llama_scope": "llama_scope",
    "llama_scope_r1_distill": "llama_scope_r1", "deepseek_r1": "deepseek_r1", "qwen_scope": "qwen_scope", "goodfire": "goodfire",
    "mwhanna_transcoder": "mwhanna", "mntss_clt_layer_transcoder": "clt", "temporal": "temporal"}
BY_NAME_ALONE = {"gemma_2", "gemma_2_transcoder", "gemma_3", "deepseek_r1", "qwen_scope", "goodfire"}
WIDTHS = {"4k": 4096, "16k": 16384, "32k": 32768, "65k": 65536, "131k": 131072, "262k": 262144, "524k": 524288, "1m": 1048576}
SUBLAYERS = {"a": "hook_attn_out", "m": "hook_mlp_out", "r": "hook_resid_post"}
COLUMNS = ("sae_id", "path", "hook", "hook_out", "d_in", "d_sae", "l0", "variance_explained", "norm_scaling_factor", "neuronpedia")
RELEASE = ("release", "repo", "dialect", "model", "saes", "config_overrides")


def missing(*_, **__):
    raise EntryNotFoundError("offline")


def by_package(loader, release, path):
    """What SAELens derives from the names; sizes it would fetch are 0."""
    shapes = lambda *_: dict(w_enc=[0, 0], w_dec=[0, 0])
    with mock.patch.object(loaders, "hf_hub_download", missing), mock.patch.object(loaders, "get_safetensors_tensor_shapes", shapes):
        made = loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS[loader](release["repo_id"], path, "cpu", False, None)
    return {ours: made.get(theirs) or "" for ours, theirs in (
        ("hook", "hook_name"), ("hook_out", "hook_name_out"), ("d_in", "d_in"), ("d_sae", "d_sae"))}


def hook_of(loader, sae_id, path):
    """The hook in an id or a path, as SAELens derives it or as the publisher names it; empty if neither says."""
    if loader == "mwhanna_transcoder":
        layer = re.fullmatch(r"layer_(\d+)\.safetensors", path)[1]
        return f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"
    if loader in ("llama_scope", "llama_scope_r1_distill"):
        layer, sublayer = re.match(r"l(\d+)([amr])_", sae_id).groups()
        return f"blocks.{layer}.{SUBLAYERS[sublayer]}", ""
    if loader == "connor_rob_hook_z":
        return sae_id.replace(".hook_z", ".attn.hook_z"), ""
    if loader == "dictionary_learning_1":
        layer = re.search(r"resid_post_layer_(\d+)", path)[1]
        return f"blocks.{layer}.hook_resid_post", ""
    known = re.match(r"blocks\.\d+\.(hook_resid_(pre|mid|post)|hook_mlp_out|hook_attn_out|attn\.hook_z)(?=$|_\d+$)", sae_id)
    return (known[0] if known else ""), ""


def d_sae_of(loader, release, repo, sae_id, path):
    text = f"{release} {repo} {sae_id} {path}"
    for pattern, width in (
        (r"width_(\d+[km])(?![0-9a-z])", lambda found: WIDTHS[found]), (r"width-2pow(\d+)", lambda found: 1 << int(found)),
        (r"-w-(\d+)k-", lambda found: int(found) * 1024), (r"_ds(\d+)_", int), (r"-v5-(32|128)k", lambda found: int(found) * 1024),
        (r"hook_(?:resid_(?:pre|post)|mlp_out)_(\d{3,6})(?!\d)", int)):
        if found := re.search(pattern, text):
            return width(found[1])
    if loader == "llama_scope":
        return 4096 * int(re.search(r"_(8|32)x", sae_id)[1])
    return ""


def row(loader, name, release, sae):
    sae_id, path = sae["id"], str(sae["path"])
    made = dict(sae_id=sae_id, path="=" if path == sae_id else path)
    if loader in BY_NAME_ALONE:
        made |= by_package(loader, release, path)
    else:
        made["hook"], made["hook_out"] = hook_of(loader, sae_id, path)
        made["hook"] = (release.get("config_overrides") or {}).get("hook_name", made["hook"])
    made["d_sae"] = made.get("d_sae") or d_sae_of(loader, name, release["repo_id"], sae_id, path)
    made |= {key: sae[key] for key in ("l0", "variance_explained", "norm_scaling_factor", "neuronpedia") if sae.get(key) is not None}
    return made


def line(values):
    texts = [repr(value) if isinstance(value, float) else str(value) for value in values]
    assert not any(c in text for text in texts for c in "\t\n\r"), texts
    return "\t".join(texts).rstrip("\t") + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    source = Path(loaders.__file__).parent.parent / "pretrained_saes.yaml"
    data = yaml.load(source.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    text = [f"#saescope-registry\t1\tsae-lens {version('sae-lens')}\n", line(("#>", *RELEASE)), line(("#", *COLUMNS))]
    releases, dialects, filled = [], Counter(), Counter()
    for name, release in sorted(data.items()):
        loader, saes = release.get("conversion_func"), release["saes"]
        assert len({sae["id"] for sae in saes}) == len(saes), f"{name} names an SAE twice"
        overrides = release.get("config_overrides")
        text.append(line((">", name, release["repo_id"], DIALECTS[loader], release["model"], len(saes),
                          json.dumps(overrides, sort_keys=True) if overrides else "")))
        for sae in saes:
            made = row(loader, name, release, sae)
            filled.update(key for key in COLUMNS if made.get(key, "") != "")
            text.append(line(made.get(column, "") for column in COLUMNS))
        dialects[DIALECTS[loader]] += len(saes)
        releases.append(("release", name, len(saes)))
    total = sum(dialects.values())
    summary = [("sae-lens", version("sae-lens")), ("releases", len(releases)), ("saes", total)]
    summary += [("dialect", *item) for item in sorted(dialects.items())] + [("column", key, filled[key]) for key in COLUMNS] + releases
    out.mkdir(parents=True, exist_ok=True)
    plain = "".join(text).encode()
    (out / "releases.tsv.gz").write_bytes(gzip.compress(plain, 9, mtime=0))
    (out / "summary.tsv").write_text("".join(line(item) for item in summary))
    print(f"{len(releases)} releases, {total} SAEs, {len(plain)} bytes, {(out / 'releases.tsv.gz').stat().st_size} compressed")


if __name__ == "__main__":
    main()
