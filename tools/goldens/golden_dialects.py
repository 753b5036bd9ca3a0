"""Small SAEs in every file format that SAEs are published in, each with what its own tool computes from it.

    python tools/goldens/golden_dialects.py --lib LIB --out crates/sae-core/tests/golden/dialects [NAME ...]

LIB is a folder made by `pip install --no-deps --target LIB dictionary-learning==0.1.0 eai-sparsify==1.3.3` (their other
dependencies are not needed for this). Writes OUT/NAME/{files/.., expected.safetensors, meta.json} for the given names
(all without any); README.md there says what they hold. The dialects themselves are in the modules dialect_*.py.
Weights come from seeds; those that dictionary_learning trains differ in the last bits from machine to machine.
"""

import argparse
import os
import shutil
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import dialect_formulas
import dialect_hub
import dialect_native
import dialect_tools
import torch
from dialect_common import Fixture

torch.set_grad_enabled(False)
torch.set_num_threads(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    makers = {}
    for module in (dialect_tools, dialect_native, dialect_hub, dialect_formulas):
        makers.update(module.fixtures(args.lib))
    names = args.names or list(makers)
    if unknown := set(names) - set(makers):
        parser.error(f"unknown names {sorted(unknown)}; there are {sorted(makers)}")
    for name in names:
        shutil.rmtree(args.out / name, ignore_errors=True)
        fixture = Fixture(args.out / name)
        makers[name](fixture)
        fixture.finish()
    print(f"{len(names)} fixtures written to {args.out}")


if __name__ == "__main__":
    main()
