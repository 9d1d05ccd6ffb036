"""The configuration files in examples/serving/ are what TensorFlow Serving can read."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

SERVING = Path(__file__).parents[2] / "examples" / "serving"
# Of session_bundle_config.proto and monitoring_config.proto, which tensorflow-serving-api lacks
MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "enable_large_batch_splitting": "BoolValue",
        "max_execution_batch_size": "Int64Value",
    },
    "PrometheusConfig": {"enable": "TYPE_BOOL", "path": "TYPE_STRING"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
}
FLAGS = {
    "model_config_file",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "grpc_max_threads",
}


@pytest.fixture(scope="module")
def messages():
    """The message classes of `MESSAGES`. The text form knows names and types, not numbers."""
    file = descriptor_pb2.FileDescriptorProto(
        name="held.proto",
        package="held",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            entry = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
            if kind.startswith("TYPE_"):
                entry.type = kinds.Type.Value(kind)
            else:
                package = "held" if kind in MESSAGES else "google.protobuf"
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"held.{name}"))
        for name in MESSAGES
    }


def parse(name, message):
    return text_format.Parse((SERVING / name).read_text(), message)


def test_models_config_is_a_model_server_config():
    config = parse("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("digits", "/models/digits")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2
    assert not model.version_labels, "a server doesn't start with them, unless a flag allows it"


def test_batching_is_batching_parameters(messages):
    batching = parse("batching.txt", messages["BatchingParameters"]())
    assert batching.enable_large_batch_splitting.value
    assert batching.max_batch_size.value >= 1024 > batching.max_execution_batch_size.value > 1


def test_monitoring_is_a_monitoring_config(messages):
    monitoring = parse("monitoring.txt", messages["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path.startswith("/")


def test_compose_mounts_what_is_there_and_gives_flags_that_are_known():
    compose = yaml.safe_load((SERVING / "docker-compose.yml").read_text())
    (service,) = compose["services"].values()
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert flags.keys() == FLAGS
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    inside = {target: source for source, target in mounts.items()}
    for flag, value in flags.items():
        if flag.endswith("_file"):
            assert (SERVING / inside[value]).is_file(), flag
    config = parse("models.config", model_server_config_pb2.ModelServerConfig())
    base_path = config.model_config_list.config[0].base_path
    assert (SERVING / inside[base_path]).resolve() == SERVING.parents[1] / "saved_models" / "digits"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["image"].startswith("tensorflow/serving:${TF_SERVING_TAG")
