"""Import of ONNX graphs of one step, each built here."""

import wave

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from app.backends.onnx import OnnxBackend
from models.manifest import read_manifest
from tests.training.one_step import (
    DETECTOR,
    cell,
    detector,
    graph,
    imported,
    operators,
    own_loop,
    policy,
    weights,
)
from training.graphs.spec import read_spec, to_toml
from training.graphs.verify import BATCHES
from training.importers import ImportFailed

CELL = """
inputs = {x = {}}
state = {h = "h_out"}
"""


def stepped(directory, inputs, names=()):
    """Return the outputs, [T, B, O], the last traces and the states, by slot, of a served graph. inputs: [T, B, I]."""
    backend = OnnxBackend(directory / "model", capacity=64)
    slots = [backend.open() for _ in range(inputs.shape[1])]
    outputs = []
    for rows in inputs:
        values, traces = backend.step(slots, rows, names)
        outputs.append(values)
    return np.stack(outputs), traces, [backend.read(slot) for slot in slots]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Roles and shapes


def test_plain_names_need_no_specification(tmp_path):
    result = imported(tmp_path, policy())
    assert [(leaf.tensor, leaf.next, leaf.shape) for leaf in result.spec.state] == [
        ("h_in", "h_out", (2, "B", 64)),
        ("c_in", "c_out", (2, "B", 64)),
    ]
    assert [part.tensor for part in (*result.spec.inputs, *result.spec.outputs)] == ["obs", "actions"]
    manifest = read_manifest(tmp_path / "model")
    assert (manifest.kind, manifest.input_size, manifest.output_size) == ("onnx", 48, 12)
    assert manifest.state == {"h_in": [2, 64], "c_in": [2, 64]}
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"manifest.json", "model.onnx"}


@pytest.mark.parametrize(
    ("before", "after"),
    [("h0", "hn"), ("hidden_in", "hidden_out"), ("state", "new_state"), ("cache", "cacheOut"), ("past.0", "present.0")],
)
def test_states_are_guessed_by_their_names(tmp_path, before, after):
    model = renamed_cell(before, after)
    assert [(leaf.tensor, leaf.next) for leaf in imported(tmp_path, model).spec.state] == [(before, after)]


def renamed_cell(before, after):
    model = cell()
    model.graph.input[1].name, model.graph.output[1].name = before, after
    for node in model.graph.node:
        node.input[:] = [{"h": before, "h_out": after}.get(name, name) for name in node.input]
        node.output[:] = [{"h_out": after}.get(name, name) for name in node.output]
    return model


def test_guessed_specification_is_complete_and_read_again(tmp_path):
    result = imported(tmp_path, policy())
    (tmp_path / "again.toml").write_text(to_toml(result.spec))
    again = read_spec(tmp_path / "again.toml")
    assert (again.inputs, again.state, again.outputs) == (result.spec.inputs, result.spec.state, result.spec.outputs)
    assert imported_again(tmp_path, policy(), to_toml(result.spec)).spec.state == result.spec.state


def imported_again(directory, model, spec):
    (directory / "second").mkdir()
    return imported(directory / "second", model, spec)


def test_batch_axes_are_found_by_running(tmp_path):
    model = graph(
        """g (float[1, 5, 1, 2] x, float[2, 3, 1, 1, 4] past) => (float[1, 5, 1, 2] y, float[2, 3, 1, 1, 4] next) {
            total = ReduceSum <keepdims = 0> (x, inner)
            shaped = Unsqueeze(total, around)
            decayed = Mul(past, half)
            next = Add(decayed, shaped)
            y = Tanh(x)
        }""",
        inner=np.array([1, 3]),
        around=np.array([0, 1, 4]),
        half=np.float32(0.5),
    )
    result = imported(tmp_path, model)
    assert (result.verdict.form, result.verdict.difference) == ("batched", 0)
    assert result.spec.inputs[0].shape.index("B") in (0, 2)
    assert result.spec.state[0].shape.index("B") in (2, 3)


def test_carry_constant_and_batch_axis_equal_own_loop(tmp_path):
    result = imported(tmp_path, detector(), DETECTOR)
    assert (result.verdict.form, result.verdict.difference, result.parameters) == ("batched", 0, 2 * 24 * 32 + 8 * 33)
    manifest = read_manifest(tmp_path / "model")
    assert manifest.state == {"state": [2, 8], "input.carry": [8]}
    assert manifest.config["graph"]["step"] == {"sampling_rate": 16000, "hop": 16, "units": "samples"}
    assert manifest.config["graph"]["inputs"] == [{"name": "input", "shape": [16], "range": [-1, 1]}]
    samples = random(50 * 16)
    padded = np.concatenate([np.zeros(8, np.float32), samples])
    feeds = [{"input": padded[None, 16 * t : 16 * t + 24], "sr": np.array(16000)} for t in range(50)]
    expected, last = own_loop(detector(), feeds, {"state": np.zeros((2, 1, 8), np.float32)}, {"state": "stateN"})
    outputs, _, states = stepped(tmp_path, samples.reshape(50, 1, 16))
    assert outputs[:, 0].tobytes() == np.concatenate([step["output"] for step in expected]).tobytes()
    assert states[0]["state"].tobytes() == last["state"].tobytes()


def test_if_is_folded_once_its_constant_is_known(tmp_path):
    imported(tmp_path, detector(), DETECTOR)
    assert "If" not in operators(tmp_path)


def test_several_inputs_stand_in_the_order_of_the_specification(tmp_path):
    text = """g (float[B, 2] a, int64[B] n, float[2, B] h) => (float[B, 2] y, float[2, B] h_out) {
        wide = Cast <to = 1> (n)
        column = Unsqueeze(wide, one)
        y = Mul(a, column)
        turned = Transpose(y)
        h_out = Add(h, turned)
    }"""
    spec = 'inputs = {n = {range = [0, 5]}, a = {name = "signal"}}\nstate = {h = "h_out"}'
    imported(tmp_path, graph(text, one=np.array([1])), spec)
    outputs, _, states = stepped(tmp_path, np.array([[[3, 1, 2]], [[2, 1, 1]]], np.float32))
    assert outputs[:, 0].tolist() == [[3, 6], [2, 2]]
    assert states[0]["h"].tolist() == [5, 8]
    assert [part["name"] for part in read_manifest(tmp_path / "model").config["graph"]["inputs"]] == ["n", "signal"]


COUNTER = """g (float[B, 2] x, int64[B] count, double[B, 2] sum)
    => (float[B, 2] y, int64[B] count_out, double[B, 2] sum_out) {
    count_out = Add(count, one)
    wide = Cast <to = 11> (x)
    sum_out = Add(sum, wide)
    y = Cast <to = 1> (sum_out)
}"""


def test_leaves_keep_their_dtypes(tmp_path):
    large = 2**53 + 1
    spec = f'inputs = {{x = {{}}}}\nstate = {{count = {{next = "count_out", initial = {large}}}, sum = "sum_out"}}'
    imported(tmp_path, graph(COUNTER, one=np.int64(1)), spec)
    assert read_manifest(tmp_path / "model").config["dtypes"] == {"count": "int64", "sum": "float64"}
    _, _, (state,) = stepped(tmp_path, np.full((3, 1, 2), 0.1, np.float32))
    assert (state["count"].dtype, int(state["count"])) == (np.int64, large + 3)
    assert state["sum"].tolist() == [3 * float(np.float32(0.1))] * 2


def test_outputs_that_are_traces_are_returned_by_name(tmp_path):
    spec = CELL + 'outputs = {y = {}}\ntrace = {a = {name = "drive", range = [-3, 3]}}'
    model = cell()
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["B", 4]))
    imported(tmp_path, model, spec)
    inputs = random(1, 5, 3)
    _, traces, _ = stepped(tmp_path, inputs, ["drive"])
    np.testing.assert_allclose(traces["drive"], inputs[0] @ weights(3, 4), atol=1e-6)
    assert read_manifest(tmp_path / "model").config["graph"]["trace"] == [
        {"name": "drive", "shape": [4], "range": [-3, 3]}
    ]


def test_token_input_has_a_vocabulary(tmp_path):
    text = """g (int64[B, 1] token, float[B, 4] h) => (float[B, 4] y, float[B, 4] h_out) {
        row = Gather(table, token)
        word = Squeeze(row, one)
        h_out = Add(h, word)
        y = Identity(h_out)
    }"""
    spec = 'inputs = {token = {vocabulary = 7}}\nstate = {h = "h_out"}'
    imported(tmp_path, graph(text, table=weights(7, 4), one=np.array([1])), spec)
    outputs, _, _ = stepped(tmp_path, np.array([[[6]]], np.float32))
    assert outputs[0, 0].tolist() == weights(7, 4)[6].tolist()
    assert read_manifest(tmp_path / "model").config["embedding"] == {"vocabulary_size": 7}


@pytest.mark.parametrize(
    ("initial", "expected"), [("0.5", [0.5] * 4), ("[1, 2, 3, 4]", [1, 2, 3, 4]), ('"first.npy"', [4, 3, 2, 1])]
)
def test_first_state_is_a_number_a_list_or_a_file(tmp_path, initial, expected):
    np.save(tmp_path / "first.npy", np.array([[4.0, 3, 2, 1]]))
    imported(tmp_path, cell(), f'inputs = {{x = {{}}}}\nstate = {{h = {{next = "h_out", initial = {initial}}}}}')
    backend = OnnxBackend(tmp_path / "model", capacity=1)
    assert backend.read(backend.open())["h"].tolist() == expected


# Forms


def test_batch_that_only_looks_dynamic_is_stepped_row_by_row(tmp_path):
    text = """g (float[B, 4] x, float[B, 4] h) => (float[B, 4] y, float[B, 4] h_out) {
        flat = Reshape(h, four)
        one = Add(x, flat)
        h_out = Reshape(one, shape)
        y = Tanh(h_out)
    }"""
    result = imported(tmp_path, graph(text, four=np.array([4]), shape=np.array([1, 4])))
    assert (result.verdict.form, result.verdict.difference) == ("scan", 0)
    assert "several rows" in result.refused["batched"]


def test_if_within_a_scan_leads_to_the_loop(tmp_path):
    result = imported(tmp_path, conditional())
    assert (result.verdict.form, result.verdict.difference) == ("loop", 0)
    inputs = random(20, 64, 4)
    outputs, _, _ = stepped(tmp_path, inputs)
    alone = np.concatenate([stepped(tmp_path, inputs[:, row : row + 1])[0] for row in range(64)], 1)
    assert outputs.tobytes() == alone.tobytes()


def conditional():
    """Return a graph for one row whose If depends on the data, with branches of different ranks."""
    model = graph(
        """g (float[1, 4] x, float[1, 4] h) => (float[1, 4] y, float[1, 4] h_out) {
            total = ReduceSum <keepdims = 0> (x)
            positive = Greater(total, nought)
            row = Reshape(change, shape)
            h_out = Add(h, row)
            y = Neg(h_out)
        }""",
        nought=np.float32(0),
        shape=np.array([1, 4]),
    )
    branches = {
        "then_branch": onnx.parser.parse_graph("b () => (float[1, 4] change) { change = Relu(x) }"),
        "else_branch": onnx.parser.parse_graph("b () => (float[4] change) { change = Squeeze(x) }"),
    }
    model.graph.node.insert(2, helper.make_node("If", ["positive"], ["change"], **branches))
    return model


@pytest.mark.parametrize(("form", "taken"), [("batched", "batched"), ("rows", "scan"), ("loop", "loop")])
def test_form_of_the_specification_is_taken(tmp_path, form, taken):
    result = imported(tmp_path, cell(), f'form = "{form}"\n{CELL}')
    assert (result.verdict.form, result.verdict.difference) == (taken, 0)
    assert ("Scan" in operators(tmp_path)) == (taken == "scan")
    assert tuple(result.verdict.microseconds) == (1, 64)


def test_graph_without_any_batch_axis_is_stepped_row_by_row(tmp_path):
    text = "g (float[3] x, float[3] h) => (float[3] y, float[3] h_out) { h_out = Add(x, h)\n y = Neg(h_out) }"
    spec = 'inputs = {x = {shape = [3]}}\nstate = {h = {next = "h_out", shape = [3]}}'
    result = imported(tmp_path, graph(text), spec)
    assert result.verdict.form == "scan"
    outputs, _, _ = stepped(tmp_path, np.ones((2, 4, 3), np.float32))
    assert outputs[1].tolist() == [[-2.0] * 3] * 4


@pytest.mark.parametrize("rows", BATCHES)
def test_batches_equal_own_loop_to_the_bit(tmp_path, rows):
    imported(tmp_path, policy())
    inputs = random(30, rows, 48)
    zeros = {name: np.zeros((2, 1, 64), np.float32) for name in ("h_in", "c_in")}
    outputs, _, _ = stepped(tmp_path, inputs)
    following = {"h_in": "h_out", "c_in": "c_out"}
    for row in range(min(rows, 3)):
        expected, _ = own_loop(policy(), [{"obs": step[row : row + 1]} for step in inputs], zeros, following)
        own = np.concatenate([step["actions"] for step in expected])
        difference = read_manifest(tmp_path / "model").training["verified"]["difference"]
        np.testing.assert_allclose(outputs[:, row], own, rtol=0, atol=100 * difference)


MIXING = """g (float[{batch}, 3] x, float[{batch}, 3] h) => (float[{batch}, 3] y, float[{batch}, 3] h_out) {{
    mean = ReduceMean <keepdims = 1> (h, rows)
    scaled = Mul(mean, little)
    h_out = Add(x, scaled)
    y = Tanh(h_out)
}}"""


@pytest.mark.parametrize("little", [1e-6, 0.5])
def test_rows_that_see_each_other_are_refused(tmp_path, little):
    model = graph(MIXING.format(batch="B"), rows=np.array([0]), little=np.float32(little))
    with pytest.raises(ImportFailed, match=r"its rows see each other: .* of a row changes by .* when those beside it"):
        imported(tmp_path, model)
    assert not (tmp_path / "model").exists()


def test_file_for_one_row_may_mix_rows(tmp_path):
    model = graph(MIXING.format(batch="1"), rows=np.array([0]), little=np.float32(0.5))
    result = imported(tmp_path, model)
    assert (result.verdict.form, result.verdict.difference) == ("scan", 0)


def test_large_states_are_verified_in_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("training.graphs.verify.MOST_BYTES", 5 * 4 * (3 + 4))
    result = imported(tmp_path, cell())
    assert (result.verdict.rows, tuple(result.verdict.microseconds)) == ((1, 2, 5), (1, 5))
    assert read_manifest(tmp_path / "model").training["verified"]["rows"] == [1, 2, 5]


def test_graph_with_a_state_inside_is_refused(tmp_path):
    text = """g (float[B, 3] x, float[B, 3] h) => (float[B, 3] y, float[B, 3] h_out) {
        noise = RandomNormalLike <seed = 1.0> (x)
        h_out = Add(h, noise)
        y = Add(x, h_out)
    }"""
    with pytest.raises(ImportFailed, match="differs when the same step is taken again: the graph keeps a state inside"):
        imported(tmp_path, graph(text))


def test_cache_that_grows_is_not_guessed_to_be_an_input(tmp_path):
    text = """g (float[1, 4] x, float[1, 2, 4] past) => (float[1, 3, 4] present, float[1, 4] y) {
        row = Unsqueeze(x, one)
        present = Concat <axis = 1> (past, row)
        y = ReduceMean <keepdims = 0> (present, one)
    }"""
    model = graph(text, one=np.array([1]))
    with pytest.raises(
        ImportFailed, match=r"no state was found: .* one of x, past would have; a state keeps its shape"
    ):
        imported(tmp_path, model)
    assert imported(tmp_path, model, "inputs = {x = {}, past = {}}").spec.state == ()


WORDS = """g (int64[B] token, float[B, 4] x, float[B, 4] h) => (float[B, 4] y, float[B, 4] h_out) {
    row = Gather <axis = 0> (table, token)
    near = Add(row, x)
    sum = Add(near, h)
    h_out = Tanh(sum)
    y = Identity(h_out)
}"""


def test_tokens_beside_other_inputs_are_numbers_of_the_vector(tmp_path):
    spec = 'inputs = {token = {vocabulary = 11}, x = {}}\nstate = {h = "h_out"}'
    imported(tmp_path, graph(WORDS, table=weights(11, 4)), spec)
    config = read_manifest(tmp_path / "model").config
    assert (config.get("embedding"), config["graph"]["inputs"][0]["range"]) == (None, [0, 10])
    outputs, _, _ = stepped(tmp_path, np.float32([[[10, 1, 2, 3, 4]]]))
    np.testing.assert_allclose(outputs[0, 0], np.tanh(weights(11, 4)[10] + [1, 2, 3, 4]), rtol=1e-5)


def test_vocabulary_beyond_the_table_is_refused(tmp_path):
    spec = 'inputs = {token = {vocabulary = 99}, x = {}}\nstate = {h = "h_out"}'
    with pytest.raises(ImportFailed, match=r"does not take a step of the check: .*: give the `range` of its inputs"):
        imported(tmp_path, graph(WORDS, table=weights(11, 4)), spec)


def test_graph_of_float16_agrees_within_its_digits(tmp_path):
    text = """g (float16[B, 4] x, float16[B, 4] h) => (float16[B, 4] y, float16[B, 4] h_out) {
        sum = Add(x, h)
        h_out = Tanh(sum)
        y = Identity(h_out)
    }"""
    result = imported(tmp_path, graph(text))
    assert (result.verdict.form, result.verdict.difference < 1e-2) == ("batched", True)


def test_leaf_with_the_name_of_carried_numbers_is_refused(tmp_path):
    spec = 'inputs = {x = {carry = 1, name = "a"}}\nstate = {h = {next = "h_out", name = "a.carry"}}'
    with pytest.raises(ImportFailed, match=r"two have the name 'a.carry', \[state\] h and \[inputs\] x.carry"):
        imported(tmp_path, cell(), spec)


# Files


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_old_and_new_opsets_are_read(tmp_path, opset):
    text = """g (float[B, 4] x, float[B, 4] h) => (float[B, 4] y, float[B, 4] h_out) {
        c = Add(x, h)
        h_out = Tanh(c)
        y = Softmax <axis = 1> (h_out)
    }"""
    result = imported(tmp_path, graph(text, opset=opset, ir_version=4 if opset == 9 else 8))
    assert (result.verdict.form, result.verdict.difference) == ("batched", 0)


def test_weights_among_the_inputs_of_old_files_are_no_inputs(tmp_path):
    model = cell()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    assert [part.tensor for part in imported(tmp_path, model).spec.inputs] == ["x"]


def test_external_data_is_read_from_beside_the_file(tmp_path, monkeypatch):
    model, file = external(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    imported(tmp_path, model)
    file.unlink()
    outputs, _, _ = stepped(tmp_path, np.ones((1, 1, 3), np.float32))
    np.testing.assert_allclose(outputs[0, 0], 2 * np.tanh(weights(3, 4).sum(0)), atol=1e-6)


def test_external_data_in_the_working_directory_is_not_found(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    model, _ = external(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ImportFailed, match=r"the data of 'w' is in 'w.bin', which is looked for beside the file"):
        imported(tmp_path, model)


def test_external_data_outside_of_the_directory_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    model, _ = external(tmp_path)
    model.graph.initializer[0].external_data[0].value = "../w.bin"
    with pytest.raises(ImportFailed, match=r"the data of 'w' is in '../w.bin'"):
        imported(tmp_path / "inside", model)


def external(directory):
    """Return a cell whose weights w are in a file of the directory, and that file."""
    model, file = cell(), directory / "w.bin"
    tensor = model.graph.initializer[0]
    file.write_bytes(numpy_helper.to_array(tensor).tobytes())
    onnx.external_data_helper.set_external_data(tensor, location="w.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return model, file


def custom():
    model = cell()
    model.graph.node[3].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    return model


def infinite():
    return graph(
        "g (float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] h_out) { h_out = Add(x, h)\n y = Log(h) }"
    )


def doubling():
    """Return a graph whose state doubles from 1e20, and overflows float32 after some 60 steps of zeros."""
    return graph(
        """g (float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] h_out) {
            lifted = Max(h, start)
            sum = Add(lifted, lifted)
            h_out = Add(sum, x)
            y = Identity(h_out)
        }""",
        start=np.float32(1e20),
    )


def varying():
    text = """g (float[B, 4] x, float[B, 4] h) => (int64[r, c] y, float[B, 4] h_out) {
        h_out = Add(x, h)
        y = NonZero(h_out)
    }"""
    return graph(text)


def listed():
    model = cell()
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["ys"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("ys", TensorProto.FLOAT, None))
    return model


def of_text():
    model = cell()
    model.graph.input.append(helper.make_tensor_value_info("prompt", TensorProto.STRING, [1]))
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"\x89PNG no graph at all", "no ONNX file, or one that is cut"),
        (b"", "no ONNX file, or one that is cut"),
        (cell().SerializeToString()[:-40], "no ONNX file, or one that is cut"),
        (graph("g (float[1] x) => (float[1] y) { y = Neg(x) }", opset=99), r"opset 99, but onnxruntime .* up to \d\d"),
        (graph("g (float[1] x) => (float[1] y) { y = Neg(x) }", ir_version=99), "onnxruntime .* cannot load it: .*99"),
        (custom(), r"node '' is the custom operator my\.domain\.Tanh"),
        (listed(), "'ys' must be a tensor, got sequence_type"),
        (of_text(), "'prompt' must be of float32, .*, got STRING"),
        (infinite(), "'y' is not finite after one step of zeros"),
        (varying(), r"\[outputs\] y: it is empty"),
        (doubling(), r"its numbers are not finite after \d\d steps of zeros"),
    ],
)
def test_file_that_cannot_be_used_is_refused_by_name(tmp_path, model, message):
    with pytest.raises(ImportFailed, match=message):
        imported(tmp_path, model)
    assert not (tmp_path / "model").exists()


def test_directory_of_several_graphs_is_refused(tmp_path):
    for name in ("encoder", "decoder"):
        (tmp_path / "step.onnx").mkdir(exist_ok=True)
        (tmp_path / "step.onnx" / f"{name}.onnx").touch()
    from training.graphs.files import read_graph

    with pytest.raises(
        ImportFailed, match=r"a directory with 2 graphs, decoder.onnx, encoder.onnx: a model is one graph"
    ):
        read_graph(tmp_path / "step.onnx")


def test_output_whose_length_varies_later_is_refused(tmp_path):
    text = """g (float[1, 4] x, float[1, 4] h) => (float[r] y, float[1, 4] h_out) {
        h_out = Add(h, x)
        small = Less(h_out, one)
        y = Compress(h_out, flat)
    }"""
    model = graph(text, one=np.float32(1), shape=np.array([4]))
    model.graph.node.insert(2, helper.make_node("Reshape", ["small", "shape"], ["flat"]))
    with pytest.raises(ImportFailed, match=r"output 'y' has the shape .* outputs of varying length cannot be served"):
        imported(tmp_path, model)


@pytest.mark.parametrize("form", ["batched", "rows", "loop"])
@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("(float[B, 2] x, float[B, 2] h) => (float[B, 2] x, float[B, 2] s) { s = Add(x, h) }", "h = 's'"),
        ("(float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] x) { y = Add(x, h) }", "h = 'x'"),
        ("(float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] h) { y = Add(x, h) }", "h = 'h'"),
        (
            "(float[B, 2] x, float[B, 2] a, float[B, 2] b) => (float[B, 2] y, float[B, 2] b, float[B, 2] x) "
            "{ y = Add(x, a) }",
            "a = 'b', b = 'x'",
        ),
        (
            "(float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] y, float[B, 2] s) {"
            "y = Add(x, h)\n s = Neg(y) }",
            "h = 's'",
        ),
    ],
    ids=["output", "next", "kept", "delayed", "twice"],
)
def test_inputs_among_the_outputs_are_passed_on(tmp_path, text, state, form):
    model = graph(f"g {text}")
    result = imported(tmp_path, model, f'form = "{form}"\ninputs = {{x = {{}}}}\nstate = {{{state}}}')
    assert result.verdict.difference == 0
    inputs = random(5, 1, 2)
    following = {leaf.tensor: leaf.next for leaf in result.spec.state}
    first = {leaf: np.zeros((1, 2), np.float32) for leaf in following}
    expected, _ = own_loop(model, [{"x": step} for step in inputs], first, following)
    outputs, _, _ = stepped(tmp_path, inputs)
    assert outputs.tobytes() == np.stack([step[result.spec.outputs[0].tensor] for step in expected]).tobytes()


@pytest.mark.parametrize("form", ["auto", "rows", "loop"])
def test_names_of_a_file_may_be_like_those_around_it(tmp_path, form):
    model = cell()
    names = {"a": "x/new", "b": "y/flat", "c": "step/0/new", "w": "step/weight/0", "u": "inputs", "h_out": "outputs"}
    for value in (*model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    result = imported(tmp_path, model, f'form = "{form}"\ninputs = {{x = {{}}}}\nstate = {{h = "outputs"}}')
    assert result.verdict.difference == 0


def test_next_value_may_be_output_and_trace_too(tmp_path):
    shapes = "h_in = {next = 'h_out', shape = [2, 'B', 64]}, c_in = {next = 'c_out', shape = [2, 'B', 64]}"
    seen = "outputs = {actions = {}, h_out = {}}\ntrace = {c_out = {}}"
    spec = f"inputs = {{obs = {{}}}}\nstate = {{{shapes}}}\n{seen}"
    assert imported(tmp_path, policy(), spec).verdict.difference == 0
    outputs, traces, states = stepped(tmp_path, random(3, 2, 48), ["c_out"])
    assert outputs[-1, 1, 12:].tobytes() == states[1]["h_in"].tobytes()
    assert traces["c_out"][1].tobytes() == states[1]["c_in"].tobytes()


def test_next_value_without_rows_is_served_row_by_row(tmp_path):
    text = "g (float[B, 2] x, float[1, 2] h) => (float[B, 2] y, float[1, 2] k) { y = Add(x, h) }"
    result = imported(tmp_path, graph(text, k=np.ones((1, 2), np.float32)), "inputs = {x = {}}\nstate = {h = 'k'}")
    assert result.verdict.form == "scan"
    assert "other numbers of rows than 5" in result.refused["batched"]


def test_constant_is_rounded_to_the_type_of_the_graph(tmp_path):
    text = (
        "g (float[B, 2] x, float[B, 2] h, float k) => (float[B, 2] y, float[B, 2] s) { y = Mul(x, k)\n s = Add(y, h) }"
    )
    imported(tmp_path, graph(text), "inputs = {x = {}}\nstate = {h = 's'}\nconstants = {k = 0.1}")
    outputs, _, _ = stepped(tmp_path, np.ones((1, 1, 2), np.float32))
    assert outputs[0, 0].tolist() == [np.float32(0.1)] * 2


def test_sparse_weights_are_refused(tmp_path):
    model = cell()
    values, places = (numpy_helper.from_array(np.array([1]), name) for name in ("sparse", "places"))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))
    with pytest.raises(ImportFailed, match="it holds sparse weights"):
        imported(tmp_path, model)


def test_row_of_too_many_numbers_is_refused(tmp_path):
    with pytest.raises(
        ImportFailed, match="'x' has 1,000,000,000,000,000 numbers in a row; expected 67,108,864 at most"
    ):
        imported(tmp_path, graph("g (float[B, N] x) => (float[B, M] y) { y = Neg(x) }"), WIDE)


WIDE = "inputs = {x = {shape = ['B', 1000000000000000]}}"


# Specifications


def test_byte_order_mark_of_a_specification_is_skipped(tmp_path):
    assert imported(tmp_path, cell(), "\ufeff" + CELL).verdict.form == "batched"


def test_long_name_of_a_tensor_is_cut(tmp_path):
    model = renamed_cell("h" * 200, "h_out")
    result = imported(tmp_path, model, f"inputs = {{x = {{}}}}\nstate = {{{'h' * 200} = 'h_out'}}")
    assert result.spec.state[0].name == "h" * 100


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inputs = {x = {}", "not TOML"),
        ("input = {x = {}}", "unknown key 'input'; known keys are inputs, constants"),
        ("inputs = 3", r"\[inputs\]: expected a table, got 3"),
        ("inputs = {x = 3}", r"\[inputs\] x: expected a table of name, shape"),
        ("inputs = {x = {size = 3}}", r"\[inputs\] x: unknown key 'size'"),
        ('inputs = {x = {shape = "B"}}', r"\[inputs\] x.shape: expected list, got 'B'"),
        ('inputs = {x = {shape = ["B", "B"]}}', r"\[inputs\] x.shape: expected \"B\" once"),
        ('inputs = {x = {shape = ["B", 0]}}', r"\[inputs\] x.shape: expected sizes of at least 1"),
        ("inputs = {x = {range = [1, 1]}}", r"\[inputs\] x.range: expected the least and the greatest"),
        ("inputs = {x = {carry = -1}}", r"\[inputs\] x.carry: expected a whole number of at least 0"),
        ("inputs = {x = {carry = 3}}\nstate = {h = 'h_out'}", "carry must leave new numbers"),
        ("inputs = {x = {vocabulary = 0}}", "vocabulary: expected the number of tokens"),
        ('inputs = {x = {name = "a b"}}', r"\[inputs\] x.name: expected at most 100 letters"),
        ("form = 'fast'", "form: expected one of 'auto'"),
        ("step = {hop = 0}", "step.hop: expected a number above 0"),
        ("step = {rate = 3}", "step: unknown key 'rate'"),
        ("inputs = {x = {}}", r"input 'h' of the graph has no role: put it into \[inputs\], \[state\]"),
        ("state = {h = 'h_out'}", "input 'x' of the graph has no role"),
        ("inputs = {z = {}}\nstate = {h = 'h_out'}", "the graph has no input 'z'; its inputs are x, h"),
        ("inputs = {x = {}}\nstate = {h = 'h_next'}", "the graph has no output 'h_next'; its outputs are y, h_out"),
        ("inputs = {x = {}}\nstate = {h = {}}", r"\[state\] h: `next`, the output with its next value, is missing"),
        ("inputs = {x = {}}\nstate = {x = 'h_out'}", "'x' may be an input of the graph only"),
        ("inputs = {x = {}}\nstate = {h = 'y', x2 = 'y'}", "'y' may be the next value of one leaf only"),
        (CELL + "outputs = {y = {}}\ntrace = {y = {}}", "'y' may be one output or trace only"),
        (
            "inputs = {x = {}}\nstate = {h = {next = 'h_out', name = 's'}, x2 = {next = 'y', name = 's'}}",
            "two have the name 's'",
        ),
        (CELL + "outputs = {w = {}}", "the graph has no output 'w'"),
        ("inputs = {x = {shape = ['B', 4]}}\nstate = {h = 'h_out'}", r"shape \[B, 4\] does not fit the file's"),
        ("inputs = {x = {shape = [3, 'B']}}\nstate = {h = 'h_out'}", r"shape \[3, B\] does not fit the file's"),
        ("inputs = {x = {shape = ['B', 1, 3]}}\nstate = {h = 'h_out'}", r"shape \[B, 1, 3\] does not fit"),
        ("inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = [1, 2]}}", r"initial: expected one number, or"),
        (
            "inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = [[1, 2], [3, 4]]}}",
            r"the shape \[4\] of a row, got \[2, 2\]",
        ),
        ("inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = [[1], [1, 2]]}}", "expected lists of one length"),
        ("inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = 'no.npy'}}", "no.npy is no .npy file"),
        (CELL + "outputs = {y = {shape = ['B', 3]}}", r"shape \['B', 3\] was given, but \[1, 4\] came"),
        ("inputs = {x = {}}\nstate = {}\nconstants = {h = [1, 2]}", r"\[constants\] h: expected the shape"),
        ("inputs = {x = {}}\nstate = {}\nconstants = {h = 1e300}", r"\[constants\] h: expected values of float32"),
        ("inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = 1e300}}", "initial: expected values of float32"),
        ("inputs = {x = {}}\nstate = {h = {next = 'h_out', initial = -inf}}", "initial: expected finite numbers"),
        (
            "inputs = {x = {range = [-1.7e308, 1.7e308]}}",
            "range: expected the least and the greatest number of float32",
        ),
        (f"inputs = {{x = {{range = [0, {10**400}]}}}}", "range: expected the least and the greatest number"),
        (f"inputs = {{x = {{vocabulary = {2**40}}}}}", "vocabulary: expected the number of tokens, from 1 to 16777216"),
        ("a = " + "[" * 5000, "not TOML: maximum recursion depth"),
        (f"step = {{hop = {'9' * 5000}}}", "not TOML: Exceeds the limit"),
        ('sample = "no.npy"\n' + CELL, "no.npy is no .npy file of numbers"),
    ],
)
def test_specification_with_a_fault_is_refused_by_its_place(tmp_path, spec, message):
    with pytest.raises(ImportFailed, match=message):
        imported(tmp_path, cell(), spec)
    assert not (tmp_path / "model").exists()


def test_next_value_of_another_shape_is_refused(tmp_path):
    text = (
        "g (float[B, 2] x, float[B, 2] h) => (float[B, 4] y, float[B, 4] z) { z = Concat<axis = 1>(x, h)\n y = Neg(z) }"
    )
    with pytest.raises(ImportFailed, match=r"h has the shape \[1, 2\], but its next value 'z' has \[1, 4\]"):
        imported(tmp_path, graph(text), "inputs = {x = {}}\nstate = {h = 'z'}")


def test_next_value_of_another_dtype_is_refused(tmp_path):
    text = "g (float[B, 2] x, int64[B] n) => (float[B, 2] y, int32[B] m) { y = Neg(x)\n m = Cast <to = 6> (n) }"
    with pytest.raises(ImportFailed, match=r"n is of int64, but its next value 'm' is of int32"):
        imported(tmp_path, graph(text), "inputs = {x = {}}\nstate = {n = 'm'}")


def test_size_that_the_file_leaves_open_is_asked_for(tmp_path):
    with pytest.raises(ImportFailed, match=r"\[inputs\] input: the file declares the shape \[b0, t0\], which leaves"):
        imported(tmp_path, detector(), "constants = {sr = 16000}", guess=True)


def test_constant_without_a_value_cannot_be_guessed(tmp_path):
    with pytest.raises(ImportFailed, match=r"input 'sr' of the graph is one int64 for all rows"):
        imported(tmp_path, detector())


def test_ambiguous_batch_axis_is_asked_for_unless_guessed(tmp_path):
    text = """g (float[1, 1, 3] x, float[1, 3] h) => (float[1, 1, 3] y, float[1, 3] h_out) {
        y = Add(x, h)
        h_out = Neg(h)
    }"""
    with pytest.raises(ImportFailed, match=r"in which the batch axis may be any of 0, 1: give `shape`"):
        imported(tmp_path, graph(text), CELL)


def test_neither_specification_nor_guess_is_an_error(tmp_path):
    with pytest.raises(ImportFailed, match=r"--spec SPEC.toml says what its inputs and outputs are, or --guess"):
        imported(tmp_path, cell(), guess=False)


def test_sample_is_kept_with_the_checkpoint(tmp_path):
    from safetensors.numpy import load_file

    np.save(tmp_path / "sample.npy", random(7, 3))
    imported(tmp_path, cell(), 'sample = "sample.npy"\n' + CELL)
    assert load_file(tmp_path / "model" / "sample.safetensors")["inputs"].tolist() == random(7, 3).tolist()


def test_import_into_a_checkpoint_changes_nothing(tmp_path):
    imported(tmp_path, cell())
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(ValueError, match="holds a checkpoint"):
        imported(tmp_path, policy())
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_recording_cut_within_a_frame_is_kept_until_there(tmp_path, missing):
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(60, dtype="<i2").tobytes())
    whole = (tmp_path / "s.wav").read_bytes()
    (tmp_path / "s.wav").write_bytes(whole[:-missing])
    imported(tmp_path, cell(), 'sample = "s.wav"\n' + CELL)
    assert load_file(tmp_path / "model" / "sample.safetensors")["inputs"].shape == (9, 3)
