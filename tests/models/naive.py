"""Functions of the naive versions of the models: plain NumPy and loops, one row at a time, straight from the papers."""

import numpy as np

from models.state import flatten


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


def cosine(x, y):
    return dot(x, y) / (length(x) * length(y) + 1e-6)


def scaled(config, strength, memory):
    """Return a strength as the look-ups of a memory take it."""
    if not config.look_up_scaling:
        return strength
    return strength * np.log(1 + len(memory)) / np.log(1 + config.memory_size)


def content(memory, key, strength, similarity=cosine):
    """Return the softmax over the locations of strength times similarity."""
    return softmax(np.array([strength * similarity(key, word) for word in memory]))


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


def interface(config, weights, h):
    """Return the interface vector, of one program or of the mixture of several, and the shares of several by name."""
    vectors = linear(weights, "interface", h)
    if config.programs == 1:
        return vectors, {}
    *query, strength = linear(weights, "interface.selector.query", h)
    shares = content(weights["interface.selector.keys"], np.array(query), softplus(strength))
    mixed = sum(a * vector for a, vector in zip(shares, np.split(vectors, config.programs), strict=True))
    return mixed, {"program_weights": shares}


def encoded(config, weights, x):
    """Return the controller's inputs: the inputs themselves, or the vector of a token, zeros for an unknown one."""
    if not config.embedding:
        return x
    vectors = weights["embedding.vectors.weight"]
    return vectors[int(x[0])] if x[0] in range(len(vectors)) else np.zeros(vectors.shape[1])


def cut(vector, parts):
    """Cut the interface vector into parts; parts: (name, shape) in order."""
    pieces, start = {}, 0
    for name, shape in parts:
        end = start + int(np.prod(shape))
        pieces[name], start = vector[start:end].reshape(shape), end
    assert start == len(vector)
    return pieces


ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.array([each if each > 0 else np.exp(each) - 1 for each in x]),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "linear": lambda x: x,
    "identity": lambda x: x,
}


def cell(config, weights, x, state, name="controller"):
    """Return the output and the next state of the cell `config` describes; state: {"h": ..., "c": ...}, flat."""
    return CELLS[config.kind](config, weights, x, state, name)


def basic_rnn(config, weights, x, state, name):
    h = ACTIVATIONS[config.activation](linear(weights, f"{name}.hidden", np.concatenate([x, state["h"]])))
    return h, {"h": h}


def gru(config, weights, x, state, name):
    gates = sigmoid(linear(weights, f"{name}.gates", np.concatenate([x, state["h"]])))
    r, u = gates[: config.hidden_size], gates[config.hidden_size :]
    c = ACTIVATIONS[config.activation](linear(weights, f"{name}.candidate", np.concatenate([x, r * state["h"]])))
    h = u * state["h"] + (1 - u) * c
    return h, {"h": h}


def lstm(config, weights, x, state, name):
    size, seen = config.hidden_size, np.concatenate([x, state["h"]])
    activation = ACTIVATIONS[config.activation]
    products = np.array([dot(row, seen) for row in weights[f"{name}.gates.weight"]])
    if config.layer_norm == "each-gate":
        products = np.array([normalised(gate) for gate in products.reshape(4, size)])
    elif config.layer_norm != "none":
        products = normalised(products, 1e-6 if config.layer_norm == "adnc" else 1e-5)
    scale = np.ones((4, size)) if config.layer_norm == "none" else weights[f"{name}.gate_scale"]
    products = products.reshape(4, size) * scale
    i, j, f, o = products + weights[f"{name}.gates.bias"].reshape(4, size)
    w_i, w_f, w_o = weights[f"{name}.peepholes"] if config.peepholes else np.zeros((3, size))
    c = sigmoid(f + config.forget_bias + w_f * state["c"]) * state["c"]
    c = bounded(c + sigmoid(i + w_i * state["c"]) * activation(j), config.cell_clip)
    put_out = c
    if config.layer_norm in ("each-gate", "adnc"):
        eps = 1e-6 if config.layer_norm == "adnc" else 1e-5
        put_out = normalised(c, eps) * weights[f"{name}.cell_norm.weight"] + weights[f"{name}.cell_norm.bias"]
    h = sigmoid(o + w_o * c) * activation(put_out)
    if config.projection_size:
        h = bounded(np.array([dot(row, h) for row in weights[f"{name}.projection.weight"]]), config.projection_clip)
    return h, {"h": h, "c": c}


def normalised(x, eps=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + eps)


def bounded(x, bound):
    return np.clip(x, -bound, bound) if bound else x


def feed_forward(config, weights, x, state, name):
    for number in range(config.layers):
        x = ACTIVATIONS[config.activation](linear(weights, f"{name}.layers.{number}", x))
    return x, {}


def stack(config, weights, x, state, name):
    below, outputs, states = x, [], {}
    for number, layer in enumerate(config.cells):
        prefix = f"layer{number}."
        own = {leaf.removeprefix(prefix): value for leaf, value in state.items() if leaf.startswith(prefix)}
        output, own = cell(layer, weights, below, own, f"{name}.cells.{number}")
        outputs.append(output)
        states |= {prefix + leaf: value for leaf, value in own.items()}
        below = np.concatenate([x, output]) if config.skip_connections else output
    return np.concatenate(outputs) if config.skip_connections else outputs[-1], states


def dropout(config, weights, x, state, name):
    """Nothing is dropped outside of training."""
    return cell(config.cell, weights, x, state, f"{name}.cell")


CELLS = {
    "basic-rnn": basic_rnn,
    "gru": gru,
    "lstm": lstm,
    "feed-forward": feed_forward,
    "stack": stack,
    "dropout": dropout,
}


def weights_of(model):
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


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


def assert_steps_near(model, state, sequence, naive_step):
    """Assert that the model steps from `state` as the naive version does: outputs, states and traces of every row."""
    config, weights, rows = model.config, weights_of(model), range(sequence.shape[1])
    naive_states = [row_of(flatten(state), row) for row in rows]
    for inputs in sequence:
        outputs, state, trace = model.step(inputs, state)
        for row in rows:
            seen = encoded(config, weights, inputs[row].numpy())
            expected, naive_states[row], naive_trace = naive_step(config, weights, seen, naive_states[row])
            np.testing.assert_allclose(outputs[row], expected, rtol=0, atol=1e-9)
            assert_state_near(flatten(state), row, naive_states[row])
            assert_state_near(trace, row, naive_trace | {"controller": {}})
