"""Random problems for the contract tests, small enough for the naive truth."""

import numpy as np

#: One list of what a problem may have besides V and W; every solver test runs over it.
OPTIONS = {
    "plain": (),
    "weights": ("weights",),
    "weights per bin": ("weights_per_bin",),
    "missing": ("missing",),
    "background": ("background",),
    "background per bin": ("background_per_bin",),
    "l1": ("l1",),
    "l2": ("l2",),
    "support": ("support",),
    "penalties of each frame": ("l1_per_frame", "l2_per_frame"),
    "warm start": ("H_init",),
    "everything": ("weights", "missing", "background", "l1", "l2", "support", "H_init"),
}
#: What limits the activations may have.
LIMITS = (
    "upper",
    "upper of components",
    "upper of frames",
    "upper of zero",
    "total",
    "total far above",
    "total far below",
    "total of zero",
    "max_total",
    "max_total that is loose",
    "upper and total",
    "upper and max_total",
    "upper and the sum of it",
)
BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
CONVEX = tuple(beta for beta in BETAS if 1 <= beta <= 2)


def random_problem(seed, options, n_bins=9, n_components=5, n_frames=4, positive=False):
    """V, W and the keyword arguments of ``activations``; ``positive`` keeps zeros out of the data."""
    rng = np.random.default_rng(seed)
    W = rng.gamma(0.7, 1.0, (n_bins, n_components)) * (rng.random((n_bins, n_components)) < 0.8)
    W[rng.integers(n_bins, size=n_components), np.arange(n_components)] += 0.5
    H = rng.gamma(1.0, 2.0, (n_components, n_frames)) * (rng.random((n_components, n_frames)) < 0.6)
    V = (W @ H + 0.2) * rng.gamma(4.0, 0.25, (n_bins, n_frames))
    if positive:
        W = W + 0.01
    else:
        V = V * (rng.random(V.shape) < 0.9)
    keywords = {}
    if "weights" in options:
        keywords["weights"] = rng.gamma(2.0, 0.5, V.shape) * (rng.random(V.shape) < 0.9)
    if "weights_per_bin" in options:
        keywords["weights"] = rng.gamma(2.0, 0.5, n_bins)
    if "missing" in options:
        V[rng.random(V.shape) < 0.15] = np.nan
    if "background" in options:
        keywords["background"] = rng.gamma(1.0, 0.2, V.shape)
    if "background_per_bin" in options:
        keywords["background"] = rng.gamma(1.0, 0.2, n_bins)
    if "l1" in options:
        keywords["l1"] = rng.gamma(1.0, 0.3, n_components)
    if "l2" in options:
        keywords["l2"] = rng.gamma(1.0, 0.3, n_components) * (rng.random(n_components) < 0.7)
    if "l1_per_frame" in options:
        keywords["l1"] = rng.gamma(1.0, 0.3, (n_components, n_frames)) * (rng.random((n_components, n_frames)) < 0.7)
    if "l2_per_frame" in options:
        keywords["l2"] = rng.gamma(1.0, 0.3, (n_components, n_frames)) * (rng.random((n_components, n_frames)) < 0.7)
    if "support" in options:
        keywords["support"] = rng.random((n_components, n_frames)) < 0.7
        keywords["support"][0] = True
    if "H_init" in options:
        keywords["H_init"] = rng.gamma(1.0, 1.0, (n_components, n_frames)) * (
            rng.random((n_components, n_frames)) < 0.7
        )
    return V, W, keywords


def frame_of(t, V, keywords):
    """Frame t of a problem as the naive functions take it: the data, what shapes the objective, the support."""
    shape = {}
    for name in ("weights", "background"):
        if name in keywords:
            shape[name] = keywords[name] if keywords[name].ndim == 1 else keywords[name][:, t]
    for name in ("l1", "l2"):
        if name in keywords:
            shape[name] = keywords[name] if keywords[name].ndim == 1 else keywords[name][:, t]
    support = keywords["support"][:, t] if "support" in keywords else None
    return V[:, t], shape, support


def random_limits(seed, kind, usual, support=None):
    """Return the keyword arguments of limits of a kind, with a total for each frame.

    ``usual`` are activations (n_components, n_frames) that the limits are around: their sums are positive.
    """
    rng = np.random.default_rng(seed)
    largest, sums = usual.max(axis=0), usual.sum(axis=0)
    allowed = np.ones(usual.shape, bool) if support is None else support
    upper = rng.uniform(0.1, 1.2, usual.shape) * largest
    upper_of_components = np.where(rng.random(len(usual)) < 0.5, np.inf, upper.mean(axis=1))
    if kind == "upper":
        return {"upper": 0.5 * largest.mean()}
    if kind == "upper of components":
        return {"upper": upper_of_components}
    if kind == "upper of frames":
        return {"upper": np.where(rng.random(usual.shape) < 0.3, np.inf, upper)}
    if kind == "upper of zero":
        return {"upper": upper * (rng.random(usual.shape) < 0.5)}
    factors = {
        "total": rng.uniform(0.3, 2.0, len(sums)),
        "total far above": 1e3,
        "total far below": 1e-3,
        "total of zero": np.arange(len(sums)) % 2,
    }
    if kind in factors:
        return {"total": factors[kind] * sums}
    if kind == "max_total":
        return {"max_total": rng.uniform(0.3, 0.9, len(sums)) * sums}
    if kind == "max_total that is loose":
        return {"max_total": np.where(rng.random(len(sums)) < 0.5, np.inf, 10.0 * sums)}
    most = np.where(allowed, upper, 0.0).sum(axis=0)
    if kind == "upper and total":
        return {"upper": upper, "total": rng.uniform(0.05, 0.95, len(sums)) * most}
    if kind == "upper and max_total":
        return {"upper": upper, "max_total": rng.uniform(0.05, 1.2, len(sums)) * most}
    if kind == "upper and the sum of it":
        return {"upper": upper, "total": most}
    raise ValueError(kind)
