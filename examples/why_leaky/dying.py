"""Units die with ReLU, but not with leaky ReLU: nets that are born dead, and nets that die.

    python examples/why_leaky/dying.py [--nets 20000] [--trained 500] [--steps 3000]

1. Born dead: the share of ReLU nets, without biases and with one input and He's initial weights,
   that are constant before training, by depth and width. It is compared with Lu, Shin, Su and
   Karniadakis, "Dying ReLU and Initialization", https://arxiv.org/abs/1903.06733.
2. Collapsed: the share of nets of depth 10 and width 2 that are constant after training on |x|:
   with ReLU (over 90 % of 1000 nets in that paper), with slopes of 0.01, 0.1 and 0.25, and with a
   trained slope.

All nets of a kind are computed at once, as one array. It writes `dying.png`.
"""

import itertools

import numpy as np
import tensorflow as tf
from pictures import BLUE, GREEN, GREY, PINK, RED, options, panels, save
from tqdm import tqdm

from tf_leaky import leaky_relu

WIDTHS = (2, 3, 4, 5, 10)
PUBLISHED = {
    10: (0.880, 0.580, 0.298, 0.132, 0.0016),
    20: (0.994, 0.889, 0.627, 0.359, 0.007),
    50: (1.0, 0.998, 0.945, 0.750, 0.033),
}
DEPTH, WIDTH = 10, 2
SLOPES = {"ReLU": 0.0, "slope 0.01": 0.01, "slope 0.1": 0.1, "slope 0.25": 0.25, "trained": None}


def share_born_dead(depth, width, alpha, nets, rng):
    """Returns the share of constant nets. Without biases, the values at 1 and -1 decide."""
    h = np.array([[1.0], [-1.0]]) * np.ones((nets, 1, 1))
    for _ in range(depth - 1):  # the last layer is linear
        weights = rng.normal(size=(nets, h.shape[-1], width))
        h = leaky_relu(h @ weights, alpha).numpy()
        h /= np.maximum(abs(h).max((1, 2), keepdims=True), 1e-300)  # the scale doesn't matter
    return float((h == 0).all((1, 2)).mean())


def born_dead(nets, rng):
    """Returns the share by depth and width, with ReLU and with a slope of 0.01."""
    cells = [(depth, width) for depth in PUBLISHED for width in WIDTHS]
    found = {}
    for depth, width in tqdm(cells, desc="born dead"):
        found[depth, width] = [share_born_dead(depth, width, a, nets, rng) for a in (0.0, 0.01)]
    return found


def trained_nets(alpha, nets, steps, seed):
    """Trains nets on |x|, and returns their outputs at 64 points, `(nets, 64)`."""
    rng = tf.random.Generator.from_seed(seed)
    sizes = [1, *[WIDTH] * (DEPTH - 1), 1]
    pairs = list(itertools.pairwise(sizes))
    weights = [tf.Variable(rng.normal((nets, i, o)) * (2 / i) ** 0.5) for i, o in pairs]
    biases = [tf.Variable(tf.zeros((nets, 1, o))) for _, o in pairs]
    slopes = tf.Variable(tf.fill((nets, 1, 1), 0.25)) if alpha is None else None
    variables = [*weights, *biases, *([] if slopes is None else [slopes])]
    optimizer = tf.keras.optimizers.Adam(1e-3)
    optimizer.build(variables)

    def call(x):
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = x @ weight + bias
            if slopes is None:
                x = leaky_relu(x, alpha)
            else:
                x = leaky_relu(x, slopes, positive_alpha=True)
        return x @ weights[-1] + biases[-1]

    @tf.function(jit_compile=True)
    def gradients(x):
        with tf.GradientTape() as tape:
            # A sum over nets, so that each is trained independently.
            loss = tf.reduce_sum(tf.reduce_mean((call(x) - abs(x)) ** 2, (1, 2)))
        return tape.gradient(loss, variables)

    @tf.function
    def step():
        x = rng.uniform((nets, 64, 1), -(3**0.5), 3**0.5)
        optimizer.apply_gradients(zip(gradients(x), variables, strict=True))
        if slopes is not None:
            slopes.assign(tf.maximum(slopes, 1e-3))

    what = "trained slope" if alpha is None else f"slope {alpha}"
    for _ in tqdm(range(steps), desc=f"|x| with {what}"):
        step()
    places = tf.linspace(-(3**0.5), 3**0.5, 64)[:, tf.newaxis] * tf.ones((nets, 1, 1))
    return call(places)[..., 0].numpy()


def collapsed(answers):
    """Returns which nets are constant: their range is below a thousandth of that of |x|."""
    return np.ptp(answers, axis=1) < 1e-3 * 3**0.5


def draw(born, shares, answers, path):
    """Draws the shares of nets born dead and collapsed, and the outputs of nets."""
    figure, axes = panels("bb;cs", height=6)
    for depth, colour in zip(PUBLISHED, (BLUE, RED, GREEN), strict=True):
        found = [born[depth, width][0] for width in WIDTHS]
        axes["b"].plot(WIDTHS, found, color=colour, label=f"ReLU, depth {depth}")
        axes["b"].plot(WIDTHS, PUBLISHED[depth], "o", color=colour, fillstyle="none")
    leaky = [max(born[depth, width][1] for depth in PUBLISHED) for width in WIDTHS]
    axes["b"].plot(WIDTHS, leaky, "--", color=PINK, label="slope 0.01, any depth")
    axes["b"].set(xlabel="width", ylabel="share", title="Nets born dead (circles: published)")
    axes["b"].legend()
    axes["c"].barh(list(shares), list(shares.values()), color=[RED, *[BLUE] * 4])
    axes["c"].bar_label(axes["c"].containers[0], fmt="{:.0%}", padding=3)
    axes["c"].set(xlim=(0, 1.3), xlabel="share", title="Constant once trained")
    axes["c"].set_xticks([0, 0.5, 1])
    axes["c"].invert_yaxis()
    x = np.linspace(-(3**0.5), 3**0.5, 64)
    axes["s"].plot(x, abs(x), color=GREY, alpha=0.4, linewidth=5, label="|x|, the target")
    for name, colour in (("ReLU", RED), ("slope 0.1", BLUE)):
        axes["s"].plot(x, np.median(answers[name], 0), color=colour, label=name)
    axes["s"].set(xlabel="x", ylim=(0, 2.9), title="What the median net says")
    axes["s"].legend(loc="upper center")
    save(figure, path)


def main():
    """Counts dead nets, prints expected and measured shares, and draws."""
    arguments = options(__doc__, nets=20_000, trained=500, steps=3000)
    born = born_dead(arguments.nets, np.random.default_rng(0))
    answers = {
        name: trained_nets(alpha, arguments.trained, arguments.steps, seed=1)
        for name, alpha in SLOPES.items()
    }
    shares = {name: float(collapsed(each).mean()) for name, each in answers.items()}

    print("\nborn dead, share of nets   expected   found   with slope 0.01 (expected 0)")
    for depth, published in PUBLISHED.items():
        for width, expected in zip(WIDTHS, published, strict=True):
            relu, leaky = born[depth, width]
            print(
                f"  depth {depth}, width {width:2}       {expected:8.4f} {relu:9.4f} {leaky:9.4f}"
            )
    print(f"\nconstant after training on |x|, of {arguments.trained} nets")
    for name, share in shares.items():
        expected = "over 90 % in the paper" if name == "ReLU" else "fewer than with ReLU"
        error = np.mean((answers[name] - abs(np.linspace(-(3**0.5), 3**0.5, 64))) ** 2)
        print(f"  {name:12} {share:7.1%}   expected: {expected}; mean squared error {error:.3f}")
    draw(born, shares, answers, arguments.folder / "dying.png")


if __name__ == "__main__":
    main()
