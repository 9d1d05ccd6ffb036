"""Trains on several replicas, in processes of their own: `python worker.py FOLDER`.

With TF_CONFIG set this is one worker of MultiWorkerMirroredStrategy, else two replicas of
MirroredStrategy on two logical CPUs. What it found goes to `FOLDER/<worker>.pickle`, for
`test_workers.py`, which computes the same in one process and on one device.
"""

import faulthandler
import os
import pickle
import sys
from pathlib import Path

import cases
import numpy as np
import tensorflow as tf

from tf_leaky import (
    ActivationMonitor,
    BatchNormLeakyReLU,
    LeakyReLU,
    convert,
    export_saved_model,
    freeze,
)

SECONDS = 1200  # after which a worker ends by itself, and tells where it stood
ROWS = 13  # no multiple of the replicas, which get parts of unequal size
TRAINED = [case for case in cases.LAYERS if case.trained]
CLUSTER = "TF_CONFIG" in os.environ


def replicated():
    """The strategy that this process is for."""
    if CLUSTER:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def draw(rows, seed):
    """For each case, by name: `rows` examples, in float64."""
    rng = np.random.default_rng(seed)
    return {case.name: rng.normal(size=(rows, *case.input_shape)) for case in TRAINED}


def gradients(strategy):
    """The slopes' gradients by case, in float64, of a batch that the replicas divide."""
    x, upstream = draw(ROWS, seed=1), draw(ROWS, seed=2)
    with strategy.scope():
        layers = {case.name: case.make(dtype="float64") for case in TRAINED}
        for case in TRAINED:
            layers[case.name].build((None, *case.input_shape))

    def divide(array):
        def part(context):
            parts = np.array_split(array, context.num_replicas_in_sync)
            return tf.constant(parts[context.replica_id_in_sync_group])

        return strategy.experimental_distribute_values_from_function(part)

    def on_replica(x, upstream):
        with tf.GradientTape() as tape:
            loss = sum(
                tf.reduce_sum(layer(x[name]) * upstream[name]) for name, layer in layers.items()
            )
        return tape.gradient(loss, {name: variable(layer) for name, layer in layers.items()})

    @tf.function
    def step(x, upstream):
        found = strategy.run(on_replica, (x, upstream))
        return {name: strategy.reduce("SUM", each, axis=None) for name, each in found.items()}

    divided = [{name: divide(array) for name, array in each.items()} for each in (x, upstream)]
    return {name: gradient.numpy() for name, gradient in step(*divided).items()}


def variable(layer):
    """The TensorFlow variable of the slopes, which Keras 3 wraps."""
    value = getattr(layer.alpha, "value", None)
    return layer.alpha if value is None or callable(value) else value


def make_model():
    """A model in which each case is a branch; its kernels are positive and stay so."""
    layers = tf.keras.layers
    inputs = [tf.keras.Input(case.input_shape) for case in TRAINED]
    branches = []
    for i, (case, given) in enumerate(zip(TRAINED, inputs, strict=True)):
        size = np.prod(case.input_shape)
        positive = tf.keras.initializers.RandomUniform(0.5 / size, 1.5 / size, seed=i)
        flat = layers.Flatten()(case.make(name=cases.names(case))(given))
        branches.append(layers.Dense(2, kernel_initializer=positive, trainable=False)(flat))
    model = tf.keras.Model(inputs, layers.Add()(branches))
    model.compile(tf.keras.optimizers.SGD(0.5, momentum=0.5), "mse")
    model.optimizer.build(model.trainable_variables)  # so that weights and its state can be loaded
    return model


def data():
    """16 examples of each case in float32, their targets, and both in batches of 8."""
    x = tuple(array.astype("float32") for array in draw(16, seed=3).values())
    y = np.random.default_rng(4).normal(size=(16, 2)).astype("float32")
    return x, y, batched(x, y)


def batched(x, y):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8).with_options(options)


def slopes(strategy, model):
    """The slopes by case, with one row for each replica in this process."""
    each = {case.name: variable(model.get_layer(cases.names(case))) for case in TRAINED}
    return {name: parts(strategy, alpha) for name, alpha in each.items()}


def parts(strategy, alpha):
    return np.stack([np.asarray(one) for one in strategy.experimental_local_results(alpha)])


def train(model):
    """Three epochs; what the monitor saw."""
    x, _, batches = data()
    monitor = ActivationMonitor(list(x))
    model.fit(batches, epochs=3, shuffle=False, verbose=0, callbacks=[monitor])
    return {key: np.array(values) for key, values in monitor.values.items()}


def push(model):
    """One step that is far too long, and in which every slope goes down."""
    x, y, _ = data()
    down = batched(tuple(-np.abs(array) for array in x), np.full_like(y, 100))
    model.optimizer.learning_rate.assign(10.0)
    model.fit(down.take(1), shuffle=False, verbose=0)


def wait_for_all(strategy):
    """Returns when every worker has come here."""
    strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None).numpy()


def save_and_reload(strategy, model, folder, worker, results):
    """The chief saves for all; the others, who have to take part, to a place of their own."""
    mine = folder if worker == 0 else folder / f"temporary-{worker}"
    mine.mkdir(exist_ok=True)
    model.save(mine / "model.keras")
    model.save_weights(mine / "model.weights.h5")
    wait_for_all(strategy)
    with strategy.scope():
        reloaded = tf.keras.models.load_model(folder / "model.keras")
        filled = make_model()
        filled.load_weights(folder / "model.weights.h5")
    results["reloaded"] = slopes(strategy, reloaded)
    results["filled"] = slopes(strategy, filled)
    reloaded.fit(data()[2], shuffle=False, verbose=0)
    results["trained again"] = slopes(strategy, reloaded)


def rewrite(strategy, model, folder, results):
    """`freeze`, export, and `convert` within the scope of a strategy."""
    x, _, _ = data()
    results["frozen"] = freeze(model).predict(list(x), verbose=0)
    export_saved_model(model, folder / "exported")
    layers = tf.keras.layers
    # Far from 1e-3: a converted PReLU whose slopes are all above stays there, a stock one doesn't.
    prelu = layers.PReLU(tf.keras.initializers.Constant(0.25))
    with strategy.scope():
        stock = tf.keras.Sequential([tf.keras.Input((6,)), layers.Dense(5), prelu])
        stock.compile(tf.keras.optimizers.Adam(0.01), "mse")
    batches = tf.data.Dataset.from_tensor_slices((x[0], x[0][:, :5])).batch(8)
    stock.fit(batches, shuffle=False, verbose=0)
    with strategy.scope():
        converted = convert(stock)
    for name, each in (("stock", stock), ("converted", converted)):
        before = each.predict(x[0], verbose=0)
        each.fit(batches, shuffle=False, verbose=0)
        results[name] = before, parts(strategy, variable(each.layers[-1]))


def batch_norms(strategy):
    """Losses and weights of ours and of the stock layers, by whether replicas share statistics."""
    rng, found = np.random.default_rng(3), {}
    data = batched(rng.normal(1, 2, (8, 5)), rng.normal(size=(8, 5)))
    for synchronized in (True, False):
        shared = {"momentum": 0.5, "synchronized": synchronized, "dtype": "float64"}
        for ours in (True, False):
            with strategy.scope():
                stock = tf.keras.layers.BatchNormalization(**shared)
                parts = [stock, LeakyReLU(0.25, dtype="float64")]
                if ours:
                    parts = [BatchNormLeakyReLU(alpha=0.25, **shared)]
                model = tf.keras.Sequential([tf.keras.Input((5,), dtype="float64"), *parts])
                model.compile(tf.keras.optimizers.SGD(0.5), "mse")
            losses = [model.fit(data, verbose=0).history["loss"][0] for _ in range(4)]
            found[synchronized, ours] = [losses, *model.get_weights()]
    return found


def main(folder):
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    tf.keras.utils.set_random_seed(20260101)
    folder, strategy = Path(folder), replicated()
    worker = strategy.cluster_resolver.task_id if CLUSTER else 0
    results = {"replicas": strategy.num_replicas_in_sync, "gradient": gradients(strategy)}
    with strategy.scope():
        model = make_model()
    results["monitor"] = train(model)
    results["trained"] = slopes(strategy, model)
    save_and_reload(strategy, model, folder, worker, results)
    if CLUSTER:
        try:
            export_saved_model(model, folder / "exported")
        except ValueError as error:
            results["refused"] = str(error)
    else:
        rewrite(strategy, model, folder, results)
        results["batch norm"] = batch_norms(strategy)
    push(model)
    results["pushed"] = slopes(strategy, model)
    (folder / f"{worker}.pickle").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
