"""The stand-in of `make serve`, compared with what TensorFlow Serving's code was recorded to do."""

import json

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from served import HOUR, RECORDED, ROWS, TOY, asked, standing_in
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

pytestmark = list(SLOW_UNDER_TF_KERAS)


@pytest.fixture(scope="module")
def toy():
    with standing_in("toy", TOY) as server:
        yield server


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: "{method} {path} {body}".format(**case))
def test_recorded_request_gets_the_recorded_answer(case, toy):
    found = asked(case, toy)
    content_type = found.headers["Content-Type"]
    assert (found.status, content_type) == (case["status"], case["content_type"]), found.data
    if content_type == "text/html":
        return
    answer, recorded = json.loads(found.data), json.loads(case["response"])
    if "error" in recorded:  # in words that may change
        assert list(answer) == ["error"]
    elif ":predict" in case["path"]:
        assert answer.keys() == recorded.keys()
        (found,), (expected,) = answer.values(), recorded.values()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert answer == recorded


@pytest.mark.parametrize(
    ("spec", "dtype", "code"),
    [
        ({"name": "nope"}, tf.float32, "NOT_FOUND"),
        ({"name": "toy", "version_label": "nope"}, tf.float32, "INVALID_ARGUMENT"),
        ({"name": "toy", "signature_name": "nope"}, tf.float32, "INVALID_ARGUMENT"),
        ({"name": "toy"}, tf.float64, "INVALID_ARGUMENT"),
    ],
)
def test_grpc_refuses_what_tensorflow_serving_does(spec, dtype, code, toy):
    inputs = {"features": tf.make_tensor_proto(ROWS, dtype)}
    request = predict_pb2.PredictRequest(model_spec=spec, inputs=inputs)
    with grpc.insecure_channel(toy.grpc) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            service.Predict(request, timeout=HOUR)
    assert caught.value.code() == grpc.StatusCode[code]
