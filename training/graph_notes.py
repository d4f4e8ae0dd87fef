"""The documentation inside an ONNX graph of one step: its producer, what it computes, the meaning of each tensor."""

from importlib import metadata

import onnx

from models.manifest import Manifest
from training.tasks import NO_TASK

PRODUCER = "engram"

MEANINGS = {
    "memory": "the contents of the memory, a row for each location",
    "usage": "the usage of each location, from 0 to 1",
    "link": "for each write head, how far location i was written right after location j",
    "link_columns": "the locations of the links that are kept",
    "precedence_weights": "for each write head, how far each location was the last to be written",
    "read_weights": "the read weightings, for each read head a share of each location",
    "write_weights": "the write weightings, for each write head a share of each location",
    "read_vectors": "the vectors that the read heads read",
    "write_vectors": "the vectors that the write heads add",
    "add_vectors": "the vectors that the write heads add",
    "erase_vectors": "the shares that the write heads erase",
    "write_keys": "the keys of the content look-ups of the write heads",
    "write_strengths": "the strengths of the content look-ups of the write heads",
    "read_keys": "the keys of the content look-ups of the read heads",
    "read_strengths": "the strengths of the content look-ups of the read heads",
    "write_masks": "the masks of the content look-ups of the write heads",
    "read_masks": "the masks of the content look-ups of the read heads",
    "write_content_weights": "the content weightings of the write heads, in the memory before the step",
    "read_content_weights": "the content weightings of the read heads, in the memory after the step",
    "free_gates": "for each read head, how far it frees what it read",
    "retention": "for each location, the share that the free gates do not free",
    "allocation_weights": "the weightings by which the write heads allocate locations",
    "allocation_gate": "for each write head, the share of allocation against content",
    "write_gate": "for each write head, how far it writes",
    "forward_weights": "the weightings forward along the links, for each read head and write head",
    "backward_weights": "the weightings backward along the links, for each read head and write head",
    "forward_sharpness": "the exponents that sharpen the forward weightings",
    "backward_sharpness": "the exponents that sharpen the backward weightings",
    "read_modes": "for each read head, the shares of backward for each write head, forward for each, and content",
    "keys": "the keys of the content look-ups, read heads first",
    "key_strength": "the strengths of the content look-ups, read heads first",
    "content_weights": "the content weightings, read heads first",
    "interpolation_gate": "the share of the content weighting against the weighting of the step before",
    "gated_weights": "the weightings after the interpolation",
    "shift_weights": "the shares of the shifts",
    "shifted_weights": "the weightings after the shift",
    "hidden": "the output of the controller, by which the heads write at the next step",
    "sharpening": "the exponents that sharpen the weightings",
    "program_weights": "the shares of the stored programs",
}
"""The meanings of states and traces, by the name without `state.`, `next.` or `trace.`."""

PLACES = {"state": "before the step", "next": "after the step", "trace": "of the step"}


def add_notes(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Write the producer and the documentation of a graph, and of each of its inputs and outputs."""
    graph.producer_name, graph.producer_version = PRODUCER, engram_version()
    memory = f", {manifest.config['memory_size']} memory locations" if manifest.config.get("memory_size") else ""
    task = manifest.task.get("name", NO_TASK)
    graph.doc_string = (
        f"One step of a {manifest.kind} for the task {task}, for a batch of sequences at once. "
        "inputs and state.* are those before the step; outputs, next.* and trace.* those of it; next.* are the state.* "
        f"of the step that follows. {manifest.input_size} inputs, {manifest.output_size} outputs{memory}."
    )
    for value in (*graph.graph.input, *graph.graph.output):
        value.doc_string = note(value.name, manifest)


def note(name: str, manifest: Manifest) -> str:
    """Return the meaning of an input or output of a graph."""
    if name == "inputs":
        return "the vector of a step" if manifest.config.get("embedding") is None else "the token of a step"
    if name == "outputs":
        return f"the outputs of the step, after {manifest.config['output_activation']}"
    place, _, leaf = name.partition(".")
    meaning = "the state of the controller" if leaf.startswith("controller.") else MEANINGS.get(leaf, leaf)
    return f"{meaning}, {PLACES[place]}"


def engram_version() -> str:
    """Return the version of Engram, "" if it is not installed."""
    try:
        return metadata.version("engram")
    except metadata.PackageNotFoundError:
        return ""
