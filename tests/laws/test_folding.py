"""`freeze(..., fold_batch_norm=True)`: what is folded, what is left, and what it computes."""

import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3
from zoo.custom_layers import Given

from tf_leaky import BatchNormLeakyReLU, convert, freeze, to_keras
from tf_leaky.structure import layers_within

layers = tf.keras.layers
register = tf.keras.utils.register_keras_serializable("folding")
bn = layers.BatchNormalization
CASES = {
    "valid, no bias": ((8, 8, 3), lambda: layers.Conv2D(4, 3, use_bias=False), {}),
    "same, strides": ((8, 8, 3), lambda: layers.Conv2D(4, 3, strides=2, padding="same"), {}),
    "grouped": ((8, 8, 4), lambda: layers.Conv2D(6, 3, groups=2), {"center": False}),
    "channels first": (
        (3, 8, 8),
        lambda: layers.Conv2D(4, 3, data_format="channels_first"),
        {"axis": 1},
    ),
    "1-D, causal": ((9, 3), lambda: layers.Conv1D(4, 3, padding="causal"), {"epsilon": 1e-5}),
    "3-D": ((5, 5, 5, 2), lambda: layers.Conv3D(4, 3), {"center": False, "scale": False}),
    "dense": ((5,), lambda: layers.Dense(4), {}),
    "dense on sequences": ((6, 5), lambda: layers.Dense(4, use_bias=False), {"axis": 2}),
    "depthwise 1-D": ((9, 3), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), {}),
    "depthwise": ((8, 8, 3), lambda: layers.DepthwiseConv2D(3, use_bias=False), {"scale": False}),
    "separable 1-D": ((9, 3), lambda: layers.SeparableConv1D(4, 3, use_bias=False), {}),
    "separable": ((8, 8, 3), lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2), {}),
    "transposed 1-D": ((9, 3), lambda: layers.Conv1DTranspose(4, 3, strides=2), {}),
    "transposed": ((8, 8, 3), lambda: layers.Conv2DTranspose(4, 3, use_bias=False), {}),
    "transposed 3-D": ((5, 5, 5, 2), lambda: layers.Conv3DTranspose(4, 3), {}),
}
TOLERANCE = {"float64": 1e-14, "float32": 1e-5, "mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}


def sequential(*parts, shape=(5,)):
    return tf.keras.Sequential([tf.keras.Input(shape), *parts])


def drawn(model, seed=3):
    """The model with weights as after training: gammas of any sign, and variances near 0."""
    rng = np.random.default_rng(seed)
    for layer in layers_within(model):
        for variable in layer.variables if not layers_within(layer) else ():
            name = getattr(variable, "path", variable.name)
            values = rng.normal(size=variable.shape)
            if "variance" in name:
                values = 10.0 ** rng.uniform(-9, 1, variable.shape)
            variable.assign(tf.cast(values, variable.dtype))
    return model


def images(model, seed=4):
    shapes = tf.nest.map_structure(lambda x: x.shape[1:], model.inputs)
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(3, *shape)).astype("float32") for shape in shapes]
    return x if len(x) > 1 else x[0]


def assert_alike(new, model, x, tolerance=1e-5):
    for mine, theirs in zip(tf.nest.flatten(new(x)), tf.nest.flatten(model(x)), strict=True):
        expected = np.asarray(theirs).astype("float64")
        error = np.abs(np.asarray(mine).astype("float64") - expected).max()
        assert error <= tolerance * np.abs(expected).max()


def left_in(model):
    return [layer.name for layer in layers_within(model) if type(layer) is bn]


def stack(name, policy="float32", between=()):
    shape, make, options = CASES[name]
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        parts = [make(), *between, bn(name="bn", **options), layers.LeakyReLU(name="act")]
        return drawn(sequential(*parts, shape=shape))
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


@pytest.mark.parametrize(
    ("name", "policy"),
    [(name, "float32") for name in CASES]
    + [
        (name, policy)
        for name in ("same, strides", "depthwise")
        for policy in ("float64", "mixed_float16")
    ]
    + [("dense", "mixed_bfloat16")],
)
def test_what_is_folded_computes_the_same(name, policy):
    model = stack(name, policy)
    before = [np.array(each) for each in model.get_weights()]
    new = freeze(model, fold_batch_norm=True)
    assert not left_in(new)
    assert [layer.name for layer in new.layers] == [layer.name for layer in model.layers]
    assert [v.dtype for v in new.weights] == [model.weights[0].dtype] * len(new.weights)
    for now, then in zip(model.get_weights(), before, strict=True):  # it is not touched
        np.testing.assert_array_equal(now, then)
    x = images(model)
    if name == "channels first" and not KERAS_3:  # which TensorFlow's CPU kernels don't take
        return
    assert_alike(new, model, x, TOLERANCE[policy])
    assert_alike(to_keras(new), new, x, 0)


def test_dropout_in_between_is_nothing_at_inference():
    model = stack("dense", between=[layers.Dropout(0.5)])
    new = freeze(model, fold_batch_norm=True)
    assert left_in(new) == ([] if KERAS_3 else ["bn"])  # tf_keras has an operation there
    assert_alike(new, model, images(model))


def test_augmentation_before_is_nothing_at_inference():
    """In Keras 3, `model(x)` has layers after it train, unlike `predict`."""
    parts = [layers.RandomFlip(), layers.Conv2D(4, 3), bn(), layers.LeakyReLU()]
    inner = sequential(layers.Conv2D(4, 3), bn(), shape=(6, 6, 4))
    model = drawn(sequential(*parts, inner, shape=(8, 8, 3)))
    new, x = freeze(model, fold_batch_norm=True), images(model)
    assert not left_in(new)
    np.testing.assert_allclose(new.predict(x), model.predict(x), rtol=1e-4, atol=1e-3)


def resnet():
    x = tf.keras.Input((12, 12, 3), name="image")
    y = layers.ReLU()(bn()(layers.Conv2D(8, 3, strides=2, padding="same")(x)))
    for width in (8, 12):
        z = layers.ReLU()(bn()(layers.Conv2D(width, 3, padding="same", use_bias=False)(y)))
        z = bn()(layers.Conv2D(width, 3, padding="same", use_bias=False)(z))
        y = y if width == 8 else bn()(layers.Conv2D(width, 1, use_bias=False)(y))
        y = layers.ReLU()(layers.Add()([y, z]))
    return tf.keras.Model(x, layers.Dense(5)(layers.GlobalAveragePooling2D()(y)))


def siamese():
    tower = sequential(layers.Dense(4), bn(), layers.LeakyReLU())
    a, b = tf.keras.Input((5,), name="a"), tf.keras.Input((5,), name="b")
    return tf.keras.Model([a, b], layers.Subtract()([tower(a), tower(b)]))


@register
class Block(layers.Layer):
    """As users write it: the parts have no names, and training goes to the normalisation."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = [layers.Dense(units, use_bias=False), bn(), layers.LeakyReLU()]

    def call(self, x, training=None):
        dense, normalization, act = self.parts
        return act(normalization(dense(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Late(layers.Layer):
    """Makes its parts when it is built."""

    def build(self, shape):
        self.dense = layers.Dense(4)
        self.bn = bn()
        self.dense.build(shape)
        self.bn.build((*shape[:-1], 4))
        super().build(shape)

    def call(self, x):
        return self.bn(self.dense(x))


def of_blocks():
    x = tf.keras.Input((5,))
    inner = sequential(layers.Dense(3), bn(), shape=(4,))
    y = Given(inner, layers.LeakyReLU())(Block()(Block()(x)))
    return tf.keras.Model(x, Late()(y))


NETS = {"resnet": resnet, "siamese": siamese, "blocks": of_blocks}


@pytest.mark.parametrize("fuse", [False, True], ids=["stock", "ours"])
@pytest.mark.parametrize("name", NETS)
def test_nets_are_folded_through_and_through(name, fuse, tmp_path):
    model = drawn(NETS[name]())
    if fuse:
        model = convert(model, alpha=0.1, fuse_batch_norm=True)
        inside = [type(layer) for layer in layers_within(model)]
        assert BatchNormLeakyReLU in inside
    new = freeze(model, fold_batch_norm=True)
    x = images(model)
    assert left_in(new) == []
    assert_alike(new, model, x)
    for mine, theirs in zip(*(each.predict(x, verbose=0) for each in (new, model)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    new.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", {"Given": Given})
    assert_alike(loaded, new, x, 0)
    assert_alike(freeze(new, fold_batch_norm=True), new, x, 0)


def of(function, shape=(5,)):
    """What makes a model of a function of its input."""

    def make():
        x = tf.keras.Input(shape)
        return tf.keras.Model(x, function(x))

    return make


def dense(**options):
    return layers.Dense(4, name="dense", **options)


def used_twice(x):
    y = dense()(x)
    return layers.Add()([y, bn()(y)])


def output(x):
    y = dense()(x)
    return [y, bn()(y)]


def shared(x):
    twice = layers.Dense(5, name="dense")
    return twice(bn()(twice(x)))


def shared_normalization(x):
    both = bn()
    return [both(layers.Dense(4)(x)), both(layers.Dense(4)(x))]


def overflowing():
    model = sequential(dense(dtype="mixed_float16"), bn(dtype="mixed_float16"))
    model.layers[1].gamma.assign([1e6] * 4)
    return model


@register
class Tied(Block):
    def call(self, x, training=None):
        y = super().call(x, training=training)
        return tf.matmul(y, tf.convert_to_tensor(self.parts[0].kernel), transpose_b=True)


@register
class Curious(Block):
    def call(self, x, training=None):
        return super().call(x, training=training) * self.parts[1].momentum


@register
class Compiled(Block):
    @tf.function
    def call(self, x, training=None):
        return super().call(x, training=training)


@register
class OfItsOwn(layers.Dense):
    def call(self, x):
        return super().call(x) ** 2


def conv_and_sum(x):
    conv = layers.Conv2D(3, 3, padding="same", bias_initializer="ones")
    return layers.Add()([bn()(conv(x)), x])


def before_a_sum(x):
    return layers.ReLU(negative_slope=0.1)(conv_and_sum(x))


def before_a_formula(x):
    return layers.Lambda(lambda y: tf.maximum(0.1 * y, y), (8, 8, 3))(conv_and_sum(x))


def with_lora():
    model = sequential(dense(), bn())
    model.layers[0].enable_lora(2)
    return model


LEFT = {
    "a sum and a formula": (of(before_a_formula, (8, 8, 3)), "TensorFlow uses a wrong slope"),
    **({"LoRA": (with_lora, "dense has more weights than kernel")} if KERAS_3 else {}),
    "a sum and a stock LeakyReLU": (of(before_a_sum, (8, 8, 3)), "TensorFlow uses a wrong slope"),
    "used twice": (of(used_twice), "output of dense is used elsewhere"),
    "an output": (of(output), "output of dense is used elsewhere"),
    "a shared layer": (of(shared), "output of dense is used elsewhere"),
    "a shared normalisation": (of(shared_normalization), "come right after a single conv"),
    "an activation of its own": (
        lambda: sequential(dense(activation="relu"), bn()),
        "dense has an activation of its own",
    ),
    "another axis": (
        lambda: sequential(layers.Conv2D(4, 3, name="conv"), bn(axis=1), shape=(8, 8, 3)),
        "its axis isn't that of the channels of conv",
    ),
    "by the batch": (of(lambda x: bn()(dense()(x), training=True)), "change at inference"),
    "by the batch, within": (
        of(lambda x: sequential(dense(), bn())(x, training=True)),
        "change at inference",
    ),
    "nothing before": (lambda: sequential(bn(), dense()), "come right after a single conv"),
    "overflow": (overflowing, "would overflow"),
    "two precisions": (
        lambda: sequential(dense(dtype="mixed_float16"), bn(dtype="float32")),
        "dense computes in float16",
    ),
    "weights used elsewhere": (of(lambda x: Tied()(x)), "are used elsewhere"),
    "attributes used": (of(lambda x: Curious()(x)), "can't be made without it"),
    "a function of its own": (
        of(lambda x: Compiled()(x)),
        "come right after a single conv|elsewhere",
    ),
    "a class of the user's": (
        lambda: sequential(OfItsOwn(4, name="own"), bn()),
        "come right after a single conv",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_can_not_be_folded_is_left_and_named(name, caplog):
    make, why = LEFT[name]
    model = make()
    x = images(model)
    with caplog.at_level(logging.INFO, "tf_leaky"):
        new = freeze(model, fold_batch_norm=True)
    assert len(left_in(new)) == len(left_in(model)) == 1
    said = [r.getMessage() for r in caplog.records if "not folded" in r.getMessage()]
    assert len(said) == 1
    assert re.search(why, said[0]), said
    np.testing.assert_array_equal(new.predict(x, verbose=0), model.predict(x, verbose=0))


def test_trainable_flags_and_compile_settings_stay():
    model = stack("dense")
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    new = freeze(model, fold_batch_norm=True)
    assert not new.layers[0].trainable
    assert not new.trainable_variables
    new.evaluate(images(model), np.zeros((3, 4)), verbose=0)


def test_fold_batch_norm_is_a_bool():
    with pytest.raises(TypeError, match=r"freeze: expected fold_batch_norm .* Received: .*1"):
        freeze(stack("dense"), fold_batch_norm=1)


def operations_served(model, folder, x):
    """What a session runs of an export, after Grappler."""
    model.export(folder, verbose=False) if KERAS_3 else model.export(folder)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        (given,), (made,) = signature.inputs.values(), signature.outputs.values()
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        metadata = tf.compat.v1.RunMetadata()
        session.run(made.name, {given.name: x}, options=options, run_metadata=metadata)
    graphs = metadata.partition_graphs
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for f in graph.library.function for node in f.node_def]
    return nodes


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_convolution_and_its_activation_are_one_operation(tmp_path):
    """After Grappler, as in a server."""
    new = freeze(stack("same, strides"), fold_batch_norm=True)
    nodes = operations_served(new, tmp_path / "model", images(new))
    (fused,) = [node for node in nodes if "Conv2D" in node.op]
    assert fused.op.endswith("FusedConv2D")  # oneDNN has its own
    assert list(fused.attr["fused_ops"].list.s) == [b"BiasAdd", b"LeakyRelu"]
    loose = {"LeakyRelu", "Mul", "AddV2", "Sub", "Rsqrt", "BiasAdd", "FusedBatchNormV3"}
    assert not {node.op for node in nodes} & loose
