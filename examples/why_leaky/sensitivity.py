"""Does the slope need tuning? Accuracy on handwritten digits by slope, and by threshold.

    python examples/why_leaky/sensitivity.py [--seeds 10] [--epochs 40]

Nets with four hidden layers of 32 units are trained on the digits of scikit-learn, with leaky ReLU
of slopes from 0 to 1, and with a thresholded ReLU (x where x > theta, else 0) of thresholds from 0
to 3. Seeds, data and optimizer are the same; all nets of a sweep are trained at once, as one array.
The intervals are 95 % intervals of the mean over seeds. The script writes `sensitivity.png`.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from pictures import BLUE, RED, options, panels, save
from scipy.stats import t as student
from tqdm import tqdm

from tf_leaky import leaky_relu

sys.path.append(str(Path(__file__).parents[1]))
from digits import load_data

SIZES = (64, 32, 32, 32, 32, 10)
ALPHAS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
USUAL = (0.01, 0.03, 0.1, 0.2, 0.3)  # usual slopes
THETAS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
ACTIVATIONS = {
    "alpha": leaky_relu,
    "theta": lambda x, theta: tf.where(x > theta, x, tf.zeros([], x.dtype)),
}


def accuracies(kind, parameters, seeds, epochs):
    """Returns the test accuracy of a net for each parameter and seed."""
    (x, y), (x_test, y_test) = load_data()
    x, x_test = x.reshape(-1, 64), x_test.reshape(-1, 64)
    nets = len(parameters) * seeds
    parameter = tf.constant(np.repeat(parameters, seeds).reshape(-1, 1, 1), tf.float32)
    weights, biases = [], []
    for layer, (i, o) in enumerate(itertools.pairwise(SIZES)):
        own = tf.random.stateless_normal((seeds, i, o), (layer, 0)) * (2 / i) ** 0.5
        weights.append(tf.Variable(tf.tile(own, (len(parameters), 1, 1))))  # the same for each
        biases.append(tf.Variable(tf.zeros((nets, 1, o))))
    variables = [*weights, *biases]
    optimizer = tf.keras.optimizers.Adam(3e-3)
    optimizer.build(variables)
    activate = ACTIVATIONS[kind]

    def call(x):
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = activate(x @ weight + bias, parameter)
        return x @ weights[-1] + biases[-1]

    @tf.function(jit_compile=True)
    def gradients(x, y):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.broadcast_to(y, (nets, y.shape[0])), call(x)
            )
            loss = tf.reduce_sum(tf.reduce_mean(losses, 1))  # each net independently
        return tape.gradient(loss, variables)

    @tf.function
    def step(x, y):
        optimizer.apply_gradients(zip(gradients(x, y), variables, strict=True))

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0)
    for _ in tqdm(range(epochs), desc=f"sweep of {kind}"):
        for batch in data.batch(64, drop_remainder=True):
            step(*batch)
    right = tf.argmax(call(tf.constant(x_test)), -1).numpy() == y_test
    return right.mean(1).reshape(len(parameters), seeds)


def interval(values):
    """Returns half of the 95 % interval of the mean, from Student's t."""
    count = values.shape[1]
    return student.ppf(0.975, count - 1) * values.std(1, ddof=1) / count**0.5


def draw(found, path):
    """Draws both sweeps with their intervals."""
    figure, axes = panels("at", height=3.2, sharey=True)
    titles = {"alpha": "Leaky ReLU, by slope", "theta": "ReLU, by threshold"}
    for ax, (kind, (parameters, values)), colour in zip(
        axes.values(), found.items(), (BLUE, RED), strict=True
    ):
        mean, half = values.mean(1), interval(values)
        ax.plot(parameters, mean, ".-", color=colour)
        ax.fill_between(parameters, mean - half, mean + half, color=colour, alpha=0.25)
        ax.set(title=titles[kind], xlabel=kind)
    axes["a"].set_ylabel("accuracy, 95 % interval")
    save(figure, path)


def main():
    """Sweeps, prints results and whether the claims hold, and draws."""
    arguments = options(__doc__, seeds=10, epochs=40)
    sweeps = {"alpha": ALPHAS, "theta": THETAS}
    found = {
        kind: (sweep, accuracies(kind, sweep, arguments.seeds, arguments.epochs))
        for kind, sweep in sweeps.items()
    }
    print()
    for kind, (sweep, values) in found.items():
        for parameter, mean, half in zip(sweep, values.mean(1), interval(values), strict=True):
            print(f"  {kind} {parameter:<5} accuracy {mean:.4f} +- {half:.4f}")
    alphas, thetas = (values.mean(1) for _, values in found.values())
    usual = alphas[[ALPHAS.index(alpha) for alpha in USUAL]]
    claims = {
        "slopes from 0.01 to 0.3 are within 0.01 of each other": np.ptp(usual) <= 0.01,
        "the sweep of the slope varies less than that of the threshold": np.ptp(alphas)
        < np.ptp(thetas),
        "one of these slopes is better than ReLU by more than both intervals": (
            usual.max() - alphas[0] > interval(found["alpha"][1]).max() * 2
        ),
    }
    print(
        f"\n  from best to worst: usual slopes {np.ptp(usual):.4f}, all slopes "
        f"{np.ptp(alphas):.4f}, thresholds {np.ptp(thetas):.4f}"
    )
    for claim, holds in claims.items():
        print(f"  {'holds' if holds else 'not shown by these data'}: {claim}")
    draw(found, arguments.folder / "sensitivity.png")


if __name__ == "__main__":
    main()
