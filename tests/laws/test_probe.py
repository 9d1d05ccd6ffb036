"""What `plot_activations` and `ActivationMonitor` read, held against NumPy."""

import io
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

import tf_leaky.inspection.probing
from tf_leaky import ActivationMonitor, BatchNormLeakyReLU, LeakyReLU, plot_activations
from tf_leaky.inspection.plots import draw_lines
from tf_leaky.inspection.probing import Probe
from tf_leaky.inspection.statistics import Histogram

layers = tf.keras.layers


def sequential(*parts, shape=(2,), **options):
    return tf.keras.Sequential([tf.keras.Input(shape, **options), *parts])


def with_dead_units(activation, *, inside=False):
    """Units 0 and 1 see nothing above 0, unit 2 nothing below, unit 3 both."""
    dense = layers.Dense(4, activation=activation if inside else None, name="dense")
    model = sequential(dense, *([] if inside else [activation]), layers.Dense(1, name="head"))
    dense.set_weights([np.float32([[0, 0, 0, 1], [0, 0, 0, 0]]), np.float32([-1, -2, 3, 0])])
    return model


class Calls(tf.keras.Model):
    """Has two ReLUs and a Dense layer, and calls what a function says."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.relu, self.other = layers.ReLU(name="relu"), layers.ReLU(name="other")
        self.dense = layers.Dense(2, activation="relu", name="dense")
        self.dense.build((None, 2))

    def call(self, x):
        return self.function(self, x)


X = np.random.default_rng(0).normal(size=(101, 2)).astype("float32")
BEFORE = X @ np.float32([[0, 0, 0, 1], [0, 0, 0, 0]]) + np.float32([-1, -2, 3, 0])


def look(model, data=X, layers=None):
    return Probe(model, layers, subject="test").look(data)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("slope", [0, 0.1])
def test_dead_units_of_relu_are_found_and_leaky_relu_has_none(slope, inside):
    relu = LeakyReLU(slope) if slope else "relu" if inside else layers.ReLU()
    (seen,) = look(with_dead_units(relu, inside=inside)).values()
    assert seen.always_negative.tolist() == [True, True, False, False]
    assert seen.dead.tolist() == ([False] * 4 if slope else [True, True, False, False])
    assert seen.share_negative == pytest.approx((BEFORE < 0).mean())
    if slope:
        assert seen.slopes.tolist() == pytest.approx([slope])
    for found, values in ((seen.before, BEFORE), (seen.after, np.maximum(BEFORE, slope * BEFORE))):
        assert found.counts.sum() == BEFORE.size
        np.testing.assert_array_equal(found.counts, np.histogram(values, found.edges)[0])


def test_reading_leaves_the_model_as_it_was():
    errors = []

    def raises(model, x):
        x = model.dense(model.relu(x))
        for error in errors:
            raise error
        return x

    model = Calls(raises)
    expected, function = model(X).numpy(), model.dense.activation
    look(model)
    errors.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        look(model)
    assert "call" not in vars(model.relu)
    assert model.dense.activation is function
    errors.clear()
    np.testing.assert_array_equal(model(X), expected)


def images_model():
    x = tf.keras.Input((6, 6, 1), name="image")
    y = layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    shared = LeakyReLU(0.25, trainable_alpha=True, axis=-1, name="shared")
    y = shared(layers.Conv2D(3, 1)(shared(y)))
    y = layers.Dense(2, activation="softmax", name="probability")(layers.Flatten()(y))
    return tf.keras.Model(x, y)


def stock_parts():
    inner = layers.Dense(3, activation="relu", name="inner")
    others = [layers.LSTM(3, name="loop", return_sequences=True), layers.Dense(2, name="linear")]
    last = layers.Activation("elu", name="elu")
    return sequential(layers.TimeDistributed(inner), *others, last, shape=(4, 2))


def subclassed():
    model = Calls(lambda model, x: model.dense(model.block(x)))
    model.block = images_model()
    model(IMAGES)
    return model


IMAGES = np.random.default_rng(1).normal(size=(5, 6, 6, 1)).astype("float32")
# A model, what it takes, and the names of the activations in it.
FOUND = {
    "a graph": (images_model, IMAGES, ["conv", "shared", "shared (call 2)"]),
    "subclassed": (subclassed, IMAGES, ["conv", "shared", "shared (call 2)", "dense"]),
    "stock layers": (stock_parts, np.zeros((3, 4, 2), "float32"), ["inner", "elu"]),
    "a layer as activation": (
        lambda: with_dead_units(layers.Activation(LeakyReLU(0.2, name="leaky"))),
        X,
        ["leaky"],
    ),
    "two of one name": (
        lambda: sequential(*(sequential(layers.ReLU(name="a")) for _ in range(2))),
        X,
        ["a", "a #2"],
    ),
    "those that mix elements": (
        lambda: sequential(
            layers.ReLU(name="relu"),
            layers.Dense(2, activation="softmax"),
            layers.Dense(4, activation=lambda x: x[..., :2], name="halves"),
        ),
        X,
        ["relu"],
    ),
}


@pytest.mark.parametrize(("make", "data", "names"), FOUND.values(), ids=FOUND)
def test_activations_are_found_wherever_they_are(make, data, names):
    assert sorted(look(make(), data)) == sorted(names)


def test_named_layers_are_read_only():
    model = images_model()
    for named in ("conv", ["conv"], model.get_layer("conv")):
        assert list(look(model, IMAGES, named)) == ["conv"]
    with pytest.raises(ValueError, match=r"layers that are activations, which keep the shape"):
        look(model, IMAGES, [model.layers[-1]])
    with pytest.raises(ValueError, match=r"expected layers to name activations.*It has conv, shar"):
        look(model, IMAGES, "nope")
    for part, shape in ((layers.Dense(2, activation="softmax"), (2,)), (layers.LSTM(3), (4, 2))):
        with pytest.raises(ValueError, match="expected a model with activations"):
            look(sequential(part, shape=shape), np.zeros((2, *shape), "float32"))


class Batches(tf.keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[40 * i : 40 * (i + 1)], np.zeros(40)


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call:UserWarning")
def test_data_of_every_kind_gives_the_same():
    model = with_dead_units(LeakyReLU(0.1))
    kinds = [
        X,
        tf.constant(X),
        tf.data.Dataset.from_tensor_slices(X).batch(7),
        tf.data.Dataset.from_tensor_slices((X, X)).batch(50),
        ((X[i : i + 9], None) for i in range(0, 101, 9)),
        Batches(),
    ]
    (expected,) = look(model).values()
    for data in kinds:
        (seen,) = look(model, data).values()
        assert seen.share_negative == expected.share_negative
        np.testing.assert_array_equal(seen.before.counts, expected.before.counts)
        np.testing.assert_array_equal(seen.dead, expected.dead)


@pytest.mark.parametrize(
    ("activation", "slopes"),
    [
        (layers.LeakyReLU(0.25), [0.25]),
        (layers.PReLU(), [0.0] * 4),
        (layers.Activation(tf.stop_gradient), None),  # whose units return something
    ],
)
def test_slopes_of_stock_activations(activation, slopes):
    (seen,) = look(with_dead_units(activation)).values()
    assert (seen.slopes is None) if slopes is None else (seen.slopes.tolist() == slopes)
    assert seen.dead.any() == (slopes == [0.0] * 4)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("options", [{}, {"trainable_alpha": True}, {"alpha_axis": ...}], ids=str)
def test_batch_norm_leaky_relu_shows_what_it_normalised(axis, options, rng):
    """Unit 0 never gets anything above 0."""
    options = {key: axis if value is ... else value for key, value in options.items()}
    layer = BatchNormLeakyReLU(alpha=0.25, axis=axis, name="block", **options)
    model = sequential(layer, shape=(3, 3))
    beta = np.float32([-9, 0, 1])
    layer.set_weights([np.float32([0.5, -2, 1]), beta, *layer.get_weights()[2:]])
    x = rng.normal(size=(50, 3, 3)).astype("float32")
    two = tf.keras.layers.BatchNormalization(axis=axis)
    two.build(x.shape)
    two.set_weights(layer.get_weights()[:4])
    before = two(x).numpy()
    seen = look(model, x)["block"]
    assert seen.share_negative == (before < 0).mean()
    assert seen.always_negative.tolist() == [True, False, False]
    assert seen.dead.tolist() == [False] * 3
    assert seen.slopes.tolist() == [0.25] * (3 if "alpha_axis" in options else 1)
    for found, values in ((seen.before, before), (seen.after, model(x).numpy())):
        assert found.counts.sum() == values.size
        counts = np.histogram(values, found.edges)[0]
        assert abs(found.counts - counts).sum() <= 4  # of numbers that rounding moves over an edge


def test_several_inputs_are_taken():
    a, b = tf.keras.Input((2,), name="a"), tf.keras.Input((2,), name="b")
    model = tf.keras.Model({"a": a, "b": b}, LeakyReLU(0.1, name="sum")(layers.add([a, b])))
    (seen,) = look(model, {"a": X, "b": 2 * X}).values()
    assert seen.share_negative == pytest.approx((X < 0).mean())


def in_a_loop(model, x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, model.relu(y)), (0, x))[1]


def in_a_branch(model, x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: model.relu(x), lambda: x)


def in_a_function(model, x):
    return tf.function(model.relu)(x)


@pytest.mark.parametrize("within", [in_a_loop, in_a_branch, in_a_function])
def test_what_has_a_graph_of_its_own_is_left_alone(within):
    model = Calls(lambda model, x: model.other(within(model, x)))
    expected = model(X).numpy()
    assert list(look(model)) == ["other"]
    with pytest.raises(ValueError, match=r"outside of loops, branches and .* Received: relu\."):
        look(model, layers=["other", "relu"])
    np.testing.assert_array_equal(model(X), expected)


def by_keyword(model, x):
    return model.relu(inputs=x)


def run_eagerly(model, x):
    return model.relu(x - float(x.numpy().min()) * 0)


@pytest.mark.parametrize("function", [by_keyword, run_eagerly])
def test_inputs_by_keyword_and_models_that_run_eagerly_are_read(function):
    model = Calls(function)
    model(X)
    model.compile(loss="mse", run_eagerly=function is run_eagerly)
    assert look(model)["relu"].share_negative == pytest.approx((X < 0).mean())


def test_steps_of_time_distributed_are_one():
    dense = layers.Dense(3, activation="relu", name="inner")
    model = sequential(layers.TimeDistributed(dense), layers.Dense(1), shape=(4, 2))
    data = X[:96].reshape(-1, 4, 2)
    dense.bias.assign([-100, 0, 0])
    (seen,) = look(model, data).values()
    kernel, bias = dense.get_weights()
    before = data @ kernel + bias
    assert seen.before.counts.sum() == before.size
    assert seen.share_negative == pytest.approx((before < 0).mean())
    assert seen.dead.tolist() == [True, False, False]


def test_units_of_axes_without_a_size_of_their_own():
    model = sequential(layers.ReLU(name="relu"), shape=(None,))
    rows = [np.float32([[1, -1, -1]]), np.float32([[-1, -1]]), np.float32([[-1, -1, -1, 2]])]
    assert look(model, iter(rows))["relu"].dead.tolist() == [False, True, True, False]

    def flat(model, x):
        """Without an axis of units, and of a rank that isn't known."""
        y = tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), None)
        return model.relu(x[:, 0]), model.other(y)

    model = Calls(flat)
    model(X)
    seen = look(model, np.concatenate([-abs(X), [[-1, 1]]]))
    assert seen["relu"].dead.tolist() == [True]
    assert seen["other"].dead.tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_histograms_are_those_of_numpy(dtype):
    """Of the finite numbers as they are in that dtype; tiny ones beside large ones, too."""
    rng = np.random.default_rng(3)
    sizes = {"float16": 4, "float64": 250}.get(dtype, 30)
    x = rng.normal(size=(70, 4)) * 10.0 ** rng.integers(-sizes, sizes, (70, 4))
    x[40] = (np.inf, np.inf, np.nan, -0.0)
    x = tf.cast(x, dtype)
    model = sequential(layers.ReLU(dtype=dtype), shape=(4,), dtype=dtype)
    for rows in (x, tf.where(abs(tf.cast(x, "float64")) < 1e-3, x, tf.zeros_like(x))):
        exact = tf.cast(rows, "float64").numpy()
        exact = exact[np.isfinite(exact)]
        (seen,) = look(model, rows).values()
        for (edges, counts), values in ((seen.before, exact), (seen.after, np.maximum(exact, 0))):
            inside = np.clip(values, edges[0], edges[-1])
            np.testing.assert_array_equal(counts, np.histogram(inside, edges)[0])
        assert seen.before.counts[: len(seen.before.counts) // 2].sum() == (exact < 0).sum()


EDGES = np.linspace(-1, 1, 2049)


def test_cropping_keeps_the_share_that_is_asked_for_and_0():
    edges, counts = Histogram(EDGES, np.ones(2048, int)).cropped(2048, share=0.5)
    np.testing.assert_allclose([edges[0], edges[-1]], [-0.5, 0.5], atol=0.002)
    assert counts.sum() == pytest.approx(1024, abs=2)
    edges, counts = Histogram(EDGES, np.where(abs(np.arange(2048) - 1024) < 5, 7, 0)).cropped(60)
    np.testing.assert_array_equal(counts, [7] * 9)
    np.testing.assert_allclose(edges, EDGES[1020:1030], rtol=1e-12)
    for sign in (1, -1):
        far = np.where(sign * (np.arange(2048) - 1023.5) > 300, 5, 0)
        edges, counts = Histogram(EDGES, far).cropped(60)
        assert edges[0] < 0 < edges[-1]
        assert 0 in edges
        assert counts.sum() >= 0.99 * far.sum()


def test_memory_is_bounded():
    """Data that is never there as a whole: each batch is made when it is read, and let go."""
    alive = []

    def stream():
        for _ in range(40):
            batch = np.zeros((50, 2), "float32")
            alive.append(weakref.ref(batch))
            assert sum(each() is not None for each in alive) <= 4
            yield batch

    look(with_dead_units(layers.ReLU()), stream())


def test_long_looks_show_a_bar(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 6))
    monkeypatch.setattr(tf_leaky.inspection.probing.time, "monotonic", lambda: next(clock))
    look(with_dead_units(layers.ReLU()), (X for _ in range(4)))
    printed = capsys.readouterr().out
    assert "batch" in printed
    assert "2/Unknown" in printed  # the second batch, at twelve seconds
    assert printed.endswith("\n")


# ---- the callback ----


def watched(model, *callbacks, y=None, **options):
    """What a training reports that changes no weight."""
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    y = np.zeros((101, 1), "float32") if y is None else y
    return model.fit(X, y, verbose=0, callbacks=[*callbacks], **options).history


def summaries(folder):
    """What was written for TensorBoard: the plugin and the values, by name and step."""
    (path,) = folder.iterdir()
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    )
    return {
        (value.tag, event.step): (
            value.metadata.plugin_data.plugin_name,
            tf.make_ndarray(value.tensor),
        )
        for event in events
        for value in event.summary.value
    }


KINDS = ("dead", "always_negative", "share_negative", "alpha_mean", "alpha_std")


def test_monitor_writes_into_logs(tmp_path):
    prelu = layers.PReLU(tf.keras.initializers.RandomUniform(0.1, 0.5, 7), name="prelu")
    monitor = ActivationMonitor(X)
    csv = tf.keras.callbacks.CSVLogger(tmp_path / "log.csv")
    stop = tf.keras.callbacks.EarlyStopping("prelu/dead", patience=1, mode="min")
    logs = watched(with_dead_units(prelu), monitor, csv, stop, epochs=5)
    assert monitor.epochs == [0, 1]  # stopped, as nothing changed
    slopes = prelu.get_weights()[0]
    expected = (0, 2, (BEFORE < 0).mean(), slopes.mean(), slopes.std())
    for kind, value in zip(KINDS, expected, strict=True):
        assert logs[f"prelu/{kind}"] == monitor.values[f"prelu/{kind}"]
        assert logs[f"prelu/{kind}"][0] == pytest.approx(value)
    assert "prelu/alpha_std" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_monitor_looks_every_few_epochs_counted_from_the_first_and_forgets():
    model = with_dead_units(layers.ReLU(name="relu"))
    monitor = ActivationMonitor((X[i : i + 30] for i in range(0, 101, 30)), every=2)
    for first in (0, 3):
        logs = watched(model, monitor, initial_epoch=first, epochs=first + 4)
        assert monitor.epochs == [first, first + 2]
        assert logs["relu/dead"] == [2.0] * 4
        assert monitor.values["relu/dead"] == [2.0] * 2


def test_monitor_writes_for_tensorboard(tmp_path):
    leaky = LeakyReLU(0.3, trainable_alpha=True, axis=-1, name="leaky")
    watched(with_dead_units(leaky), ActivationMonitor(X, log_dir=tmp_path / "logs"), epochs=2)
    found = summaries(tmp_path / "logs")
    assert len(found) == 2 * 7
    plugin, share = found["leaky/share_negative", 1]
    assert (plugin, share) == ("scalars", pytest.approx((BEFORE < 0).mean()))
    plugin, rows = found["leaky/alpha", 0]
    assert (plugin, rows.shape[1], rows[:, 2].sum()) == ("histograms", 3, 4)
    plugin, rows = found["leaky/inputs", 1]
    assert (plugin, rows[:, 2].sum()) == ("histograms", BEFORE.size)
    assert rows.dtype == np.float64  # float32 counts no further than 2**24


@pytest.mark.parametrize("slopes", [[np.nan, -np.inf, 3e38, 0.25], [np.nan] * 4])
def test_monitor_writes_slopes_of_every_kind(tmp_path, slopes):
    prelu = layers.PReLU(name="prelu", trainable=False)
    model = with_dead_units(prelu)
    prelu.set_weights([np.float32(slopes)])
    monitor = ActivationMonitor(X, log_dir=tmp_path)
    watched(model, monitor)
    _, rows = summaries(tmp_path)["prelu/alpha", 0]
    assert rows[:, 2].sum() == np.isfinite(slopes).sum()
    assert np.isnan(monitor.values["prelu/alpha_mean"])


def test_monitor_keeps_what_a_generator_gave():
    """Though it gives one array again, with other numbers; and no part of what it couldn't give."""
    array = np.zeros((10, 2), "float32")

    def stream(error=None):
        for i in (-1, 1, -1, 1):
            array[:] = i
            yield array, None
        if error:
            raise error

    model = sequential(layers.ReLU(name="relu"), layers.Dense(2))
    monitor = ActivationMonitor(stream())
    watched(model, monitor, y=X, epochs=3)
    assert monitor.values["relu/share_negative"] == [0.5] * 3
    monitor = ActivationMonitor(stream(OSError("torn")))
    for _ in range(2):
        with pytest.raises(OSError, match="torn"):
            watched(model, monitor, y=X)


ENDLESS = tf.data.Dataset.from_tensors(X).repeat()
WRONG_DATA = {
    "text": ("text", TypeError, "arrays, a tf.data.Dataset or an iterable"),
    "a pair of x and y": ((X, X[:, :1]), TypeError, "arrays, without targets"),
    "no batches": (iter([]), ValueError, "at least one batch"),
    "no examples": (X[:0], ValueError, "arrays with one number of examples, above 0"),
    "two numbers of examples": ([X, X[:3]], ValueError, "arrays with one number of examples"),
    "scalar": (tf.constant(1.0), ValueError, "arrays with one number of examples"),
    "without an end": (ENDLESS, ValueError, "data that ends"),
}


@pytest.mark.parametrize(("data", "error", "message"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_data(data, error, message):
    model = with_dead_units("relu", inside=True)
    with pytest.raises(error, match=rf"(?s)test: expected .*{message}.* Received: data"):
        look(model, data)
    if "batch" not in message:  # which is known when the data are read
        with pytest.raises(error, match=rf"(?s)ActivationMonitor: expected .*{message}"):
            ActivationMonitor(data)


@pytest.mark.parametrize("first", [[tf.keras.Input(X.shape[1:])], []], ids=["built", "not built"])
def test_monitor_reads_a_sequential_also_if_its_first_batch_builds_it(first):
    model = tf.keras.Sequential([*first, layers.Dense(2, activation="relu", name="dense")])
    monitor = ActivationMonitor([X, X])
    with pytest.raises(ValueError, match=r"one array for each input of .*, which has 1\. Received"):
        watched(model, monitor, y=X)
    assert not monitor.epochs
    monitor = ActivationMonitor(X)
    watched(model, monitor, y=X)
    assert len(monitor.values["dense/dead"]) == 1


@pytest.mark.parametrize(
    "data", [np.ones((2, 7), "float32"), iter([0.1, 0.2])], ids=["other shape", "numbers"]
)
def test_data_that_the_model_can_not_be_called_on(data):
    """The error is the model's own, with a note of what it was called on."""
    model = with_dead_units("relu", inside=True)
    with pytest.raises((ValueError, TypeError, tf.errors.OpError)) as error:
        look(model, data)
    if sys.version_info >= (3, 11):
        assert f"test: the error above is of {model.name!r}" in error.value.__notes__[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "expected every to be at least 1"),
        ({"every": 1.5}, TypeError, "expected every to be an integer"),
        ({"log_dir": 3}, TypeError, "expected log_dir to be a path or None"),
        ({"log_dir": " "}, ValueError, "expected log_dir to name a folder"),
    ],
)
def test_wrong_arguments_of_the_monitor(arguments, error, message):
    with pytest.raises(error, match=f"ActivationMonitor: {message}"):
        ActivationMonitor(X, **arguments)


def test_log_dir_that_can_not_be_written(tmp_path):
    (tmp_path / "there").write_text("")
    monitor = ActivationMonitor(X, log_dir=tmp_path / "there" / "below")
    monitor.set_model(with_dead_units("relu", inside=True))
    with pytest.raises(OSError, match=r"(?s)folder that can be written\. Received: log_dir="):
        monitor.on_train_begin()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# ---- the pictures ----


@pytest.fixture
def pyplot():
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def deep(count):
    parts = []
    for i in range(count):
        activation = LeakyReLU(0.1 + i / 100, trainable_alpha=i % 2 > 0, axis=-1, name=f"a{i}")
        parts += [layers.Dense(4), activation]
    return sequential(*parts)


@pytest.mark.parametrize("count", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_picture_has_axes_for_each_activation(count, pyplot):
    figure = plot_activations(deep(count), X)
    cells = [ax for ax in figure.axes if ax.get_gid()]
    assert [ax.get_gid() for ax in cells] == [f"a{i}" for i in range(count)]
    assert len(figure.axes) == 2 * count  # and one for the slopes of each
    figure.savefig(io.BytesIO(), dpi=50)
    boxes = [ax.get_window_extent() for ax in figure.axes]
    assert min(box.width for box in boxes) > 60
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_picture_holds_the_distributions(pyplot):
    figure = plot_activations(with_dead_units(layers.ReLU(name="relu")), X)
    (ax,) = figure.axes
    share = round(100 * (BEFORE < 0).mean())
    assert ax.get_title() == f"relu\n{share} % negative, 2 of 4 units dead"
    sees, sends = ax.patches
    values = sends.get_data().values
    assert values.sum() == pytest.approx(1)
    first = np.searchsorted(sends.get_data().edges, 0)
    assert values[:first].sum() == 0
    assert values[first] == pytest.approx((BEFORE <= 0).mean(), abs=0.02)
    assert sees.get_fill()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["input", "output"]


def test_monitor_draws_its_values(pyplot):
    model = with_dead_units(LeakyReLU(0.3, trainable_alpha=True, name="leaky"))
    monitor = ActivationMonitor(X)
    with pytest.raises(ValueError, match="expected a measured epoch to plot"):
        monitor.plot()
    watched(model, monitor, epochs=3)
    figure = monitor.plot()
    negative, dead, always, slopes = figure.axes
    assert draw_lines([1], {"relu/dead": [0.5]}).axes[-1].texts[0].get_text() == "no slopes"
    assert negative.lines[0].get_ydata() == pytest.approx([(BEFORE < 0).mean()] * 3)
    assert list(dead.lines[0].get_ydata()) == [0, 0, 0]
    assert list(always.lines[0].get_ydata()) == [2, 2, 2]
    assert slopes.lines[0].get_ydata() == pytest.approx([0.3] * 3)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["leaky"]
