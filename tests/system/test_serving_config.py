"""The configuration files in examples/serving/ are such as TensorFlow Serving reads."""

import re
from pathlib import Path

import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

SERVING = Path(__file__).parents[2] / "examples" / "serving"
# As in main.cc, and as in session_bundle_config.proto, which tensorflow-serving-api lacks.
FLAGS = {
    *["model_config_file", "batching_parameters_file", "monitoring_config_file"],
    *["enable_batching", "grpc_max_threads"],
}
BATCHING = {
    *["max_batch_size", "max_execution_batch_size", "batch_timeout_micros"],
    *["max_enqueued_batches", "num_batch_threads", "enable_large_batch_splitting"],
}


def model_config():
    """The one model of models.config, read as TensorFlow Serving's message for it."""
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((SERVING / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    return model


def test_models_config_is_a_model_server_config():
    model = model_config()
    assert (model.name, model.base_path) == ("digits", "/models/digits")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2
    assert not model.version_labels, "a server doesn't start with them, unless a flag allows it"


def test_batching_splits_large_requests():
    text = (SERVING / "batching.txt").read_text()
    found = dict(re.findall(r"^(\w+) \{ value: (\w+) \}  # \w", text, re.MULTILINE))
    assert found.keys() == BATCHING
    assert found.pop("enable_large_batch_splitting") == "true"
    numbers = {name: int(value) for name, value in found.items()}
    assert numbers["max_batch_size"] >= 1024 > numbers["max_execution_batch_size"] > 1


def test_compose_mounts_what_is_there_and_has_known_flags():
    compose = yaml.safe_load((SERVING / "docker-compose.yml").read_text())
    (service,) = compose["services"].values()
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert flags.keys() == FLAGS
    assert int(flags["grpc_max_threads"]) == 64
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    inside = {target: source for source, target in mounts.items()}
    for flag, value in flags.items():
        if flag.endswith("_file"):
            assert (SERVING / inside[value]).is_file(), flag
    base_path = model_config().base_path
    assert (SERVING / inside[base_path]).resolve() == SERVING.parents[1] / "saved_models" / "digits"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["image"].startswith("tensorflow/serving:${TF_SERVING_TAG")
