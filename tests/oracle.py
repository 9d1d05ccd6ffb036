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
