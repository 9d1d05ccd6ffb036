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

    def resnet(**kwargs):
        kwargs = {"block_type": "basic_block", "use_pre_activation": False} | small | kwargs
        return hub.ResNetBackbone([64], [3], [64, 16], [1, 1], [1, 2], **kwargs)

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

    def mobilenet():
        return hub.MobileNetBackbone(
            stackwise_expansion=[[8], [16, 16]],
            stackwise_num_blocks=[1, 2],
            stackwise_num_filters=[[8], [8, 8]],
            stackwise_kernel_size=[[3], [3, 3]],
            stackwise_num_strides=[[2], [2, 1]],
            stackwise_se_ratio=[[None], [0.25, 0.25]],
            stackwise_activation=[["relu"], ["relu", "hard_swish"]],
            stackwise_padding=[[1], [1, 1]],
            output_num_filters=16,
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=16,
            squeeze_and_excite=0.5,
            **small,
        )

    def mit():
        return hub.MiTBackbone(
            hidden_dims=[4, 8],
            num_layers=2,
            layerwise_depths=[1, 1],
            layerwise_num_heads=[1, 2],
            layerwise_sr_ratios=[2, 1],
            layerwise_patch_sizes=[7, 3],
            layerwise_strides=[4, 2],
            max_drop_path_rate=0.1,
            **small,
        )

    def segformer():
        backbone = hub.SegFormerBackbone(image_encoder=mit(), projection_filters=8)
        return hub.SegFormerImageSegmenter(backbone, num_classes=2)

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

    def retina():
        size = {"image_shape": (64, 64, 3)}
        encoder = hub.ResNetBackbone(
            *([64], [7], [64, 8, 8, 8], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block"), **size
        )
        return hub.RetinaNetBackbone(encoder, min_level=3, max_level=5, use_p5=False, **size)

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

    def xception():
        backbone = hub.XceptionBackbone([[4, 8], [8, 8]], [True, False], **small)
        return hub.XceptionImageClassifier(backbone, 3)

    def cspnet():
        sizes = [1, 1], [1, 2], [4, 8], "dark_block"
        return hub.CSPNetBackbone(4, 3, 1, *sizes, stage_type="dark", **small)

    of_images = {
        "ResNetBackbone": resnet,
        "ResNetBackbone, v2": lambda: resnet(
            use_pre_activation=True, block_type="bottleneck_block"
        ),
        "ResNetImageClassifier": lambda: hub.ResNetImageClassifier(resnet(), 3),
        "VGGImageClassifier": lambda: hub.VGGImageClassifier(
            hub.VGGBackbone([1, 1], [4, 8], **small), 3
        ),
        "DenseNetBackbone": lambda: hub.DenseNetBackbone([2, 2], growth_rate=4, **small),
        "XceptionImageClassifier": xception,
        "MobileNetImageClassifier": lambda: hub.MobileNetImageClassifier(mobilenet(), 3),
        "HGNetV2Backbone": hgnet,
        "CSPNetBackbone": cspnet,
        "SegFormerImageSegmenter": segformer,
        "DeepLabV3ImageSegmenter": deeplab,
    }
    speech = {"encoder_features": images(2, 8, 4)} | {f"decoder_{k}": v for k, v in row.items()}
    return {name: lambda make=make: (make(), x) for name, make in of_images.items()} | {
        "OPTCausalLM": lambda: (
            hub.OPTCausalLM(hub.OPTBackbone(**words, max_sequence_length=6), preprocessor=None),
            row,
        ),
        "BertTextClassifier": lambda: (bert(), segments),
        "RetinaNetBackbone": lambda: (retina(), images(1, 64, 64, 3)),
        "BASNetImageSegmenter": lambda: (hub.BASNetImageSegmenter(basnet()), images(1, 64, 64, 3)),
        "WhisperBackbone": lambda: (
            hub.WhisperBackbone(**words, num_mels=4, max_encoder_sequence_length=8),
            speech,
        ),
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
        x = tf.keras.Input((6, 3))
        return tf.keras.Model(x, TCN(4, 2, dilations=(1, 2), use_layer_norm=True, name="t")(x))

    x = images(2, 6, 3)

    def within():
        """In a wrapper, with a function, and in a model of a class."""
        x = tf.keras.Input((6, 3))
        y = TCN(4, 2, dilations=(1, 2), activation=tf.nn.relu, padding="same", name="first")(x)
        z = TCN(3, 2, dilations=(1, 2), use_skip_connections=False, go_backwards=True)(x)
        return tf.keras.Model(x, layers.Dense(1, activation="relu")(layers.Concatenate()([y, z])))

    return {
        "two TCNs": lambda: (stacked(), x),
        "TCN": lambda: (functional(), x),
        "TCNs of functions, backwards": lambda: (within(), x),
    }


def mtcnn():
    from mtcnn.network.onet import ONet
    from mtcnn.network.pnet import PNet
    from mtcnn.network.rnet import RNet

    sizes = {"PNet": (PNet, 16), "RNet": (RNet, 24), "ONet": (ONet, 48)}

    def build(net, size):
        model = net()
        model.build((None, size, size, 3))
        return model, images(1, size, size, 3)

    def cascade():
        """The nets as layers of a functional model, ReLU after them."""
        x = tf.keras.Input((24, 24, 3))
        boxes, faces = RNet(name="rnet")(x)
        y = layers.Concatenate()([boxes, faces])
        more = layers.Flatten()(PNet(name="pnet")(layers.MaxPooling2D()(x))[0])
        y = layers.Dense(4, activation="relu")(layers.Concatenate()([y, more]))
        return tf.keras.Model(x, y), images(2, 24, 24, 3)

    return {
        name: lambda net=net, size=size: build(net, size) for name, (net, size) in sizes.items()
    } | {"nets as layers": cascade}


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


def stardist():
    import tempfile

    from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D

    def build():
        config = Config2D(n_rays=4, unet_n_depth=2, unet_n_filter_base=4, net_conv_after_unet=8)
        made = StarDist2D(config, name="small", basedir=tempfile.mkdtemp())
        return made.keras_model, images(1, 16, 16, 1)

    def of_volumes():
        config = Config3D(rays=6, backbone="resnet", resnet_n_blocks=2, resnet_n_filter_base=4)
        made = StarDist3D(config, name="small", basedir=tempfile.mkdtemp())
        return made.keras_model, images(1, 8, 8, 8, 1)

    return {"StarDist2D": build, "StarDist3D, resnet": of_volumes}


def segmentation_models():
    import segmentation_models as sm

    def build(kind, backbone):
        shape = (48, 48, 3) if kind == "PSPNet" else (64, 64, 3)
        made = getattr(sm, kind)(backbone, input_shape=shape, encoder_weights=None)
        return made, images(1, *shape)

    pairs = {"Unet": "resnet18", "Linknet": "seresnet18", "FPN": "mobilenet", "PSPNet": "vgg16"}
    return {f"{k}, {b}": lambda k=k, b=b: build(k, b) for k, b in pairs.items()}


def keras_unet_collection():
    from keras_unet_collection import models as made

    def of(kind, *args, size=32, **kwargs):
        return getattr(made, kind)((size, size, 1), *args, **kwargs), images(1, size, size, 1)

    few = {"size": 16}
    return {
        "unet_2d": lambda: of("unet_2d", [4, 8], 2, batch_norm=True, **few),
        "unet_2d, PReLU": lambda: of("unet_2d", [4, 8], 2, activation="PReLU", **few),
        "unet_plus_2d": lambda: of("unet_plus_2d", [4, 8, 8], 2, activation="LeakyReLU", **few),
        "att_unet_2d": lambda: of("att_unet_2d", [4, 8], 2, atten_activation="ReLU", **few),
        "r2_unet_2d": lambda: of("r2_unet_2d", [4, 8], 2, **few),
        "vnet_2d": lambda: of("vnet_2d", [4, 8], 2, 1, 2, activation="PReLU", **few),
        "u2net_2d": lambda: of("u2net_2d", 2, [4, 8]),
        "unet_3plus_2d": lambda: of(
            "unet_3plus_2d", 2, [4, 8, 8], deep_supervision=True, batch_norm=True
        ),
        "resunet_a_2d": lambda: of("resunet_a_2d", [4, 8], [1, 3], 2, 8, 4, activation="PReLU"),
        "transunet_2d": lambda: of(
            "transunet_2d", [4, 8], 2, 1, 1, 8, 16, 2, 1, mlp_activation="ReLU"
        ),
        "swin_unet_2d": lambda: of("swin_unet_2d", 8, 2, 2, 1, 1, (2, 2), [2, 2], [2, 2], 16),
    }


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
        "AotNet": lambda: (k.aotnet.AotNet(**few, **size), x),
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
