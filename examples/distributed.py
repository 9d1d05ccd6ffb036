"""Trains on the digits with several workers, each a process, whose slopes stay equal.

    python examples/distributed.py [--workers 2] [--epochs 8] [--folder saved_models]

starts the workers on this machine, over loopback. Each gets its part of every batch. The gradients,
including those of the slopes, are summed over all workers, so that a step is that of the whole
batch. At the end each worker prints its slopes and accuracy. The chief, worker 0, saves the model.
All workers check that their slopes are equal, and that the file loads as the same model. It runs
under tf_keras (TF_USE_LEGACY_KERAS=1, set here), as Keras 3 can't build a model under
MultiWorkerMirroredStrategy.

On a cluster, each machine runs the same file in a different environment:

- TF_CONFIG lists the workers, and says which of them this one is. If it is set, this process is
  that worker and starts no others. On the second of two machines:

      TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                  "task": {"type": "worker", "index": 1}}' python examples/distributed.py

- The chief is worker 0, or a task of type "chief" if the cluster names one. Only the chief's file
  is kept; the others must save too, and do so in a folder that they remove. `--folder` must be on
  storage that every machine sees, since all of them load what the chief saved.
- Every worker needs the same code, data and number of epochs; `--batch-size` is that of all workers
  together. Open the ports between the workers, and to nobody else: traffic is not encrypted.
- If a worker dies, the others end ten seconds later. All of them must then be started again; with
  `tf.keras.callbacks.BackupAndRestore` they continue from shared storage.
- On Kubernetes, an indexed Job (or a StatefulSet) with a headless service gives each pod a name
  that the others find, and the index for its TF_CONFIG.

It was tested with two and four workers on one machine, but not on a cluster.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parent


def start_all(workers):
    """Starts the workers here and waits for them; stops all of them, however this ends."""
    with contextlib.ExitStack() as stack:
        processes, logs = [], []
        for config in local_cluster(workers):
            logs.append(stack.enter_context(tempfile.TemporaryFile("w+")))
            environment = os.environ | {"TF_CONFIG": json.dumps(config)}
            command = [sys.executable, *sys.argv]
            processes.append(subprocess.Popen(command, env=environment, stderr=logs[-1]))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        pids = ", ".join(str(process.pid) for process in processes)
        print(f"workers on this machine: {workers}, processes {pids}", flush=True)
        while True:
            statuses = [process.poll() for process in processes]
            for index, status in enumerate(statuses):
                if status:
                    logs[index].seek(0)
                    raise SystemExit(
                        "distributed: expected every worker to end with status 0. Received: worker "
                        f"{index}, status {status}; all were stopped. Its log ends with:\n"
                        f"{logs[index].read()[-2000:]}"
                    )
            if None not in statuses:
                return
            time.sleep(0.1)


def local_cluster(workers):
    """Returns TF_CONFIG for each worker of a cluster on loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    return [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        for index in range(workers)
    ]


def work(arguments):
    """Runs the worker that TF_CONFIG names: trains, compares, saves and reloads."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from digits import build_model, load_data

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    name, is_chief = who(strategy.cluster_resolver)
    workers = strategy.num_replicas_in_sync
    (x, y), (x_test, y_test) = load_data()
    tf.keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model()
    say(name, f"one of {workers}, {'the chief' if is_chief else 'ready'}")

    batches = divided(x, y, arguments.batch_size)

    class Progress(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found = ", ".join(f"{key} {value:.3f}" for key, value in logs.items())
            say(name, f"epoch {epoch + 1} of {arguments.epochs}: {found}")

    callbacks = [Progress()] if is_chief else []
    model.fit(batches, epochs=arguments.epochs, verbose=0, callbacks=callbacks)

    accuracy = accuracy_of(model, x_test, y_test)
    slopes = slopes_of(model)
    shown = np.array2string(slopes, precision=3, max_line_width=1000, threshold=8)
    say(name, f"accuracy {accuracy:.3f}, slopes {shown}")
    with tempfile.TemporaryDirectory() as own:
        # Every worker has to save, as all of them together read some variables.
        path = arguments.folder / "distributed.keras"
        model.save(path if is_chief else Path(own) / "distributed.keras")
    check(equal_on_all(strategy, model), name, "the bits of the slopes to be equal on all workers")
    again = tf.keras.models.load_model(path)  # is there, as `equal_on_all` waited for the chief
    check(
        np.array_equal(slopes_of(again), slopes) and accuracy_of(again, x_test, y_test) == accuracy,
        name,
        f"{path} to have these slopes and this accuracy",
    )
    if is_chief:
        say(name, f"the slopes of all {workers} workers are equal, bit for bit")
        say(name, f"{path}, reloaded: accuracy {accuracy:.3f} on {len(y_test)} other digits")


def who(resolver):
    """Returns the name of this worker, and whether it is the chief, as it is if alone."""
    kind, index = resolver.task_type or "worker", resolver.task_id or 0
    has_chief = "chief" in resolver.cluster_spec().jobs
    return f"{kind} {index}", kind == "chief" or (not has_chief and index == 0)


def say(name, text):
    """Prints a line at once, in one piece: other workers print, too."""
    sys.stdout.write(f"{name}: {text}\n")
    sys.stdout.flush()


def check(holds, name, expected):
    """Stops this worker, and so all of them, if a check fails."""
    if not holds:
        raise SystemExit(f"distributed: {name}: expected {expected}")


def divided(x, y, batch_size):
    """Returns the batches of all workers together; each worker takes its part of each batch.

    The seed makes all of them shuffle in the same order. The last rows, which don't fill a batch,
    are left out: in a smaller batch, the rows of some workers would count more than others'.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0)
    return rows.batch(batch_size, drop_remainder=True).with_options(options)


def trained_slopes(model):
    """Returns the variables of a model's trained slopes."""
    return [layer.alpha for layer in model.layers if getattr(layer, "trainable_alpha", False)]


def slopes_of(model):
    """Returns the trained slopes in this process, as one array."""
    return np.concatenate([np.ravel(alpha.numpy()) for alpha in trained_slopes(model)])


def accuracy_of(model, images, labels):
    """Returns the accuracy of the copy of the model in this process."""
    return float((np.argmax(model(images), -1) == labels).mean())


def equal_on_all(strategy, model):
    """Whether all workers have the same slopes; each waits for the others here."""
    import tensorflow as tf

    def own():
        rows = [tf.reshape(alpha, [1, -1]) for alpha in trained_slopes(model)]
        return tf.bitcast(tf.concat(rows, 1), tf.int32)

    rows = strategy.gather(strategy.run(own), axis=0).numpy()
    return len(rows) == strategy.num_replicas_in_sync and (rows == rows[0]).all()


def main():
    """Starts the workers, or runs as one of them if TF_CONFIG is set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="to start without TF_CONFIG")
    parser.add_argument("--folder", type=Path, default=EXAMPLES.parent / "saved_models")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64, help="of all workers together")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if "TF_CONFIG" not in os.environ:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        start_all(arguments.workers)
        return
    try:
        work(arguments)
    except BaseException:
        # At a normal exit, TensorFlow would wait for the other workers, which wait for this one.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
