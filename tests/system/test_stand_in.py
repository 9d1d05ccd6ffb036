"""The stand-in of `make serve`, compared with what TensorFlow Serving's code was recorded to do."""

import base64
import http.client
import json
import subprocess
import sys
from contextlib import closing

import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from served import HOUR, RECORDED, ROWS, SCORES, TOY, standing_in
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

pytestmark = list(SLOW_UNDER_TF_KERAS)


@pytest.fixture(scope="module")
def toy():
    with standing_in("toy", TOY) as server:
        yield server


def rest(server, method, path, body=None):
    """The status, content type and text of an answer."""
    with closing(http.client.HTTPConnection(server.rest, timeout=HOUR)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read().decode()


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: "{method} {path} {body}".format(**case))
def test_recorded_request_gets_the_recorded_answer(case, toy):
    status, content_type, text = rest(toy, case["method"], case["path"], case["body"])
    assert (status, content_type) == (case["status"], case["content_type"]), text
    if content_type == "text/html":
        return
    answer, recorded = json.loads(text), json.loads(case["response"])
    if "error" in recorded:  # in words that may change
        assert list(answer) == ["error"]
    elif ":predict" in case["path"]:
        assert answer.keys() == recorded.keys()
        (found,), (expected,) = answer.values(), recorded.values()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert answer == recorded


def predict(server, **request):
    """What a PredictRequest gets over gRPC."""
    with grpc.insecure_channel(server.grpc) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return service.Predict(predict_pb2.PredictRequest(**request), timeout=HOUR)


def features(rows, dtype=tf.float32):
    return {"features": tf.make_tensor_proto(rows, dtype)}


def test_grpc_predicts_the_same(toy):
    chosen = {"name": "toy", "signature_name": "serve"}
    response = predict(toy, model_spec=chosen, inputs=features(ROWS), output_filter=["none"])
    assert not response.outputs
    response = predict(toy, model_spec={"name": "toy"}, inputs=features(ROWS))
    (scores,) = response.outputs.values()
    np.testing.assert_allclose(tf.make_ndarray(scores), SCORES, rtol=1e-6)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "serving_default")
    for spec, inputs, code in (
        ({"name": "nope"}, features(ROWS), "NOT_FOUND"),
        ({"name": "toy", "version_label": "nope"}, features(ROWS), "INVALID_ARGUMENT"),
        ({"name": "toy", "signature_name": "nope"}, features(ROWS), "INVALID_ARGUMENT"),
        ({"name": "toy"}, features(ROWS, tf.float64), "INVALID_ARGUMENT"),
        ({"name": "toy"}, {}, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            predict(toy, model_spec=spec, inputs=inputs)
        assert caught.value.code() == grpc.StatusCode[code]


class OfAllKinds(tf.Module):
    """What the toy model has none of."""

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 2], tf.int64)]
    )
    def serve(self, text, number):
        joined, total = tf.strings.join([text, "!"]), tf.reduce_sum(number, axis=1)
        return {"text": joined, "raw_bytes": text, "sum": total, "positive": number > 0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16)])
    def half(self, x):
        return {"y": tf.cast(x, tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def bfloat16(self, x):
        return {"y": tf.cast(x, tf.bfloat16), "mean": tf.reduce_mean(x)}


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("all_kinds"), OfAllKinds()
    signatures = {"serving_default": module.serve, "half": module.half, "bfloat16": module.bfloat16}
    for version in ("9", "10"):
        tf.saved_model.save(module, str(folder / version), signatures=signatures)
    (folder / "11_draft").mkdir()
    with standing_in("m", folder) as server:
        yield server


def ask(server, **body):
    """The status of a predict over REST, and its JSON."""
    status, _, text = rest(server, "POST", "/v1/models/m:predict", json.dumps(body))
    return status, json.loads(text)


def test_strings_several_inputs_and_several_outputs(all_kinds):
    raw = {"b64": base64.b64encode(b"\xff\x00").decode()}
    rows = [{"text": "a", "number": [1, -2]}, {"text": "é", "number": [3, 4]}]
    status, answer = ask(all_kinds, instances=rows)
    assert status == 200
    first = {"text": "a!", "raw_bytes": {"b64": "YQ=="}, "sum": -1, "positive": [True, False]}
    assert answer["predictions"][0] == first
    assert answer["predictions"][1]["text"] == "é!"
    status, answer = ask(all_kinds, inputs={"text": [raw], "number": [[1, 2]]})
    assert status == 200
    assert (answer["outputs"]["raw_bytes"], answer["outputs"]["sum"]) == ([raw], [3])
    assert rest(all_kinds, "GET", "/v1/models/m/versions/10")[0] == 200  # the highest
    for body in (
        {"instances": ["a"]},
        {"instances": [{"text": "a"}]},
        {"instances": [{"text": "a", "number": [1.5, 2]}]},
        {"instances": [{"text": "a", "number": [2**64, 2]}]},
        {"instances": [{"text": {"b64": "*"}, "number": [1, 2]}]},
        {"instances": [{"text": "a", "number": [1, [2]]}]},
        {"signature_name": "bfloat16", "instances": [1.0, 2.0]},  # an output without a batch axis
    ):
        status, answer = ask(all_kinds, **body)
        assert (status, list(answer)) == (400, ["error"]), body


def test_half_precision_is_refused_over_rest_and_taken_over_grpc(all_kinds):
    """As TensorFlow Serving does it."""
    status, answer = ask(all_kinds, signature_name="bfloat16", inputs=[1.0])
    assert status == 400
    assert answer["error"] == "Failed to write JSON value for tensor type: bfloat16"
    assert ask(all_kinds, signature_name="half", instances=[1.0])[0] == 400
    for name, dtype in (("half", tf.float16), ("bfloat16", tf.float32)):
        given = {"x": tf.make_tensor_proto([0.5], dtype)}
        spec = {"name": "m", "signature_name": name}
        response = predict(all_kinds, model_spec=spec, inputs=given)
        assert tf.make_ndarray(response.outputs["y"]).astype("float32").tolist() == [0.5]


def test_folder_without_a_version_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="expected a version in "):
        stand_in.Model("m", tmp_path)


@pytest.mark.slow
def test_script_prints_the_free_ports_that_it_took_and_stops_by_signal():
    command = [sys.executable, stand_in.__file__, "--model_name=toy", f"--model_base_path={TOY}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith(f"{stand_in.WHAT}: REST on 127.")
            with closing(http.client.HTTPConnection(line.split()[-4].rstrip(","))) as connection:
                connection.request("GET", "/v1/models/toy")
                assert connection.getresponse().status == 200
        finally:
            process.terminate()
        assert process.wait() == 0
