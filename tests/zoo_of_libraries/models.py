"""Small models of each library, with random weights. A library is imported when it is asked for.

Each function returns a dict of builders by name; a builder returns a model and inputs for it.
"""

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def images(*shape):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def tokens(high, *shape):
    return np.random.default_rng(5).integers(1, high, size=shape).astype("int32")


def keras_hub():
    import keras_hub

    hub, small, x = keras_hub.models, {"image_shape": (32, 32, 3)}, images(1, 32, 32, 3)

    def resnet():
        return hub.ResNetBackbone([64], [3], [64, 16], [1, 1], [1, 2], "basic_block", **small)

    def hgnet():
        return hub.HGNetV2Backbone(
            depths=[1, 1],
            embedding_size=8,
            hidden_sizes=[8, 16],
            stem_channels=[3, 4, 8],
            hidden_act="relu",
            use_learnable_affine_block=True,
            stackwise_stage_filters=[(8, 4, 8, 1, 2, 3), (8, 4, 16, 1, 2, 3)],
            apply_downsample=[False, True],
            use_lightweight_conv_block=[False, True],
            **small,
        )

    def deeplab():
        backbone = hub.DeepLabV3Backbone(
            resnet(),
            spatial_pyramid_pooling_key="P3",
            low_level_feature_key="P2",
            upsampling_size=2,
            dilation_rates=[2],
            projection_filters=4,
            **small,
        )
        return hub.DeepLabV3ImageSegmenter(backbone, num_classes=2)

    def basnet():
        size = {"image_shape": (64, 64, 3)}
        encoder = hub.ResNetBackbone(
            *([64], [7], [64, 128, 256, 512], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block")
        )
        return hub.BASNetBackbone(encoder, num_classes=1, projection_filters=64, **size)

    words = {"vocabulary_size": 20, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
    words["intermediate_dim"] = 16
    row = {"token_ids": tokens(20, 2, 6), "padding_mask": np.ones((2, 6), "int32")}
    segments = row | {"segment_ids": np.zeros((2, 6), "int32")}
    pair = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in row.items()}

    def bert():
        backbone = hub.BertBackbone(**words, max_sequence_length=6)
        return hub.BertTextClassifier(backbone, 2, preprocessor=None, activation="relu")

    return {
        "ResNetImageClassifier": lambda: (hub.ResNetImageClassifier(resnet(), 3), x),
        "HGNetV2Backbone": lambda: (hgnet(), x),
        "DeepLabV3ImageSegmenter": lambda: (deeplab(), x),
        "BertTextClassifier": lambda: (bert(), segments),
        "BASNetImageSegmenter": lambda: (hub.BASNetImageSegmenter(basnet()), images(1, 64, 64, 3)),
        "T5Backbone": lambda: (
            hub.T5Backbone(**words, activation="relu", use_gated_activation=False),
            pair,
        ),
    }


def tcn():
    from tcn import TCN

    def stacked():
        steps = [
            TCN(4, 2, dilations=(1, 2), return_sequences=True, use_batch_norm=True),
            TCN(4, 2, dilations=(1, 2), activation="relu", dropout_rate=0.1),
            layers.Dense(1),
        ]
        return tf.keras.Sequential([tf.keras.Input((6, 3)), *steps])

    def functional():
        """With a function, and backwards."""
        x = tf.keras.Input((6, 3))
        y = TCN(4, 2, dilations=(1, 2), activation=tf.nn.relu, padding="same", name="first")(x)
        z = TCN(3, 2, dilations=(1, 2), use_skip_connections=False, go_backwards=True)(x)
        return tf.keras.Model(x, layers.Dense(1, activation="relu")(layers.Concatenate()([y, z])))

    x = images(2, 6, 3)
    return {
        "two TCNs": lambda: (stacked(), x),
        "TCNs of functions, backwards": lambda: (functional(), x),
    }


def mtcnn():
    from mtcnn.network.onet import ONet
    from mtcnn.network.pnet import PNet
    from mtcnn.network.rnet import RNet

    def onet():
        model = ONet()
        model.build((None, 48, 48, 3))
        return model, images(1, 48, 48, 3)

    def cascade():
        """The nets as layers of a functional model, ReLU after them."""
        x = tf.keras.Input((24, 24, 3))
        boxes, faces = RNet(name="rnet")(x)
        y = layers.Concatenate()([boxes, faces])
        more = layers.Flatten()(PNet(name="pnet")(layers.MaxPooling2D()(x))[0])
        y = layers.Dense(4, activation="relu")(layers.Concatenate()([y, more]))
        return tf.keras.Model(x, y), images(2, 24, 24, 3)

    return {"ONet": onet, "nets as layers": cascade}


def spektral():
    from spektral import layers as graphs
    from spektral.models import GCN, GeneralGNN

    features, adjacency = images(2, 5, 4), np.abs(images(2, 5, 5))

    def of_nodes():
        x, a = tf.keras.Input((5, 4)), tf.keras.Input((5, 5))
        y = graphs.GCNConv(6, activation="relu")([x, a])
        y = graphs.GATConv(4, attn_heads=2, activation="relu")([y, a])
        y = graphs.GlobalAvgPool()(y)
        return tf.keras.Model([x, a], layers.Dense(2, activation="relu")(y))

    def of_edges():
        x, a = tf.keras.Input((5, 4)), tf.keras.Input((5, 5))
        y = graphs.ChebConv(6, K=2, activation="relu")([x, a])
        y = graphs.DiffusionConv(3, K=2, activation="relu")([y, a])
        y, _ = graphs.MinCutPool(2, mlp_hidden=[4], mlp_activation="relu")([y, a])
        y = graphs.GlobalAttnSumPool()(layers.ReLU()(y))
        return tf.keras.Model([x, a], layers.Dense(2)(y))

    return {
        "GCNConv and GATConv": lambda: (of_nodes(), [features, adjacency]),
        "GCN": lambda: (GCN(2, channels=4), [features[0], adjacency[0]]),
        "ChebConv, DiffusionConv, MinCutPool": lambda: (of_edges(), [features, adjacency]),
        "GeneralGNN": lambda: (
            GeneralGNN(2, activation="relu", hidden=6, pool=None, message_passing=2),
            [features[0], tf.sparse.from_dense(np.eye(5, dtype="float32"))],
        ),
    }


def larq():
    import larq as lq

    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    binary["kernel_constraint"] = "weight_clip"

    def build():
        steps = [
            lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", activation="relu"),
            *(layers.BatchNormalization(), layers.ReLU()),
            lq.layers.QuantConv2D(4, 3, **binary),
            *(layers.BatchNormalization(), layers.PReLU(shared_axes=[1, 2]), layers.Flatten()),
            lq.layers.QuantDense(3, **binary),
        ]
        return tf.keras.Sequential([tf.keras.Input((8, 8, 3)), *steps]), images(1, 8, 8, 3)

    def residual():
        """Depthwise and separable ones, PReLU as an argument, in a graph with sums."""
        x = tf.keras.Input((8, 8, 4))
        act = layers.PReLU(shared_axes=[1, 2])
        y = lq.layers.QuantDepthwiseConv2D(3, padding="same", activation=act)(x)
        y = lq.layers.QuantSeparableConv2D(4, 3, padding="same", activation="relu")(y) + x
        y = lq.layers.QuantConv2DTranspose(3, 2, input_quantizer="approx_sign")(tf.nn.relu(y))
        return tf.keras.Model(x, layers.LeakyReLU(0.3)(y)), images(1, 8, 8, 4)

    return {"binary convolutions": build, "residual, separable": residual}


def qkeras():
    import qkeras as q

    bits = {"kernel_quantizer": "quantized_bits(4,0,1)", "bias_quantizer": "quantized_bits(4)"}

    def build():
        steps = [
            *(q.QConv2D(4, 3, **bits), q.QActivation("quantized_relu(4)")),
            *(q.QConv2D(4, 3, **bits, activation="relu"), layers.BatchNormalization()),
            *(layers.ReLU(), layers.Flatten(), q.QDense(3, **bits)),
        ]
        return tf.keras.Sequential([tf.keras.Input((8, 8, 3)), *steps]), images(1, 8, 8, 3)

    return {"quantised convolutions": build}


def kecam():
    import keras_cv_attention_models as k

    size, x = {"input_shape": (32, 32, 3), "num_classes": 3}, images(1, 32, 32, 3)
    few = {"num_blocks": [1, 1, 1, 1], "out_channels": [16, 16, 32, 32], "stem_width": 8}
    return {
        "AotNet, se and PReLU": lambda: (
            k.aotnet.AotNet(**few, **size, attn_types="se", activation="prelu"),
            x,
        ),
        "GhostNet": lambda: (k.ghostnet.GhostNet(width_mul=0.5, **size), x),
        "LeViT": lambda: (k.levit.LeViT128S(pretrained=None, **size), x),
    }


def keras_rs():
    import keras_rs

    def build():
        x = tf.keras.Input((6,))
        y = keras_rs.layers.FeatureCross(projection_dim=3, pre_activation="relu")(x, x)
        y = layers.Dense(6, activation="relu")(y)
        y = keras_rs.layers.DotInteraction()([layers.Dense(6)(x), y])
        return tf.keras.Model(x, layers.Dense(1)(y)), images(4, 6)

    return {"crosses and dots": build}


def tfp():
    import tensorflow_probability as tfp

    of, mean = tfp.layers, tfp.distributions.Distribution.mean

    def autoencoder():
        x = tf.keras.Input((8,))
        y = layers.Dense(of.MultivariateNormalTriL.params_size(2))(layers.ReLU()(x))
        prior = tfp.distributions.MultivariateNormalDiag(tf.zeros(2))
        kl = of.KLDivergenceRegularizer(prior)
        options = {"convert_to_tensor_fn": mean, "activity_regularizer": kl}
        y = layers.Dense(8, activation="relu")(of.MultivariateNormalTriL(2, **options)(y))
        return tf.keras.Model(x, layers.Dense(8)(y)), images(4, 8)

    def regression():
        normal = of.IndependentNormal(1, convert_to_tensor_fn=mean)
        steps = [layers.Dense(8, activation="relu"), layers.Dense(2), normal, layers.Dense(1)]
        return tf.keras.Sequential([tf.keras.Input((8,)), *steps]), images(4, 8)

    return {"variational autoencoder": autoencoder, "regression": regression}


def tfmot():
    import tensorflow_model_optimization as tfmot

    def pruned():
        steps = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()]
        steps += [layers.ReLU(), layers.Flatten(), layers.Dense(3)]
        model = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), *steps])
        return tfmot.sparsity.keras.prune_low_magnitude(model), images(1, 8, 8, 3)

    return {"pruned": pruned}


def unets():
    from keras_unet_collection import models

    sizes, x = ((32, 32, 3), [4, 8, 16], 2), images(1, 32, 32, 3)
    more = {"batch_norm": True}
    return {
        "U-Net++": lambda: (models.unet_plus_2d(*sizes, activation="ReLU", **more), x),
        "R2U-Net": lambda: (models.r2_unet_2d(*sizes, activation="PReLU", **more), x),
        "Attention U-Net": lambda: (
            models.att_unet_2d(*sizes, activation="LeakyReLU", atten_activation="ReLU", **more),
            x,
        ),
    }


def tfrs():
    import tensorflow_recommenders as tfrs

    def build():
        x = tf.keras.Input((8,))
        y = layers.Dense(8, activation="relu")(tfrs.layers.dcn.Cross(preactivation="relu")(x))
        return tf.keras.Model(x, layers.Dense(1)(y)), images(4, 8)

    return {"crosses": build}
