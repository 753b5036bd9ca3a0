"""What the generators of dialects share: the fixture's folder, weights from a seed, and SAELens' loaders on local files."""

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump

import torch
from huggingface_hub.utils import EntryNotFoundError
from safetensors import safe_open
from safetensors.torch import save_file

D_IN, D_SAE, TOKENS = 16, 48, 12
PACKAGES = ("torch", "numpy", "safetensors", "sae-lens")


class Fixture:
    """A folder: `files/` as they lie in a repository, what is expected of them, and the facts about both."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "files"
        self.root.mkdir(parents=True)
        self.expected, self.meta = {}, {}

    def path(self, name):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def describe(self, dialect, path, written_by, reference, **more):
        """`path` is the SAE's folder or file inside `files/`, as a registry would give it."""
        self.meta = dict(dialect=dialect, path=path, written_by=written_by, reference=reference, **more)

    def expect(self, **tensors):
        self.expected.update({name.replace("__", "."): t.detach().contiguous().clone() for name, t in tensors.items()})

    def finish(self):
        from importlib.metadata import version

        if self.expected:
            save_file(self.expected, self.folder / "expected.safetensors")
            acts = [t for name, t in self.expected.items() if name.split(".")[-1] == "acts"]
            self.meta["l0"] = round(float(torch.cat([(a != 0).float().sum(-1).flatten() for a in acts]).mean()), 3)
        self.meta["versions"] = {name: version(name) for name in PACKAGES} | self.meta.get("versions", {})
        dump(self.folder / "meta.json", self.meta)


def bind(make, *args, **more):
    """A maker that waits for its fixture."""
    return lambda fixture: make(fixture, *args, **more)


def inputs(seed=7, width=D_IN):
    return torch.randn(TOKENS, width, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.2


def weights(seed, d_in=D_IN, d_sae=D_SAE, d_out=None, **more):
    """Named tensors in SAELens' layout, of a size that leaves about a fifth of the features active."""
    d_out = d_out or d_in
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape, scale: torch.randn(*shape, generator=generator) * scale
    made = dict(
        W_enc=randn(d_in, d_sae, scale=d_in**-0.5), W_dec=randn(d_sae, d_out, scale=d_in**-0.5),
        b_enc=randn(d_sae, scale=0.3) - 0.7, b_dec=randn(d_out, scale=0.2))
    if more.get("threshold"):
        made["threshold"] = torch.rand(d_sae, generator=generator) * 0.8 + 0.05
    if more.get("skip"):
        made["W_skip"] = randn(d_out, d_in, scale=0.3 * d_in**-0.5)
    return made


@contextmanager
def local_hub(root, norm_scaling_factor=None):
    """SAELens' loaders, with the hub replaced by a folder."""
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes import sae as sae_module

    def download(repo_id, filename, subfolder=None, **_):
        path = root / (subfolder or "") / filename
        if not path.is_file():
            raise EntryNotFoundError(f"no {path}")
        return str(path)

    def shapes(repo_id, filename):
        with safe_open(root / filename, framework="pt") as f:
            return {name: f.get_slice(name).get_shape() for name in f.keys()}

    factor = lambda release, sae_id: norm_scaling_factor
    with mock.patch.object(loaders, "hf_hub_download", download), mock.patch.object(
        loaders, "get_safetensors_tensor_shapes", shapes
    ), mock.patch.object(sae_module, "get_norm_scaling_factor", factor), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield loaders


def open_in_saelens(fixture, loader, repo_id, path, overrides=None, norm_scaling_factor=None):
    """`SAE.from_pretrained` of SAELens on the fixture's files, and the configuration it made."""
    import sae_lens as S

    with local_hub(fixture.root, norm_scaling_factor) as loaders:
        convert = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader]

        def converter(cfg_overrides, **more):
            return convert(cfg_overrides={**cfg_overrides, **(overrides or {})}, **more)

        sae, _, _ = S.SAE.from_pretrained_with_cfg_and_sparsity(repo_id, path, converter=converter)
    return sae, sae.cfg.to_dict()


def relative_error(found, expected):
    return float((found - expected).abs().max() / expected.pow(2).mean().sqrt().clamp(min=1e-12))


def compare_with_saelens(fixture, loader, repo_id, path, x, acts, recons, **more):
    """Whether SAELens' loader agrees with the tool's own numbers; says so in `meta.json`, and why not."""
    try:
        sae, cfg = open_in_saelens(fixture, loader, repo_id, path, **more)
        fixture.meta["saelens"] = dict(
            loader=loader, acts_error=relative_error(sae.encode(x), acts), forward_error=relative_error(sae(x), recons), config=cfg)
    except Exception as error:
        fixture.meta["saelens"] = dict(loader=loader, fails=f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300])
