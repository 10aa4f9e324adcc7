"""The slow and readable truth that every solver is held against: plain loops and a general-purpose optimizer."""

import math

import numpy as np
from scipy.optimize import minimize


def divergence(x, v, beta):
    """d_beta(x | v) of one bin, straight from its definition."""
    if beta == 1:
        return v - x + (x * math.log(x / v) if x > 0 else 0.0)
    if beta == 0:
        return x / v - math.log(x / v) - 1
    return (x**beta + (beta - 1) * v**beta - beta * x * v ** (beta - 1)) / (beta * (beta - 1))


def model(h, W, background=None):
    """b + W h, bin by bin."""
    v = []
    for f in range(len(W)):
        total = 0.0 if background is None else float(background[f])
        for k in range(len(h)):
            total += float(W[f][k]) * float(h[k])
        v.append(total)
    return v


def reaches(f, W, background, support):
    """Whether anything can make the model of bin f positive."""
    atoms = [k for k in range(len(W[f])) if support is None or support[k]]
    return (background is not None and background[f] > 0) or any(W[f][k] > 0 for k in atoms)


def objective(x, h, W, beta, weights=None, background=None, l1=None, l2=None, support=None):
    """P(h) of one frame, NaN in x meaning missing; with the documented floors of the data and of the model."""
    observed = [f for f in range(len(x)) if not math.isnan(x[f]) and (weights is None or weights[f] > 0)]
    floor = 1e-15 * max((float(x[f]) for f in observed), default=0.0)
    total = 0.0
    for f, v in enumerate(model(h, W, background)):
        if f in observed:
            data = max(float(x[f]), floor) if beta < 1 else float(x[f])
            v = floor if beta <= 1 and data > 0 and not reaches(f, W, background, support) else v
            total += (1.0 if weights is None else weights[f]) * divergence(data, v, beta)
    for k in range(len(h)):
        total += 0.0 if l1 is None else l1[k] * h[k]
        total += 0.0 if l2 is None else 0.5 * l2[k] * h[k] ** 2
    return total


def gradient(x, h, W, beta, weights=None, background=None, l1=None, l2=None):
    """The gradient of :func:`objective`."""
    v = model(h, W, background)
    slopes = []
    for k in range(len(h)):
        slope = (0.0 if l1 is None else l1[k]) + (0.0 if l2 is None else l2[k] * h[k])
        for f in range(len(v)):
            weight = 1.0 if weights is None else weights[f]
            if weight > 0 and not math.isnan(x[f]) and W[f][k] > 0 and v[f] > 0:
                slope += weight * W[f][k] * (v[f] ** (beta - 1) - x[f] * v[f] ** (beta - 2))
        slopes.append(slope)
    return np.array(slopes)


def minimum(x, W, beta, start=None, support=None, **options):
    """Minimize P over h >= 0 with SciPy's L-BFGS-B, restarted until it stops improving; return h and P(h)."""
    n_components = len(W[0])
    floor = 1e-13 * max(float(np.nanmax(x)), 1e-300)
    allowed = np.ones(n_components, bool) if support is None else np.asarray(support)
    bounds = [(floor, None) if allowed[k] else (0.0, 0.0) for k in range(n_components)]
    h = np.full(n_components, np.nanmean(x) / max(np.mean(W) * n_components, 1e-300)) if start is None else start
    best = np.where(allowed, np.maximum(h, floor), 0.0)
    value = objective(x, best, W, beta, support=support, **options)
    for _ in range(20):
        found = minimize(
            lambda h: objective(x, h, W, beta, support=support, **options),
            best,
            jac=lambda h: gradient(x, h, W, beta, **options),
            bounds=bounds,
            method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 50000, "ftol": 1e-16, "gtol": 1e-14},
        )
        improved = value - found.fun
        if found.fun < value:
            best, value = found.x, found.fun
        if not improved > 1e-14 * abs(value):
            break
    return best, value


def kkt_residual(x, h, W, beta, l1=None, l2=None, **options):
    """The KKT residual as it is documented: free of every scale, for every component of h allowed."""
    push = gradient(np.where(np.isnan(x), np.nan, 0.0), h, W, beta, l1=l1, **options)
    slope = gradient(x, h, W, beta, l1=l1, l2=l2, **options)
    used = push > 0
    share = (h * push)[used] / max((h * push).max(), 1e-300)
    return np.abs(np.minimum(share, slope[used] / push[used])).max(initial=0.0)


def kkt(x, h, W, beta, **options):
    """The largest violation of the Karush-Kuhn-Tucker conditions, each beside the size of its own terms."""
    plus = gradient(np.where(np.isnan(x), np.nan, 0.0), h, W, beta, **options)
    slope = gradient(x, h, W, beta, **options)
    worst = 0.0
    for k in range(len(h)):
        if plus[k] > 0:
            worst = max(worst, abs(slope[k]) / plus[k] if h[k] > 0 else max(0.0, -slope[k] / plus[k]))
    return worst


def minimum_within(x, W, beta, start, upper, total, total_is_most=False, **options):
    """Minimize P over 0 <= h <= upper and a sum of (or up to) ``total`` with SciPy's SLSQP; return h and P(h)."""
    kind = "ineq" if total_is_most else "eq"
    sums = {"type": kind, "fun": lambda h: total - h.sum(), "jac": lambda h: -np.ones(len(h))}
    best, value = start, objective(x, start, W, beta, **options)
    for _ in range(5):
        found = minimize(
            lambda h: objective(x, h, W, beta, **options),
            best,
            jac=lambda h: gradient(x, h, W, beta, **options),
            bounds=[(0.0, None if np.isinf(bound) else bound) for bound in upper],
            constraints=[sums] if np.isfinite(total) else [],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-15},
        )
        if not found.fun < value or abs(min(total - found.x.sum(), 0.0)) > 1e-9 * total:
            break
        best, value = found.x, found.fun
    return best, value


def kkt_within(x, h, W, beta, upper, total, total_is_most=False, **options):
    """The largest violation of the Karush-Kuhn-Tucker conditions with limits, each beside the size of its own terms."""
    slope = gradient(x, h, W, beta, **options)
    size = gradient(np.where(np.isnan(x), np.nan, 0.0), h, W, beta, **options)
    is_binding = np.isfinite(total) and (not total_is_most or h.sum() > total * (1 - 1e-12))
    at_upper = h >= upper * (1 - 1e-12)
    multiplier, between = 0.0, (h > 0) & ~at_upper
    if is_binding and between.any():
        multiplier = -(h * slope)[between].sum() / h[between].sum()
    elif is_binding:  # any multiplier that no activation at a bound objects to
        lowest, highest = max(-slope[(h == 0) & (upper > 0)], default=-np.inf), min(-slope[h > 0], default=np.inf)
        multiplier = np.clip(0.0, lowest, highest) if lowest <= highest else (lowest + highest) / 2
    worst = max(0.0, -multiplier) if total_is_most else 0.0
    for k in range(len(h)):
        violation = slope[k] + multiplier
        if h[k] == 0:
            violation = min(violation, 0.0)
        if at_upper[k]:
            violation = max(violation, 0.0)
        if upper[k] > 0:
            worst = max(worst, abs(violation) / (size[k] if size[k] > 0 else size.max()))
    return worst
