"""The cache of crates/pretrained and that of Python's huggingface_hub are one: what either wrote, the other finds. No network.

    SAESCOPE_PYTHON=python cargo test --release --workspace --test hub -- --ignored   runs this on a server of its own, or by hand:
    python tools/checks/check_cache.py read CACHE REPO COMMIT FILE...     files that crates/pretrained wrote, found by huggingface_hub
    python tools/checks/check_cache.py write CACHE ENDPOINT REPO FILE...  files that huggingface_hub downloads from a local server, for crates/pretrained
"""
import os
import sys

if __name__ == "__main__":
    mode, cache, *rest = sys.argv[1:]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if mode == "read":
        os.environ["HF_HUB_OFFLINE"] = "1"
        from huggingface_hub import hf_hub_download, scan_cache_dir

        repo, commit, *files = rest
        for file in files:
            for revision in ("main", commit):
                path = hf_hub_download(repo, file, revision=revision, cache_dir=cache, local_files_only=True)
                assert f"/snapshots/{commit}/" in path and os.path.getsize(path) > 0, path
        info = scan_cache_dir(cache)
        assert not info.warnings, info.warnings
        assert [found.repo_id for found in info.repos] == [repo], info.repos
    elif mode == "write":
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        endpoint, repo, *files = rest
        from huggingface_hub import hf_hub_download

        for file in files:
            print(hf_hub_download(repo, file, cache_dir=cache, endpoint=endpoint))
    else:
        sys.exit(__doc__)
