"""The notebook's cells as functions, as written there (names updated where the installed versions demand it)."""

import pandas as pd
import torch


def flatten(lists):
    return [x for y in lists for x in y]


def token_frame(model, tokens, batch, len_prefix=5, len_suffix=3):
    """Cell 19. The suffix rule is the notebook's: it never shows the last token of a row."""
    last = tokens.shape[1] - 1
    rows = []
    for b, row in enumerate(tokens):
        strs = model.to_str_tokens(row)
        for p, current in enumerate(strs):
            prefix = "".join(strs[max(0, p - len_prefix) : p])
            suffix = "" if p == last else "".join(strs[p + 1 : min(last, p + 1 + len_suffix)])
            whole = "".join(strs[p + 1 : p + 1 + len_suffix])
            rows.append(dict(str_tokens=current, unique_token=f"{current}/{p}", context=f"{prefix}|{current}|{suffix}",
                             context_whole=f"{prefix}|{current}|{whole}", prompt=b, pos=p, label=f"{b}/{p}", batch=batch))
    return pd.DataFrame(rows)


def seed_loop(model, sae, batches, features):
    """Cells 20 and 26: the kept rows (any of the features fired), their activations, frames and reconstructions."""
    hook = sae.cfg.metadata.hook_name
    layer = int(hook.split(".")[1])
    frames, acts, recs, where = [], [], [], []
    for i, tokens in enumerate(batches):
        frame = token_frame(model, tokens, i)
        _, cache = model.run_with_cache(tokens, stop_at_layer=layer + 1, names_filter=[hook])
        fired_all = sae.encode(cache[hook]).flatten(0, 1)
        mask = fired_all[:, features].sum(-1) > 0
        rows = mask.nonzero().flatten()
        frames.append(frame.iloc[rows.numpy()])
        acts.append(fired_all[mask][:, features])
        recs.append(fired_all[mask][:, features] @ sae.W_dec[features])
        where.append(rows + i * tokens.numel())
    return pd.concat(frames), torch.cat(acts), torch.cat(recs), torch.cat(where)


def edge_rows(model, sae, batches, features, margin, threshold=None):
    """Rows where the pre-activation of one of `features` is within `margin` of where it starts to fire, both sides."""
    hook = sae.cfg.metadata.hook_name
    layer = int(hook.split(".")[1])
    edge = 0.0 if threshold is None else threshold[features]
    near = []
    for i, tokens in enumerate(batches):
        x = model.run_with_cache(tokens, stop_at_layer=layer + 1, names_filter=[hook])[1][hook].flatten(0, 1)
        pre = (x - sae.b_dec) @ sae.W_enc[:, features] + sae.b_enc[features]
        near.append((((pre - edge).abs() < margin).any(-1)).nonzero().flatten() + i * tokens.numel())
    return torch.cat(near)


def pca3(rows):
    """Cell 27, by sklearn's exact solver."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components=3, svd_solver="full")
    embedding = pca.fit_transform(rows.numpy())
    return pca, embedding
