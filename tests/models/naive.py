"""What the naive versions of the models share: plain NumPy and loops, one row at a time, straight from the papers."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log(1 + np.exp(x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def length(x):
    """Return the length of a vector; the constant keeps it from 0."""
    return np.sqrt(dot(x, x) + 1e-6)


def content(memory, key, strength):
    """Return softmax over the slots of strength times cosine."""
    return softmax(np.array([strength * dot(key, word) / (length(key) * length(word) + 1e-6) for word in memory]))


def write(memory, weightings, erase_vectors, write_vectors):
    """Return the memory after every head has erased and then every head has added."""
    memory = memory.copy()
    for w, e in zip(weightings, erase_vectors, strict=True):
        for n in range(len(memory)):
            memory[n] = memory[n] * (1 - w[n] * e)
    for w, a in zip(weightings, write_vectors, strict=True):
        for n in range(len(memory)):
            memory[n] = memory[n] + w[n] * a
    return memory


def read(memory, weighting):
    return sum(w * word for w, word in zip(weighting, memory, strict=True))


def linear(weights, name, x):
    return np.array([dot(row, x) for row in weights[f"{name}.weight"]]) + weights[f"{name}.bias"]


def cut(vector, parts):
    """Cut the interface vector into parts; parts: (name, shape) in the order in which they stand."""
    pieces, start = {}, 0
    for name, shape in parts:
        end = start + int(np.prod(shape))
        pieces[name], start = vector[start:end].reshape(shape), end
    assert start == len(vector)
    return pieces


def cell(config, weights, x, state):
    """Return the output and the next state of the cell `config` describes; state: {"h": ..., "c": ...} or {}."""
    if config.kind == "feed-forward":
        return np.tanh(linear(weights, "controller.hidden", x)), {}
    size = config.hidden_size
    gates = linear(weights, "controller.gates", np.concatenate([x, state["h"]]))
    i, j, f, o = (gates[number * size : (number + 1) * size] for number in range(4))
    c = sigmoid(f + config.forget_bias) * state["c"] + sigmoid(i) * np.tanh(j)
    h = sigmoid(o) * np.tanh(c)
    return h, {"h": h, "c": c}


def weights_of(model):
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def row_of(leaves, row):
    """Return one row of flat leaves as a nested dictionary: {"controller": {"h": ...}, "memory": ...}."""
    own = {name: leaf[row].numpy() for name, leaf in leaves.items() if "." not in name}
    cells = {name.removeprefix("controller."): leaf[row].numpy() for name, leaf in leaves.items() if "." in name}
    return own | {"controller": cells}


def assert_state_near(leaves, row, state, atol=1e-9):
    """Assert that row `row` of the flat leaves is the nested state."""
    ours = row_of(leaves, row)
    assert set(ours) == set(state)
    for name in state["controller"]:
        np.testing.assert_allclose(ours["controller"][name], state["controller"][name], rtol=0, atol=atol)
    for name in set(state) - {"controller"}:
        np.testing.assert_allclose(ours[name], state[name], rtol=0, atol=atol, err_msg=name)
