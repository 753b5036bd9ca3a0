#!/usr/bin/env python3
"""crates/feature-analysis/tests/golden/pca.safetensors: scikit-learn's PCA (1.9.1, svd_solver="full") on two small data sets.

`gpt2.*`  the notebook's cell 27 on a randomly initialised GPT-2 small and a random SAE: reconstructions from 100 features at the 65
          positions where one of them fires; copied from the `pca.*` tensors of PROCESSED (made by golden_gpt2.py; sklearn fitted f32).
`tall.*`  200 x 24 Gaussian rows with column scales 1/j and an offset of 3, fitted in f64, all 24 components.

usage: python tools/goldens/golden_pca.py PROCESSED OUT     needs numpy, scikit-learn, safetensors
"""
import sys
import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

processed, out = sys.argv[1:]
t = {"gpt2." + k[4:].rstrip("_"): v for k, v in load_file(processed).items() if k.startswith("pca.") and k != "pca.rows"}
rng = np.random.default_rng(7)
x = (rng.standard_normal((200, 24)) / np.arange(1, 25) + 3).astype(np.float32)
pca = PCA(n_components=24, svd_solver="full")
embedding = pca.fit_transform(x.astype(np.float64))
t["tall.input"], t["tall.embedding"] = x, embedding.astype(np.float32)
for k in ("components_", "mean_", "explained_variance_", "explained_variance_ratio_", "singular_values_"):
    t["tall." + k.rstrip("_")] = np.ascontiguousarray(getattr(pca, k)).astype(np.float32)
save_file({k: np.ascontiguousarray(v) for k, v in t.items()}, out)
