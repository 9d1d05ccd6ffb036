"""The stand-in of `make serve`, compared with what TensorFlow Serving's code was recorded to do."""

import base64
import http.client
import json
from contextlib import closing

import client
import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from served import CLIENTS, HOUR, RECORDED, ROWS, SCORES, TOY, connect, standing_in
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


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("all_kinds"), OfAllKinds()
    for version in ("9", "10"):
        tf.saved_model.save(module, str(folder / version), signatures=module.serve)
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
    for make in CLIENTS:
        match = r"a model with one input. Received: \['number', 'text'\]"
        with pytest.raises(client.ServerError, match=match):
            connect(make, all_kinds, "m")
    for body in (
        {"instances": [{"text": "a"}]},
        {"instances": [{"text": "a", "number": [2**64, 2]}]},
        {"instances": [{"text": {"b64": "*"}, "number": [1, 2]}]},
        {"instances": [{"text": "a", "number": [1, [2]]}]},
    ):
        status, answer = ask(all_kinds, **body)
        assert (status, list(answer)) == (400, ["error"]), body


def test_folder_without_a_version_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="expected a version in "):
        stand_in.Model("m", tmp_path)
