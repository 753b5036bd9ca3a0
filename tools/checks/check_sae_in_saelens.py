"""Shows that SAELens itself opens the folders that sae-core saves, and computes the same with them.

    cargo run --release --example resave -- crates/sae-core/tests/golden DIR
    python tools/checks/check_sae_in_saelens.py DIR

Prints the largest error over the rms of SAELens' values, and fails above 1e-5 or where other features fire.
"""

import argparse
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import sae_lens as S
import torch
from safetensors.torch import load_file

torch.set_grad_enabled(False)
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
args = parser.parse_args()


def error(found, expected):
    return ((found - expected).abs().max() / expected.pow(2).mean().sqrt()).item()


worst, count = 0.0, 0
for folder in sorted(p for p in args.folder.iterdir() if p.is_dir()):
    ours = load_file(str(folder / "ours.safetensors"))
    sae = S.SAE.load_from_disk(str(folder))
    acts, out = sae.encode(ours["x"]), sae(ours["x"])
    errors = error(ours["encode"], acts), error(ours["forward"], out)
    same = torch.equal(ours["encode"] > 0, acts > 0)
    print(f"{folder.name:48} {type(sae).__name__:12} encode {errors[0]:.1e} forward {errors[1]:.1e} {'' if same else 'OTHER FEATURES'}")
    worst, count = max(worst, *errors, 0.0 if same else 1.0), count + 1
print(f"{count} folders, largest error {worst:.1e} of the rms")
sys.exit(count == 0 or worst > 1e-5)
