"""What the traces of a step say of it: its memory, its reads and its weightings, computed from them in NumPy."""

from functools import reduce

import numpy as np

from models.dnc import DNCConfig


def near(actual, expected, atol, name):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


def written(memory, weights, erase_vectors, add_vectors):
    """Return M * prod_v (1 - w_v e_v^T) + sum_v w_v a_v^T: [B, N, W]. weights: [B, V, N]; vectors: [B, V, W]."""
    kept = np.prod(1 - weights[..., None] * erase_vectors[:, :, None], axis=1)
    return memory * kept + np.einsum("bvn,bvw->bnw", weights, add_vectors)


def assert_traces_explain(config, before, after, trace, atol=1e-9):
    """Assert that a step's state follows from the one before it and from the traces. before, after: leaves by name."""
    assert_explained = assert_dnc_explained if isinstance(config, DNCConfig) else assert_ntm_explained
    assert_explained(config, before, after, trace, atol)


def assert_dnc_explained(config, before, after, trace, atol):
    kept = before["memory"] * (trace["retention"][..., None] if config.deallocation else 1)
    memory = written(kept, trace["write_weights"], trace["erase_vectors"], trace["write_vectors"])
    near(after["memory"], memory, atol, "memory")
    near(trace["read_vectors"], trace["read_weights"] @ after["memory"], atol, "read_vectors")
    to_free, write_gate = trace["allocation_gate"][..., None], trace["write_gate"][..., None]
    mixed = to_free * trace["allocation_weights"] + (1 - to_free) * trace["write_content_weights"]
    near(trace["write_weights"], write_gate * mixed, atol, "write_weights")
    near(trace["retention"], np.prod(1 - trace["free_gates"][..., None] * before["read_weights"], 1), atol, "retention")
    weights = trace["read_content_weights"][:, :, None]
    if config.links != "none":
        by_mode = np.concatenate([trace["backward_weights"], trace["forward_weights"], weights], 2)
        weights = trace["read_modes"][:, :, None] @ by_mode
    else:
        assert not trace.keys() & {"forward_weights", "backward_weights", "read_modes"}
    near(trace["read_weights"], weights[:, :, -1], atol, "read_weights")


def assert_ntm_explained(config, before, after, trace, atol):
    memories = written_in_turn(config, before["memory"], trace)
    near(after["memory"], memories[-1], atol, "memory")
    if config.order == "in-turn":
        reads = [(trace["read_weights"][:, [r]] @ memory)[:, 0] for r, memory in enumerate(memories[:-1])]
        near(trace["read_vectors"], np.stack(reads, 1), atol, "read_vectors")
    else:
        seen = memories[0 if config.order == "together" else -1]
        near(trace["read_vectors"], trace["read_weights"] @ seen, atol, "read_vectors")
    previous, found = (np.concatenate([each["read_weights"], each["write_weights"]], 1) for each in (before, after))
    gate = trace["interpolation_gate"][..., None]
    near(trace["gated_weights"], gate * trace["content_weights"] + (1 - gate) * previous, atol, "gated_weights")
    near(trace["shifted_weights"], shifted(config, trace["gated_weights"], trace["shift_weights"]), atol, "shifted")
    near(found, sharpened(config, trace["shifted_weights"], trace["sharpening"][..., None]), atol, "sharpened")


def written_in_turn(config, memory, trace):
    """Return the memory before the step and after each turn of its write heads: all together, or one by one."""
    names = ("write_weights", "erase_vectors", "add_vectors")
    turns = np.arange(config.write_heads)[:, None] if config.order == "in-turn" else [slice(None)]
    return reduce(
        lambda memories, heads: [*memories, written(memories[-1], *(trace[name][:, heads] for name in names))],
        turns,
        [memory],
    )


def shifted(config, weights, shifts):
    """Return the weightings moved by the shifts: around the ends, or beyond them. [B, H, N], [B, H, S]."""
    half, size = config.shift_width // 2, weights.shape[2]
    mode = "constant" if config.style == "ntm-lasagne" else "wrap"
    padded = np.pad(weights, ((0, 0), (0, 0), (half, half)), mode)
    moved = [padded[:, :, 2 * half - k :][:, :, :size] for k in range(config.shift_width)]
    return sum(shifts[:, :, [k]] * each for k, each in enumerate(moved))


def sharpened(config, weights, gamma):
    """Return the weightings, raised to gamma and divided by their sum, as the style has it."""
    above = {"paper": np.maximum(weights, 1e-8), "pytorch-ntm": np.maximum(weights, 1e-30)}
    powers = above.get(config.style, weights + 1e-6) ** gamma
    return powers / (powers.sum(2, keepdims=True) + (1e-16 if config.style == "pytorch-ntm" else 0))
