"""Which slopes a CNN learns, by depth, and how weight decay changes them.

    python examples/why_leaky/slopes.py [--seeds 3] [--epochs 15]

A CNN of five convolutions learns the digits of scikit-learn with AdamW, with one slope for each
layer or for each channel, all from 0.25: without weight decay, with decay of all variables, and
with decay of all but the slopes, which takes one line:

    optimizer.exclude_from_weight_decay(var_names=["alpha"])

He, Zhang, Ren and Sun (https://arxiv.org/abs/1502.01852) found slopes that fall with depth, and
advise against decay, which pulls slopes to 0. The script writes `slopes.png`.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from pictures import BLUE, GREEN, GREY, RED, options, panels, save
from tqdm import tqdm

from tf_leaky import LeakyReLU

sys.path.append(str(Path(__file__).parents[1]))
from digits import load_data

CHANNELS = (16, 16, 32, 32, 32)
DECAY, FIRST = 0.3, 0.25
DECAYS = ("no decay", "decay", "decay, slopes excluded")


def trained_slopes(axis, decay, seed, epochs):
    """Returns the slopes of each layer after training, and the accuracy on the test digits."""
    tf.keras.utils.set_random_seed(seed)
    layers = [tf.keras.Input((8, 8, 1))]
    for i, channels in enumerate(CHANNELS):
        layers.append(tf.keras.layers.Conv2D(channels, 3, 1 + i % 2, padding="same"))
        layers.append(LeakyReLU(FIRST, trainable_alpha=True, axis=axis))
    model = tf.keras.Sequential(
        [*layers, tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dense(10)]
    )
    optimizer = tf.keras.optimizers.AdamW(3e-3, 0.0 if decay == "no decay" else DECAY)
    if decay == "decay, slopes excluded":
        optimizer.exclude_from_weight_decay(var_names=["alpha"])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    (x, y), (x_test, y_test) = load_data()
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    slopes = [np.ravel(tf.convert_to_tensor(layer.alpha)) for layer in model.layers[1:-2:2]]
    return slopes, model.evaluate(x_test, y_test, verbose=0)[1]


def draw(found, path):
    """Draws each slope by depth, and their means."""
    figure, axes = panels("oc", height=4, sharey=True)
    depths = np.arange(1, len(CHANNELS) + 1)
    for ax, kind in zip(axes.values(), ("one slope", "per channel"), strict=True):
        for i, (decay, colour) in enumerate(zip(DECAYS, (BLUE, RED, GREEN), strict=True)):
            runs = [slopes for slopes, _ in found[kind, decay]]
            for slopes in runs:
                for depth, each in zip(depths, slopes, strict=True):
                    at = np.full(each.size, depth + 0.12 * (i - 1))
                    ax.plot(at, each, ".", color=colour, markersize=3, alpha=0.5)
            means = [np.mean([slopes[d - 1].mean() for slopes in runs]) for d in depths]
            ax.plot(depths, means, "-", color=colour, label=f"mean, {decay}")
        ax.axhline(FIRST, color=GREY, linestyle=":", label="where they began")
        ax.set(title=kind.capitalize(), xlabel="layer", xticks=depths)
    axes["o"].set_ylabel("slope")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, path)


def main():
    """Trains, prints results and whether the claims hold, and draws."""
    arguments = options(__doc__, seeds=3, epochs=15)
    axes = {"one slope": None, "per channel": -1}
    cases = [(kind, decay) for kind in axes for decay in DECAYS]
    found = {case: [] for case in cases}
    with tqdm(total=len(cases) * arguments.seeds, desc="nets") as bar:
        for kind, decay in cases:
            for seed in range(arguments.seeds):
                found[kind, decay].append(trained_slopes(axes[kind], decay, seed, arguments.epochs))
                bar.update()
    print(f"\nmean slope by layer, initially {FIRST}; {arguments.seeds} nets each")
    means = {}
    for case, runs in found.items():
        means[case] = np.mean([[each.mean() for each in slopes] for slopes, _ in runs], 0)
        accuracy = np.mean([accuracy for _, accuracy in runs])
        shown = " ".join(f"{mean:6.3f}" for mean in means[case])
        print(f"  {case[0]:12} {case[1]:23} {shown}   accuracy {accuracy:.3f}")
    print("\nexpected, and whether these nets show it:")
    for kind in axes:
        free, decayed, excluded = (means[kind, decay] for decay in DECAYS)
        claims = {
            "the first layer's slope is the largest": free.argmax() == 0,
            "the last layer's is below the first's": free[-1] < free[0],
            "decay pulls the mean slope down": decayed.mean() < free.mean(),
            "without decay of slopes, it is higher": excluded.mean() > decayed.mean(),
        }
        for claim, holds in claims.items():
            print(f"  {kind:12} {claim}: {'yes' if holds else 'no'}")
    draw(found, arguments.folder / "slopes.png")


if __name__ == "__main__":
    main()
