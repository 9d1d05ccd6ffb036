"""Exports in processes of their own: `python exporter.py FOLDER once PROCESSES THREADS`.

Each export is of a model of its own number, and is reported as `version number`. With
`kill COUNT SEED` processes export one version after another until they are killed, each at a random
moment. TensorFlow is imported once and runs nothing before the forks, after which it would hang.
"""

import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from tf_leaky import export_saved_model


def numbered(number):
    """A model that answers `number * x`."""
    x = tf.keras.Input((1,), name="x")
    kernel = tf.keras.initializers.Constant(number)
    dense = tf.keras.layers.Dense(1, kernel_initializer=kernel, use_bias=False, name="y")
    return tf.keras.Model(x, dense(x))


def export(folder, number, check=True):
    version = export_saved_model(numbered(number), folder, check=check)
    os.write(1, f"{version.name} {number}\n".encode())


def once(folder, processes, threads):
    """Exports numbers from 0 on, `threads` at once in each of `processes` at once."""
    children, threads = [], int(threads)
    for i in range(int(processes)):
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                with ThreadPoolExecutor(threads) as pool:
                    numbers = range(i * threads, (i + 1) * threads)
                    list(pool.map(lambda number: export(folder, number, False), numbers))
                status = 0
            finally:
                os._exit(status)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    sys.exit(f"failed: {failed}" if failed else 0)


def kill(folder, count, seed):
    """Kills `count` processes that export the number 7 again and again."""
    chance = random.Random(int(seed))
    for _ in range(int(count)):
        child = os.fork()
        if child == 0:
            while True:
                export(folder, 7)
        time.sleep(chance.uniform(0.2, 3.0))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit("an export failed before it was killed")
        os.write(1, b"killed\n")


if __name__ == "__main__":
    {"once": once, "kill": kill}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
