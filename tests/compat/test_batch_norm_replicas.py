"""`BatchNormLeakyReLU` on several replicas."""

import subprocess
import sys

import numpy as np

REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
from tf_leaky import BatchNormLeakyReLU, LeakyReLU

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(3)
x, target = rng.normal(1, 2, (8, 5)), rng.normal(size=(8, 5))
data = tf.data.Dataset.from_tensor_slices((x, target)).batch(8)
for synchronized in (True, False):
    for ours in (True, False):
        shared = {"momentum": 0.5, "synchronized": synchronized, "dtype": "float64"}
        with strategy.scope():
            if ours:
                parts = [BatchNormLeakyReLU(alpha=0.25, **shared)]
            else:
                batch_norm = tf.keras.layers.BatchNormalization(**shared)
                parts = [batch_norm, LeakyReLU(0.25, dtype="float64")]
            model = tf.keras.Sequential([tf.keras.Input((5,), dtype="float64"), *parts])
            model.compile(tf.keras.optimizers.SGD(0.5), "mse")
        losses = [model.fit(data, verbose=0).history["loss"][0] for _ in range(4)]
        np.savez(f"{sys.argv[1]}/{synchronized} {ours}.npz", losses, *model.get_weights())
"""


def test_replicas_train_as_with_the_stock_layer(tmp_path):
    command = [sys.executable, "-c", REPLICAS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    together = []
    for synchronized in (True, False):
        paths = [tmp_path / f"{synchronized} {ours}.npz" for ours in (True, False)]
        found = [list(np.load(path).values()) for path in paths]
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)
        losses = found[0][0]
        assert losses[-1] < losses[0]
        together.append(losses)
    assert (together[0] != together[1]).any()  # statistics of all replicas are others
