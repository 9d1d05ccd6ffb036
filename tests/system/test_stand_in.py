"""The stand-in of `make serve`, compared with what TensorFlow Serving's code was recorded to do."""

import http.client
import json
from contextlib import closing

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from served import HOUR, RECORDED, ROWS, SCORES, TOY, standing_in
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

pytestmark = list(SLOW_UNDER_TF_KERAS)


@pytest.fixture(scope="module")
def toy():
    with standing_in("toy", TOY) as server:
        yield server


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: "{method} {path} {body}".format(**case))
def test_recorded_request_gets_the_recorded_answer(case, toy):
    with closing(http.client.HTTPConnection(toy.rest, timeout=HOUR)) as connection:
        connection.request(case["method"], case["path"], case["body"])
        found = connection.getresponse()
        status, content_type = found.status, found.headers.get_content_type()
        text = found.read().decode()
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
