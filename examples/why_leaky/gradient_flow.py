"""Gradients through 30 layers, for ReLU and leaky slopes, with and without He's gain for them.

    python examples/why_leaky/gradient_flow.py [--nets 20]

Weights are normal with variance gain**2 / inputs. He's gain for a slope a is sqrt(2 / (1 + a**2))
(He, Zhang, Ren, Sun, https://arxiv.org/abs/1502.01852, eq. 15). With it, the mean square of the
gradient stays the same from layer to layer. With ReLU's gain, sqrt(2), it grows by (1 + a**2) in
each layer. The script writes `gradient_flow.png`.
"""

import numpy as np
import tensorflow as tf
from pictures import BLUE, GREEN, GREY, PINK, RED, options, panels, save
from tqdm import tqdm

from tf_leaky import LeakyReLU

DEPTH, WIDTH, BATCH = 30, 256, 256
# Name: slope, whether it is trained, whether the gain accounts for it.
CASES = {
    "ReLU, gain of ReLU": (0.0, False, False),
    "slope 0.1, He's gain": (0.1, False, True),
    "slope 0.1, gain of ReLU": (0.1, False, False),
    "slope 0.25, He's gain": (0.25, False, True),
    "slope 0.25, gain of ReLU": (0.25, False, False),
    "trained from 0.25, He's gain": (0.25, True, True),
    "slope 0.5, He's gain": (0.5, False, True),
    "slope 0.5, gain of ReLU": (0.5, False, False),
}


def mean_squares(slope, trained, knows, nets, name):
    """Returns the mean square of dL/dx at each input, relative to the output's, `(nets, 30)`."""
    variance = 2 / (1 + slope**2) if knows else 2.0
    found = []
    for seed in tqdm(range(nets), desc=name):
        tf.keras.utils.set_random_seed(seed)
        initial = tf.keras.initializers.RandomNormal(stddev=(variance / WIDTH) ** 0.5, seed=seed)
        layers = []
        for _ in range(DEPTH):
            dense = tf.keras.layers.Dense(WIDTH, use_bias=False, kernel_initializer=initial)
            # An initializer with a seed gives the same numbers each time, in each layer.
            initial = tf.keras.initializers.RandomNormal(
                stddev=(variance / WIDTH) ** 0.5, seed=initial.seed + nets
            )
            layers += [dense, LeakyReLU(slope, trainable_alpha=trained)]
        x = tf.random.stateless_normal((BATCH, WIDTH), (seed, 1))
        upstream = tf.random.stateless_normal((BATCH, WIDTH), (seed, 2))
        with tf.GradientTape() as tape:
            tape.watch(x)
            points = [x]
            for dense, activation in zip(layers[::2], layers[1::2], strict=True):
                points.append(activation(dense(points[-1])))
        squares = [tf.reduce_mean(g**2) for g in tape.gradient(points[-1], points[:-1], upstream)]
        found.append(np.array(squares) / np.mean(upstream**2))
    return np.array(found)


def expected_growth(slope, knows):
    """Returns the factor by which one layer changes the mean square of the gradient."""
    return 1.0 if knows else 1 + slope**2


def draw(found, path):
    """Draws the mean squares from the last layer to the first, and the expected ones."""
    figure, axes = panels("g", height=5)
    ax = axes["g"]
    colours = (GREY, BLUE, BLUE, RED, RED, PINK, GREEN, GREEN)
    steps = np.arange(1, DEPTH + 1)
    for (name, squares), colour in zip(found.items(), colours, strict=True):
        slope, _, knows = CASES[name]
        middle = np.exp(np.log(squares).mean(0))[::-1]
        ax.plot(steps, middle, "-" if knows else "--", color=colour, label=name)
        ax.plot(steps, expected_growth(slope, knows) ** steps, ":", color=colour, alpha=0.6)
    ax.set(
        yscale="log",
        xlabel="layers from the output",
        ylabel="mean square, by that at the output",
        title="Gradients through 30 layers (dotted: as theory has it)",
    )
    figure.legend(loc="outside lower center", ncols=2)
    save(figure, path)


def main():
    """Measures, prints expected and measured values, and draws."""
    arguments = options(__doc__, nets=20)
    found = {name: mean_squares(*case, arguments.nets, name) for name, case in CASES.items()}
    print("\nmean square of the gradient after 30 layers, relative to the output's: geometric mean")
    print(f"  {'':30} expected      found   per layer: expected   found")
    for name, squares in found.items():
        slope, _, knows = CASES[name]
        growth = expected_growth(slope, knows)
        total = np.exp(np.log(squares[:, 0]).mean())
        each = total ** (1 / DEPTH)
        print(f"  {name:30} {growth**DEPTH:8.3g}   {total:8.3g} {growth:20.3f} {each:9.3f}")
    draw(found, arguments.folder / "gradient_flow.png")


if __name__ == "__main__":
    main()
