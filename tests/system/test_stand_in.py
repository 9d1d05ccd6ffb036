"""The stand-in that speaks TF Serving's protocol, held against what its code was recorded to do."""

import base64
import http.client
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_leaky import LeakyReLU, export_saved_model

pytestmark = list(SLOW_UNDER_TF_KERAS)

SERVING = Path(__file__).parents[1] / "serving"
RECORDED = json.loads((SERVING / "tf_serving_rest_recorded.json").read_text())
ROWS = [[1, -2, 3, -4], [0.5, 0.25, -0.125, 2]]
SCORES = [[0.83513093, 0.03686793, 0.1280011], [0.2740756, 0.5648019, 0.16112253]]


@pytest.fixture(scope="module")
def toy():
    model = stand_in.Model("toy", SERVING / "toy", labels={"stable": 1})
    with stand_in.Server([model]) as server:
        yield server


def rest(address, method, path, body=None):
    """The status, content type and text of an answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read().decode()
    finally:
        connection.close()


def ask(server, body, model="toy"):
    """The status of a predict over REST, and its JSON."""
    status, _, text = rest(server.rest, "POST", f"/v1/models/{model}:predict", json.dumps(body))
    return status, json.loads(text)


@pytest.fixture
def channel(toy):
    with grpc.insecure_channel(toy.grpc) as opened:
        yield opened


def request_for(rows, name="toy", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in spec.items():
        setattr(request.model_spec, key, value)
    request.inputs["features"].CopyFrom(tf.make_tensor_proto(rows, tf.float32))
    return request


def without_text(answer):
    """A JSON answer with its error message's text left out, which may change."""
    return {"error": ...} if isinstance(answer, dict) and "error" in answer else answer


def test_recording_is_whole():
    assert len(RECORDED) == 41


@pytest.mark.parametrize(
    "case",
    RECORDED,
    ids=[f"{i} {case['method']} {case['path']}" for i, case in enumerate(RECORDED)],
)
def test_recorded_request_gets_the_recorded_answer(case, toy):
    status, content_type, text = rest(toy.rest, case["method"], case["path"], case["body"])
    assert (status, content_type) == (case["status"], case["content_type"]), text
    if content_type == "text/html":
        return
    answer, recorded = without_text(json.loads(text)), without_text(json.loads(case["response"]))
    if ":predict" in case["path"] and status == 200:
        assert answer.keys() == recorded.keys()
        (found,), (expected,) = answer.values(), recorded.values()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert answer == recorded


def test_not_a_number_is_bare_in_a_good_answer(toy):
    _, _, text = rest(toy.rest, "POST", "/v1/models/toy:predict", '{"instances": [[NaN, 1, 1, 1]]}')
    assert "NaN" in text
    assert '"NaN"' not in text


def test_number_that_no_double_holds_is_refused(toy):
    status, _, text = rest(toy.rest, "POST", "/v1/models/toy:predict", '{"inputs": [[1e400]]}')
    assert status == 400
    assert "Number too big" in json.loads(text)["error"]


@pytest.mark.parametrize("length", ["abc", "-1", "1.5"])
def test_length_that_is_none_is_refused(length, toy):
    connection = http.client.HTTPConnection(toy.rest, timeout=30)
    connection.putrequest("POST", "/v1/models/toy:predict")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_label_names_a_version(toy):
    body = json.dumps({"instances": ROWS})
    for label, status in (("stable", 200), ("canary", 400)):
        path = f"/v1/models/toy/labels/{label}:predict"
        assert rest(toy.rest, "POST", path, body)[0] == status


def test_grpc_predicts_the_same(channel):
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = service.Predict(request_for(ROWS), timeout=30)
    (scores,) = response.outputs.values()
    np.testing.assert_allclose(tf.make_ndarray(scores), SCORES, rtol=1e-6)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "serving_default")
    assert service.Predict(request_for(ROWS, signature_name="serve")).outputs.keys() == {"output_0"}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (request_for(ROWS, name="nope"), "NOT_FOUND"),
        (request_for(ROWS, signature_name="nope"), "FAILED_PRECONDITION"),
        (request_for(ROWS, version_label="nope"), "INVALID_ARGUMENT"),
        (request_for([[1, 2, 3]]), "INVALID_ARGUMENT"),
        (predict_pb2.PredictRequest(model_spec={"name": "toy"}), "INVALID_ARGUMENT"),
    ],
    ids=["model", "signature", "label", "shape", "no input"],
)
def test_grpc_refuses_by_code(request_, code, channel):
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        service.Predict(request_, timeout=30)
    assert caught.value.code() == grpc.StatusCode[code]


def test_grpc_refuses_another_dtype_and_an_unknown_output(channel):
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    wrong_dtype, wrong_output = request_for(ROWS), request_for(ROWS)
    wrong_dtype.inputs["features"].CopyFrom(tf.make_tensor_proto(ROWS, tf.float64))
    wrong_output.output_filter.append("nope")
    for request in (wrong_dtype, wrong_output):
        with pytest.raises(grpc.RpcError) as caught:
            service.Predict(request, timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("shape", [{"unknown_rank": True}, {"dim": [{"size": -1}, {"size": 4}]}])
def test_grpc_refuses_a_shape_that_is_not_known(shape, channel):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    (name,) = toy_inputs(channel)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(np.float32(ROWS)))
    request.inputs[name].tensor_shape.Clear()
    request.inputs[name].tensor_shape.MergeFrom(
        tf.make_tensor_proto(0.0).tensor_shape.__class__(**shape)
    )
    with pytest.raises(grpc.RpcError) as refused:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def toy_inputs(channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "toy"}, metadata_field=["signature_def"]
    )
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return signatures.signature_def["serving_default"].inputs


def test_grpc_tells_status_and_metadata(channel):
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "toy"})
    )
    assert [(v.version, v.state) for v in status.model_version_status] == [
        (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    ]
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": "toy"})
    with pytest.raises(grpc.RpcError, match="metadata_field"):
        service.GetModelMetadata(request)
    request.metadata_field.append("signature_def")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    service.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs.keys() == {"features"}


def test_strings_several_inputs_and_several_outputs(tmp_path):
    """What the toy model has none of; a tf.Module, so that every name is known."""

    class Module(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 2], tf.int64)]
        )
        def serve(self, text, number):
            return {
                "text": tf.strings.join([text, "!"]),
                "raw_bytes": text,
                "sum": tf.reduce_sum(number, axis=1),
                "positive": number > 0,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float16)])
        def half(self, x):
            return {"y": x * 2}

    module = Module()
    signatures = {"serving_default": module.serve, "half": module.half}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    raw = {"b64": base64.b64encode(b"\xff\x00").decode()}
    rows = [{"text": "a", "number": [1, -2]}, {"text": "é", "number": [3, 4]}]
    with stand_in.Server([stand_in.Model("m", tmp_path)]) as server:
        status, answer = ask(server, {"instances": rows}, "m")
        assert status == 200
        assert answer["predictions"][0] == {
            "text": "a!",
            "raw_bytes": {"b64": "YQ=="},
            "sum": -1,
            "positive": [True, False],
        }
        assert answer["predictions"][1]["text"] == "é!"
        columns = {"text": [raw], "number": [[1, 2]]}
        status, answer = ask(server, {"inputs": columns}, "m")
        assert status == 200
        assert answer["outputs"]["raw_bytes"] == [raw]
        assert answer["outputs"]["sum"] == [3]
        for wrong in (
            {"instances": ["a"]},
            {"inputs": ["a"]},
            {"instances": [{"text": "a"}]},
            {"instances": [{"text": "a", "number": [1.5, 2]}]},
            {"instances": [{"text": "a", "number": [True, 2]}]},
            {"instances": [{"text": 1, "number": [1, 2]}]},
            {"instances": [{"text": {"b64": "*"}, "number": [1, 2]}]},
            {"instances": [rows[0], [1]]},
            {"instances": [{"text": "a", "number": [1, [2]]}]},
            {"signature_name": 1, "instances": rows},
            {"signature_name": "__saved_model_init_op", "instances": rows},
        ):
            status, answer = ask(server, wrong, "m")
            assert (status, list(answer)) == (400, ["error"]), wrong
        # REST has no half precision, in TF Serving neither
        assert ask(server, {"signature_name": "half", "instances": [1.0]}, "m")[0] == 501
        assert ask(server, {"signature_name": "half", "instances": []}, "m")[0] == 400


@pytest.fixture
def export(tmp_path):
    """Exports a model that answers with its fixed slope, as a version of `tmp_path / "slope"`."""

    def make(slope, version):
        model = tf.keras.Sequential([tf.keras.Input((1,)), LeakyReLU(slope)])
        return export_saved_model(model, tmp_path / "slope", version=version)

    return make


def states(server):
    _, _, text = rest(server.rest, "GET", "/v1/models/slope")
    return {v["version"]: v["state"] for v in json.loads(text).get("model_version_status", [])}


def slope_of(server):
    status, answer = ask(server, {"instances": [[-1.0]]}, "slope")
    return -answer["predictions"][0][0] if status == 200 else status


def test_new_version_takes_over_and_a_removed_one_gives_back(export, tmp_path):
    export(0.5, 1)
    for name in (".exporting-2-1", "2_draft", "two"):
        (tmp_path / "slope" / name).mkdir()
    model = stand_in.Model("slope", tmp_path / "slope", poll_seconds=600)
    with stand_in.Server([model]) as server:
        assert slope_of(server) == 0.5
        assert states(server) == {"1": "AVAILABLE"}
        version = export(0.25, 10)
        model.poll()
        assert slope_of(server) == 0.25
        assert states(server) == {"10": "AVAILABLE", "1": "END"}
        shutil.rmtree(version)
        model.poll()
        assert slope_of(server) == 0.5
        shutil.rmtree(tmp_path / "slope" / "1")
        model.poll()
        assert slope_of(server) == 404
        shutil.rmtree(tmp_path / "slope")
        model.poll()


def test_version_that_does_not_load_leaves_the_one_before(export, tmp_path):
    export(0.5, 1)
    model = stand_in.Model("slope", tmp_path / "slope", poll_seconds=600)
    with stand_in.Server([model]) as server:
        (tmp_path / "slope" / "2").mkdir()
        model.poll()
        assert states(server) == {"2": "END", "1": "AVAILABLE"}
        assert slope_of(server) == 0.5
        shutil.rmtree(tmp_path / "slope" / "2")
        model.poll()
        export(0.25, 2)
        model.poll()
        assert slope_of(server) == 0.25


def test_warm_up_that_does_not_fit_fails_the_version(tmp_path):
    shutil.copytree(SERVING / "toy" / "1", tmp_path / "1")
    record = tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
    (log,) = list(tf.data.TFRecordDataset(str(record)).take(1).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(record)) as writer:
        writer.write(log.replace(b"features", b"Features"))
    model = stand_in.Model("toy", tmp_path)
    try:
        assert "input size does not match" in model.states[1][1]
    finally:
        model.close()


def test_version_is_closed_only_when_nobody_uses_it(export, tmp_path):
    export(0.5, 1)
    model = stand_in.Model("slope", tmp_path / "slope", poll_seconds=600)
    with model.lend(None, None) as (version, number):
        export(0.25, 2)
        polling = threading.Thread(target=model.poll)
        polling.start()
        with model._changed:
            assert model._changed.wait_for(lambda: 2 in model._up, timeout=60)
        assert number == 1
        (name,) = version.signatures["serving_default"].inputs
        (answer,) = version.run("serving_default", {name: np.float32([[-1]])}).values()
        assert answer == [[-0.5]]
    polling.join(60)
    model.close()
    assert {n: state for n, (state, _) in model.states.items()} == {
        1: stand_in.State.END,
        2: stand_in.State.END,
    }


@pytest.mark.slow
def test_script_serves_and_stops_by_signal():
    command = [sys.executable, Path(stand_in.__file__), "--model_name=toy"]
    command += [f"--model_base_path={SERVING / 'toy'}", "--file_system_poll_wait_seconds=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("a stand-in that speaks TF Serving's protocol: REST on 127.")
            address = line.split()[-4].rstrip(",")
            assert rest(address, "GET", "/v1/models/toy")[0] == 200
        finally:
            process.terminate()
        assert process.wait(30) == 0
