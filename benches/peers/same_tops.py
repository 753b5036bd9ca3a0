"""Whether torch and a census found the same strongest activations, feature by feature.

    python same_tops.py CENSUS.parquet TORCH.npz      (peer_times census f32 best 20 CENSUS.parquet; torch_times.py census --batches 20 --tops TORCH.npz)

Addresses are compared as sets, but for those within the tolerance of a feature's last activation, where rounding decides who is in.
"""

import sys

import numpy as np
import pyarrow.parquet

TOLERANCE = 1e-4  # of the rms of all activations compared
table = pyarrow.parquet.read_table(sys.argv[1], columns=["feature", "top"]).to_pylist()
torch = np.load(sys.argv[2])
scale = float(np.sqrt((torch["value"][torch["value"] > 0] ** 2).mean()))
entries = differing = near = 0
worst = 0.0
for line in table:
    f = line["feature"]
    ours = {(e["row"], e["pos"]): e["activation"] for e in line["top"]}
    theirs = {(r, p): v for v, r, p in zip(torch["value"][f], torch["row"][f], torch["pos"][f]) if v > 0}
    entries += len(ours)
    if len(ours) != len(theirs):
        print(f"feature {f}: {len(ours)} and {len(theirs)} activations")
    worst = max([worst, *(abs(ours[at] - theirs[at]) for at in ours.keys() & theirs.keys())])
    edge = min(ours.values(), default=0.0)
    for at in ours.keys() ^ theirs.keys():
        value = ours.get(at, theirs.get(at))
        if abs(value - edge) <= TOLERANCE * scale:
            near += 1
        else:
            differing += 1
            print(f"feature {f}: {at} with {value} is in one only")
print(f"{len(table)} features, {entries} activations: {differing} differ, {near} at a feature's edge; largest difference of a value {worst / scale:.1e} of the rms")
