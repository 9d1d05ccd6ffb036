"""Leaky ReLU in NumPy and float64, written from the formula and not from the code.

f(x) = x for x > 0, alpha * x otherwise. df/dx = 1 for x > 0, alpha otherwise.
dL/dalpha = sum of upstream * x over every x that is not > 0, over the axes that share the slope.
"""

import numpy as np


def value(x, alpha):
    x, alpha = np.float64(x), np.float64(alpha)
    y = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        slope = np.broadcast_to(alpha, x.shape)[index]
        y[index] = x[index] if x[index] > 0 else slope * x[index]
    return y


def dx(x, alpha, upstream):
    x, upstream = np.float64(x), np.float64(upstream)
    return upstream * np.where(x > 0, 1.0, np.broadcast_to(np.float64(alpha), x.shape))


def dalpha(x, alpha, upstream):
    x, upstream, alpha = np.float64(x), np.float64(upstream), np.float64(alpha)
    terms = np.where(x > 0, 0.0, upstream * x)
    total = np.zeros(alpha.shape)
    lead = x.ndim - alpha.ndim
    for index in np.ndindex(x.shape):
        mine = tuple(0 if n == 1 else i for i, n in zip(index[lead:], alpha.shape, strict=True))
        total[mine] += terms[index]
    return total


def batch_norm(z, gamma, beta, alpha, upstream, *, axis, epsilon):
    """Batch normalisation and leaky ReLU of a batch, by the formulas of Ioffe and Szegedy (2015).

    gamma, beta and alpha have one value for each channel, and so have the results but y and dz.
    """
    z, upstream = (np.moveaxis(np.float64(each), axis, -1) for each in (z, upstream))
    shape, channels = z.shape, z.shape[-1]
    z, upstream = z.reshape(-1, channels), upstream.reshape(-1, channels)
    mean = z.mean(0)
    variance = ((z - mean) ** 2).mean(0)
    sigma = np.sqrt(variance + epsilon)
    xhat = (z - mean) / sigma
    u = gamma * xhat + beta
    y = np.where(u > 0, u, alpha * u)
    du = np.where(u > 0, 1, alpha) * upstream
    dxhat = du * gamma
    dvariance = (dxhat * (z - mean)).sum(0) * -0.5 / sigma**3
    dmean = -(dxhat / sigma).sum(0) + dvariance * (-2 * (z - mean)).mean(0)
    dz = dxhat / sigma + dvariance * 2 * (z - mean) / len(z) + dmean / len(z)
    results = {
        "mean": mean,
        "variance": variance,
        "dgamma": (du * xhat).sum(0),
        "dbeta": du.sum(0),
        "dalpha": np.where(u > 0, 0, upstream * u).sum(0),
    }
    for name, each in {"y": y, "dz": dz}.items():
        results[name] = np.moveaxis(each.reshape(shape), -1, axis)
    return results
