"""What is tried on each model, in the environment of its library.

`python -m zoo_of_libraries.trials LIBRARY FOLDER` converts, and `... FOLDER reload` reads the files
in a process of its own. Results are written to FOLDER as they come.
"""

import json
import logging
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
from zoo import looks
from zoo.looks import outputs
from zoo.table import SLOPE, called

from zoo_of_libraries import models


class WrongError(Exception):
    """An answer that is wrong, rather than refused."""


def within(node, names):
    """Whether a node is of one of the layers: Keras's PReLU computes with ReLU."""
    return any(
        part == name or part.startswith(f"{name}_") for part in node.split("/") for name in names
    )


def with_slopes(model, x):
    """What the model computes with a slope where its graph has ReLU: no layer is asked."""
    traced = tf.function(lambda: called(model, x), autograph=False).get_concrete_function()
    graph = traced.graph.as_graph_def()
    learned = {each.name for each in looks.parts(model) if type(each) is tf.keras.layers.PReLU}
    for node in looks.nodes(graph):
        if node.op == "Relu" and not within(node.name, learned):
            node.op = "LeakyRelu"
            node.attr["alpha"].f = SLOPE
    outer, inner = zip(*traced.graph.captures, strict=True)
    names = [each.name for each in traced.outputs]

    @tf.function
    def run(*values):
        given = {each.name: value for each, value in zip(inner, values, strict=True)}
        return tf.graph_util.import_graph_def(graph, input_map=given, return_elements=names)

    return [np.asarray(y) for y in run(*outer)]


def assert_close(found, expected):
    for one, two in zip(expected, found, strict=True):
        scale = np.abs(one).max()
        if not np.allclose(two, one, rtol=1e-4, atol=1e-4 * scale):
            error = np.abs(np.float64(two) - one).max()
            raise WrongError(f"outputs differ by {error:.2g} of {scale:.2g}")


def weights_in_use(model):
    """The weights of the layers of a graph and the graphs in it, without those of attributes."""
    if not getattr(model, "inputs", None) or isinstance(model, tf.keras.Sequential):
        return list(model.weights)
    own = [each for layer in tf.keras.Model(model.input, model.output).layers
           for each in weights_in_use(layer)]  # fmt: skip
    return list({id(each): each for each in own}.values())


def assert_same_weights(model, other, texts):
    """The number of those that are left out, as a warning has to say it; 0 if none are."""
    used = weights_in_use(model)
    left = len(model.weights) - len(used)
    if left and not any(f"lacks {left} of its weights" in text for text in texts):
        raise WrongError(f"{left} weights are left out in silence")
    mine = [np.asarray(each) for each in used] if left else model.get_weights()
    if [each.tobytes() for each in mine] != [each.tobytes() for each in other.get_weights()]:
        raise WrongError("the weights have other values, other sizes or another order")
    return left


def heard(change, *args, **kwargs):
    """What a function returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = change(*args, **kwargs)
    return new, [str(each.message) for each in caught]


def is_of_the_library(model):
    return type(model).__module__.split(".")[0] not in ("keras", "tf_keras")


def trials(folder, name, build):
    """Yields the name and the outcome of each trial."""
    from tf_leaky import convert, freeze, to_keras

    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    model, x = build()
    called(model, x)
    moved(model)
    plain, sloped = outputs(model, x), with_slopes(model, x)
    before, _ = looks.relu_operations(model, x)
    yield "build", f"{before} ReLUs"
    made = {}
    # Where the class builds the graph itself, nothing but a plain model can be made of it.
    graph = model
    if getattr(model, "inputs", None) and is_of_the_library(model):
        made["plain"] = graph = tf.keras.Model(model.input, model.output)

    def stock_clone():
        copy = tf.keras.models.clone_model(graph)
        called(copy, x)
        copy.set_weights(graph.get_weights())
        assert_close(outputs(copy, x), plain)
        return "ok"

    def converted():
        new, texts = heard(convert, model)
        assert_close(outputs(new, x), plain)
        left = assert_same_weights(graph, new, texts)
        same = type(new) is type(model)
        return f"ok, without {left}" if left else "ok" if same else f"ok, as {type(new).__name__}"

    def alpha():
        new, texts = heard(convert, model, alpha=SLOPE)
        made["sloped"] = new
        said = [text for text in texts if "ReLU" in text]
        left, _ = looks.relu_operations(new, x)
        if left or said:
            (folder / f"{name}.said").write_text("\n".join(said))
            if not said:
                raise WrongError(f"{left} of {before} ReLUs stay, in silence")
            return f"{left} stay, said"
        assert_close(outputs(new, x), sloped)
        assert_same_weights(graph, new, texts)
        return "ok"

    def frozen():
        trained = convert(model, alpha=SLOPE, trainable_alpha=True)
        new = freeze(trained)
        expected = outputs(made["sloped"], x)
        assert_close(outputs(trained, x), expected)
        assert_close(outputs(new, x), expected)
        made["frozen"] = new
        return "ok"

    def back():
        made["back"], texts = heard(to_keras, made["sloped"])
        assert_close(outputs(made["back"], x), outputs(made["sloped"], x))
        if ours := looks.ours(made["back"]):
            raise WrongError(f"it has {ours}")
        return "ok, but files" if any("a .keras file of it" in text for text in texts) else "ok"

    for trial in (stock_clone, converted, alpha, frozen, back):
        yield trial.__name__, outcome(trial)
    made["stock"] = model
    for kind, each in made.items():
        np.savez(folder / f"{name}.{kind}.npz", *outputs(each, x))
        said = outcome(lambda each=each, kind=kind: each.save(folder / f"{name}.{kind}.keras"))
        if said:
            yield f"save {kind}", said


def moved(model):
    """Biases, norms and slopes are not all 0 or 1 in a trained model."""
    rng = np.random.default_rng(3)
    weights = model.get_weights()
    model.set_weights(
        [
            w + rng.uniform(0, 0.1, w.shape).astype(w.dtype) if w.ndim == 1 and w.dtype.kind == "f"
            else w
            for w in weights
        ]
    )  # fmt: skip


def outcome(trial):
    try:
        return trial()
    except Exception as error:
        return failure(error)


def failure(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"FAIL {type(error).__name__}: {error} [{Path(last.filename).name}:{last.lineno}]"


def classes(library):
    """The library's own layers by name, for files of models that it doesn't register."""
    found = {}
    for module in [each for name, each in sys.modules.items() if name.split(".")[0] == library]:
        for name, thing in vars(module).items():
            if isinstance(thing, type) and thing.__module__.split(".")[0] == library:
                found[name] = thing
    return found


def reloads(folder, library, name, build):
    """Reads the files in this process, which has converted nothing."""
    import tf_leaky  # noqa: F401

    _, x = build()
    for kind in ("stock", "plain", "sloped", "frozen", "back"):
        path = folder / f"{name}.{kind}.keras"
        if path.exists():
            yield f"reload {kind}", outcome(lambda path=path: reloaded(path, library, x))


def reloaded(path, library, x):
    model = tf.keras.models.load_model(path, classes(library), compile=False, safe_mode=False)
    with np.load(path.with_suffix(".npz")) as saved:
        assert_close(outputs(model, x), [saved[key] for key in saved.files])
    return "ok"


def main(library, folder, reload=""):
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    folder = Path(folder)
    builders = getattr(models, library)()
    for name, build in builders.items():
        start = time.process_time()

        def write(trial, said, name=name):
            with (folder / "results.jsonl").open("a") as results:
                results.write(json.dumps({"model": name, "trial": trial, "said": said}) + "\n")

        steps = reloads(folder, library, name, build) if reload else trials(folder, name, build)
        try:
            for trial, said in steps:
                write(trial, said)
        except Exception as error:
            write("build", failure(error))
        print(f"{library}: {name}: {time.process_time() - start:.0f} s CPU", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
