"""ntm-lasagne in NumPy, one row and one step at a time, from its source: Theano, which it needs, is no more.

Its layers.py, heads.py, controllers.py and similarities.py, function by function, independent of the models and the
importer.
"""

import numpy as np

from app.backends.base import Array

PAIRS = ("key", "beta", "gate", "shift", "gamma")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def hard_sigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0, 1)


def rectify(x: Array) -> Array:
    return np.maximum(x, 0)


NONLINEARITIES = {"ClippedLinear": lambda x: np.clip(x, 0, 1), "rectify": rectify, "tanh": np.tanh, "linear": np.array}


class Network:
    """controller: dense, recurrent, gru or lstm; heads: `w` or `r` for each, in order; early: as before 0.2."""

    def __init__(
        self, parameters: list[Array], controller: str, heads: str, early: bool, config: dict[str, str]
    ) -> None:
        self.controller, self.config = controller, config
        left = [np.asarray(array, np.float64) for array in parameters]
        self.first = [left.pop(0)[0] for _ in range(2 if controller == "lstm" else 1)]
        names = {"dense": ["hid"], "recurrent": ["hid"], "gru": ["update", "reset", "hid"]}
        sources = ["in", "reads"] if controller == "dense" else ["in", "reads", "hid"]
        self.gates = {
            name: {source: (left.pop(0), left.pop(0)) for source in sources}
            for name in names.get(controller, ["input", "forget", "output", "cell"])
        }
        self.memory = left.pop(0)
        self.heads = {"w": [], "r": []}  # type: dict[str, list[dict[str, tuple[Array, ...]]]]
        for kind in heads:
            first = (left.pop(0)[0],) if early else ()
            head = {name: (left.pop(0), left.pop(0)) for name in PAIRS}
            head["weights_init"] = first or (left.pop(0)[0],)
            if kind == "w":
                head |= {name: (left.pop(0), left.pop(0)) for name in ("erase", "add")}
            self.heads[kind].append(head)
        self.dense = left.pop(0), left.pop(0)
        assert not left

    def run(self, inputs: Array) -> tuple[Array, dict[str, Array]]:
        """inputs: [T, B, I]. Returns outputs [T, B, O] and every leaf of the state, [T, B, ...]."""
        rows = [self._run_row(row) for row in inputs.swapaxes(0, 1).astype(np.float64)]
        leaves = {name: np.stack([row[name] for row in rows], 1) for name in rows[0]}
        return leaves.pop("outputs"), leaves

    def _run_row(self, inputs: Array) -> dict[str, Array]:
        memory, state = self.memory, list(self.first)
        ww = np.array([head["weights_init"][0] for head in self.heads["w"]])
        wr = np.array([head["weights_init"][0] for head in self.heads["r"]])
        steps = []
        for x in inputs:
            memory = self._write(memory, state[0], ww)
            reads = np.array([sum(w[n] * memory[n] for n in range(len(memory))) for w in wr])
            state = self._control(x, reads.ravel(), state)
            ww = np.array(
                [self._weights(head, state[0], w, memory) for head, w in zip(self.heads["w"], ww, strict=True)]
            )
            wr = np.array(
                [self._weights(head, state[0], w, memory) for head, w in zip(self.heads["r"], wr, strict=True)]
            )
            step = {
                "memory": memory,
                "read_vectors": reads,
                "write_weights": ww,
                "read_weights": wr,
                "hidden": state[0],
            }
            step |= {"outputs": sigmoid(state[0] @ self.dense[0] + self.dense[1])}
            if self.controller != "dense":
                step |= dict(zip(("controller.h", "controller.c"), state, strict=False))
            steps.append(step)
        return {name: np.array([step[name] for step in steps]) for name in steps[0]}

    def _told(self, head: dict[str, tuple[Array, ...]], name: str, h: Array) -> Array:
        weight, bias = (array.reshape(array.shape[-2:] if part == 0 else -1) for part, array in enumerate(head[name]))
        return np.asarray(h @ weight + bias)

    def _write(self, memory: Array, h: Array, ww: Array) -> Array:
        memory = memory.copy()
        for head, w in zip(self.heads["w"], ww, strict=True):
            memory *= 1 - np.outer(w, hard_sigmoid(self._told(head, "erase", h)))
        for head, w in zip(self.heads["w"], ww, strict=True):
            add = NONLINEARITIES[self.config.get("nonlinearity_add", "ClippedLinear")]
            memory += np.outer(w, add(self._told(head, "add", h)))
        return memory

    def _weights(self, head: dict[str, tuple[Array, ...]], h: Array, previous: Array, memory: Array) -> Array:
        key = NONLINEARITIES[self.config.get("nonlinearity_key", "ClippedLinear")](self._told(head, "key", h))
        cosines = [key @ word / np.sqrt((key @ key) * (word @ word) + 1e-6) for word in memory]
        content = softmax(rectify(self._told(head, "beta", h)) * np.array(cosines))
        gate, shift = hard_sigmoid(self._told(head, "gate", h)), softmax(self._told(head, "shift", h))
        mixed = gate * content + (1 - gate) * previous
        moved = np.convolve(mixed, shift)[len(shift) // 2 :][: len(mixed)]
        powers = (moved + 1e-6) ** (1 + rectify(self._told(head, "gamma", h)))
        return np.asarray(powers / powers.sum())

    def _control(self, x: Array, reads: Array, state: list[Array]) -> list[Array]:
        def gate(name: str, hidden: Array) -> Array:
            seen = {"in": x, "reads": reads, "hid": hidden}
            return np.asarray(sum(seen[source] @ w + b for source, (w, b) in self.gates[name].items()))

        h = state[0]
        if self.controller in ("dense", "recurrent"):
            return [NONLINEARITIES[self.config.get("nonlinearity", "rectify")](gate("hid", h))]
        if self.controller == "gru":
            update, reset = sigmoid(gate("update", h)), sigmoid(gate("reset", h))
            return [(1 - update) * np.tanh(gate("hid", h * reset)) + update * h]
        cell = state[1] * sigmoid(gate("forget", h)) + np.tanh(gate("cell", h)) * sigmoid(gate("input", h))
        return [np.tanh(cell) * sigmoid(gate("output", h)), cell]
