"""NVIDIA's client against a real server: all calls of its own, and the same bits as by POST /infer."""

import re

import numpy as np
import pytest
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from app.version import version
from tests.app.api.v2.triton import inferred, numbers, tensor, wanted
from tests.app.asynchronous import run
from tests.app.harness import ROOT

MODEL = "dnc-copy"
CODINGS = [None, "gzip", "deflate"]


def test_server_and_models_are_live_and_ready(triton):
    assert (triton.is_server_live(), triton.is_server_ready()) == (True, True)
    ready = [triton.is_model_ready(MODEL), triton.is_model_ready(MODEL, "1")]
    assert ready == [True, True]
    assert not any([triton.is_model_ready("nobody"), triton.is_model_ready(MODEL, "3")])


def test_server_names_its_extensions(triton):
    metadata = triton.get_server_metadata()
    assert (metadata["name"], metadata["version"]) == ("engram", version())
    assert {"sequence", "sequence(string_id)", "binary_tensor_data", "statistics"} <= {*metadata["extensions"]}


def test_model_describes_its_tensors_and_its_sequences(triton):
    metadata = triton.get_model_metadata(MODEL, "1")
    assert metadata["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, -1, 10]}]
    assert metadata["outputs"] == [{"name": "outputs", "datatype": "FP32", "shape": [-1, -1, 8]}]
    config = triton.get_model_config(MODEL)
    assert (config["name"], config["max_batch_size"]) == (MODEL, 8)
    assert config["input"] == [{"name": "inputs", "data_type": "TYPE_FP32", "dims": [-1, 10]}]
    assert config["sequence_batching"]["max_sequence_idle_microseconds"] == 604_800_000_000
    assert "read_weights" in config["parameters"]["traces"]["string_value"].split(",")


def test_index_has_every_model(triton, client):
    served = {model["name"]: model["state"] for model in triton.get_model_repository_index()}
    assert served == dict.fromkeys((model["name"] for model in client.get("/models").json()), "READY")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 10), (3, 10), (1, 10), (10,)])
def test_outputs_are_those_of_infer_to_the_bit(triton, server, shape, binary):
    inputs = numbers(int(np.prod(shape)) // 10)
    expected = inferred(server.url, inputs)["outputs"]
    answer = triton.infer(MODEL, tensor(inputs.reshape(shape), binary), outputs=wanted("outputs", binary=binary))
    assert np.array_equal(answer.as_numpy("outputs"), expected.reshape(*shape[:-1], 8))
    assert ("data" in answer.get_output("outputs")) == (not binary)


def test_batch_is_answered_as_each_sequence_alone(triton, server):
    batch = np.stack([numbers(4, seed) for seed in range(3)])
    outputs = triton.infer(MODEL, tensor(batch)).as_numpy("outputs")
    alone = [inferred(server.url, inputs)["outputs"] for inputs in batch]
    assert np.array_equal(outputs, np.stack(alone))


def test_second_version_has_shapes_without_a_variable_size(triton):
    metadata = triton.get_model_metadata(MODEL, "2")
    assert (metadata["versions"], triton.is_model_ready(MODEL, "2")) == (["1", "2"], True)
    assert metadata["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 10]}]
    config = triton.get_model_config(MODEL, "2")
    assert (config["input"][0]["dims"], config["output"][0]["dims"]) == ([10], [8])
    [statistics] = triton.get_inference_statistics(MODEL, "2")["model_stats"]
    assert statistics["version"] == "2"


@pytest.mark.parametrize("binary", [True, False])
def test_second_version_answers_a_step_of_each_row(triton, server, binary):
    rows = numbers(3)
    answer = triton.infer(MODEL, tensor(rows, binary), "2", outputs=wanted("outputs", "usage", binary=binary))
    alone = [inferred(server.url, row[None], ["usage"]) for row in rows]
    assert answer.get_response()["model_version"] == "2"
    assert all(np.array_equal(answer.as_numpy(name), np.concatenate([one[name] for one in alone])) for name in alone[0])


def test_sequence_goes_on_whatever_the_version_of_its_requests(triton, server):
    inputs, outputs = numbers(4), []
    for index, row in enumerate(inputs):
        version, shape = [("2", (1, 10)), ("1", (1, 1, 10))][index % 2]
        given = tensor(row.reshape(shape))
        answer = triton.infer(MODEL, given, version, sequence_id="both", sequence_start=not index)
        outputs.append(answer.as_numpy("outputs").reshape(8))
    assert np.array_equal(outputs, inferred(server.url, inputs)["outputs"])


def test_traces_are_outputs_by_their_names(triton, server):
    inputs, names = numbers(3), ("read_weights", "usage")
    expected = inferred(server.url, inputs, names)
    answer = triton.infer(MODEL, tensor(inputs), outputs=[*wanted("usage", binary=False), *wanted("read_weights")])
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["usage", "read_weights"]
    assert all(np.array_equal(answer.as_numpy(name), expected[name]) for name in names)
    assert answer.as_numpy("outputs") is None


def test_answer_has_the_id_of_the_request(triton):
    answer = triton.infer(MODEL, tensor(numbers(1)), model_version="1", request_id="seven").get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", MODEL, "1")
    assert "id" not in triton.infer(MODEL, tensor(numbers(1))).get_response()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_are_compressed_as_the_client_asks(triton, server, coding, binary):
    inputs = numbers(60)
    answer = triton.infer(
        MODEL,
        tensor(inputs, binary),
        outputs=wanted("outputs", "usage", binary=binary),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    expected = inferred(server.url, inputs, ["usage"])
    assert all(np.array_equal(answer.as_numpy(name), expected[name]) for name in expected)


@pytest.mark.parametrize(("accept", "coding"), [("gzip;q=0, deflate", "deflate"), ("br", None), ("x, GZIP", "gzip")])
def test_answer_is_in_a_coding_that_the_client_takes(client, accept, coding):
    tensors = [{"name": "inputs", "datatype": "FP32", "shape": [60, 10], "data": numbers(60).tolist()}]
    answer = client.post(f"/v2/models/{MODEL}/infer", json={"inputs": tensors}, headers={"Accept-Encoding": accept})
    assert (answer.headers.get("content-encoding"), answer.json()["outputs"][0]["shape"]) == (coding, [60, 8])


@pytest.mark.parametrize("binary", [True, False])
def test_large_requests_and_answers_are_whole(triton, server, binary):
    inputs = np.round(numbers(500), 2)
    names = ("outputs", "read_weights", "write_vectors")
    answer = triton.infer(MODEL, tensor(inputs, binary), outputs=wanted(*names, binary=binary))
    expected = inferred(server.url, inputs, names[1:])
    assert expected["read_weights"].nbytes > 60_000
    assert all(np.array_equal(answer.as_numpy(name), expected[name]) for name in names)


def test_large_tensor_in_binary_is_read_by_another_process(triton, server):
    batch = np.stack([numbers(500)] * 8)
    outputs = triton.infer(MODEL, tensor(batch)).as_numpy("outputs")
    assert np.array_equal(outputs, np.stack([inferred(server.url, batch[0])["outputs"]] * 8))


def test_client_for_asyncio_is_served(server):
    async def test() -> None:
        async with aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            given, outputs = tensor(numbers(40)), []
            for start in (True, False):
                answer = await client.infer(
                    MODEL,
                    given,
                    sequence_id="asyncio",
                    sequence_start=start,
                    sequence_end=not start,
                    request_compression_algorithm="gzip",
                    response_compression_algorithm="gzip",
                )
                outputs.append(answer.as_numpy("outputs"))
        twice = inferred(server.url, np.concatenate([numbers(40)] * 2))["outputs"]
        assert np.array_equal(np.concatenate(outputs), twice)

    run(test())


def test_request_of_the_guide_is_answered(client):
    guide = (ROOT / "docs" / "open-inference-protocol.md").read_text()
    [body] = re.findall(r"/infer --json '(.*?)'", guide, re.S)
    answer = client.post(f"/v2/models/{MODEL}/infer", content=body).json()
    assert [output["name"] for output in answer["outputs"]] == ["outputs", "read_weights"]
    assert answer["parameters"]["step"] == 1


def test_statistics_count_requests_and_their_times(triton):
    def counted() -> dict[str, int]:
        [found] = triton.get_inference_statistics("lstm-copy")["model_stats"]
        assert all(times["ns"] >= times["count"] for times in found["inference_stats"].values())
        counts = {kind: times["count"] for kind, times in found["inference_stats"].items()}
        return counts | {"steps": found["inference_count"], "batches": found["execution_count"]}

    before = counted()
    triton.infer("lstm-copy", tensor(numbers(3)))
    with pytest.raises(InferenceServerException):
        triton.infer("lstm-copy", tensor(numbers(3, width=9)))
    more = {kind: count - before[kind] for kind, count in counted().items()}
    assert 1 <= more.pop("batches") <= 3
    parts = dict.fromkeys(("queue", "compute_input", "compute_infer", "compute_output"), 1)
    assert more == {"success": 1, "fail": 1, "cache_hit": 0, "cache_miss": 0, "steps": 3} | parts
    everything = triton.get_inference_statistics()["model_stats"]
    assert counted()["steps"] in [model["inference_count"] for model in everything if model["name"] == "lstm-copy"]


NOT_OFFERED = {
    "load_model": (["other"], "directory of checkpoints"),
    "unload_model": ([MODEL], "directory of checkpoints"),
    "update_trace_settings": ([MODEL, {}], "no trace settings"),
    "get_trace_settings": ([], "no trace settings"),
    "update_log_settings": ([{}], "no log settings"),
    "get_log_settings": ([], "no log settings"),
    "get_system_shared_memory_status": ([], "shares no memory"),
    "register_system_shared_memory": (["region", "/key", 8], "shares no memory"),
    "unregister_system_shared_memory": ([], "shares no memory"),
    "get_cuda_shared_memory_status": ([], "shares no memory"),
    "register_cuda_shared_memory": (["region", b"handle", 0, 8], "shares no memory"),
    "unregister_cuda_shared_memory": ([], "shares no memory"),
}


@pytest.mark.parametrize("call", NOT_OFFERED)
def test_call_that_is_not_offered_is_refused_with_the_reason(triton, call):
    arguments, words = NOT_OFFERED[call]
    with pytest.raises(InferenceServerException, match=words) as refused:
        getattr(triton, call)(*arguments)
    assert refused.value.status() == "404"


def test_input_in_shared_memory_is_refused(triton):
    given = tensor(numbers(1))
    given[0].set_shared_memory("region", 40)
    with pytest.raises(InferenceServerException, match="shares no memory"):
        triton.infer(MODEL, given)
