"""Make a checkpoint of an outside graph."""

import hashlib
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from models.config import ConfigError
from models.manifest import GRAPH_KIND, ONNX_FILE, GraphForm, Manifest
from training.checkpoint import write_manifest
from training.files import creating, write_atomically
from training.graphs.alone import FileAlone, probed
from training.graphs.files import nodes_of, read_graph
from training.graphs.guess import axis_choices, complete
from training.graphs.prepare import inputs_of, prepared, sizes_of, zeros_feed
from training.graphs.samples import write_sample
from training.graphs.spec import BATCH, GraphSpec, Part, Shape, check_names, facts, read_spec, refined
from training.graphs.verify import (
    STEPS,
    FormFailed,
    RowsSeen,
    Verdict,
    WrittenGraph,
    draw_inputs,
    joined,
    verify,
)
from training.graphs.wrap import Signature, parameters_of, write_graph
from training.importers.variables import ImportFailed
from training.runtime import first_line, open_session
from training.tasks import NO_TASK

FORMS: dict[str, tuple[GraphForm, ...]] = {
    "auto": ("batched", "scan", "loop"),
    "batched": ("batched",),
    "rows": ("scan", "loop"),
    "loop": ("loop",),
}
"""The forms to try, in order, by the `form` of a specification."""

CONTROL_FLOW = ("If", "Loop", "Scan")
"""Operators that keep a graph out of a Scan: some of them crash onnxruntime 1.31 there when it loads the graph."""

MOST_CHOICES = 16
"""Combinations of batch axes to try at most."""

Counting = Callable[[str], AbstractContextManager[Callable[[int, int], object]]]
"""Shows the progress of what it names, as training.progress.counting does."""


@dataclass(frozen=True)
class ImportedGraph:
    """An imported graph. refused: the forms that were tried before, and why they were not taken."""

    spec: GraphSpec
    verdict: Verdict
    parameters: int
    refused: dict[str, str]


def import_graph(
    file: Path,
    out: Path,
    command: str,
    counting: Counting,
    spec_file: Path | None = None,
    guess: bool = False,
    show_spec: Callable[[GraphSpec], object] = lambda _: None,
) -> ImportedGraph:
    """Make a checkpoint in `out` of the graph of a step in an ONNX file.

    spec_file: its specification; guess: complete it by guesses. show_spec: called with the complete specification
    before the graph is verified. Raises ImportFailed, and CheckpointError if there is a checkpoint in `out`; then
    nothing is written.
    """
    if spec_file is None and not guess:
        raise ImportFailed(f"{file}: --spec SPEC.toml says what its inputs and outputs are, or --guess guesses it")
    with creating(out) as fresh:
        model = read_graph(file)
        given = GraphSpec(where=str(file)) if spec_file is None else read_spec(spec_file)
        spec = completed(model, given, guess)
        if guess:
            spec = _with_best_axes(model, spec, {part.tensor for part in given.fed if part.shape})
        show_spec(spec)
        return _write_checkpoint(model, spec, fresh, {"command": command, "original": "onnx"}, counting)


def import_step(name: str, out: Path, command: str, counting: Counting, spec_file: Path | None = None) -> ImportedGraph:
    """Make a checkpoint in `out` of a user's step in torch. name: of its factory, as in `torch_step`.

    spec_file: more of its specification, such as names, ranges and [step]. Raises as `import_graph`.
    """
    from training.graphs.torch_step import check_against_torch, graph_of, load_factory

    with creating(out) as fresh:
        factory = load_factory(name)
        model, spec = graph_of(factory)
        if spec_file is not None:
            spec = refined(spec, read_spec(spec_file))
        spec = completed(model, spec, guess=False)
        with counting("comparing with torch") as after_step:
            difference = check_against_torch(factory, FileAlone(model, spec), after_step)
        training = {"command": command, "original": "torch-step", "difference_from_torch": difference}
        return _write_checkpoint(model, spec, fresh, training, counting)


FORM_WORDS = {
    "batched": "batched, all rows at once",
    "scan": "rows one by one, in a Scan",
    "loop": "rows one by one, in a loop of the back end",
}


def described(imported: ImportedGraph) -> list[str]:
    """Return lines about an import: the form, how equal it is to the file alone, its costs."""
    verdict = imported.verdict
    equal = f"differs by at most {verdict.difference:.2g}" if verdict.difference else "equal to the bit"
    costs = " and ".join(f"{value:,.0f} us with {rows}" for rows, value in verdict.microseconds.items())
    lines = [f"not {form}: {reason}" for form, reason in imported.refused.items()]
    lines += [
        f"{imported.parameters:,} parameters; form: {FORM_WORDS[verdict.form]}",
        f"{equal} to the file run alone, row by row, over {STEPS} steps of random inputs and of zeros with "
        f"{', '.join(map(str, verdict.rows))} rows",
        f"a step takes {costs} rows",
    ]
    if verdict.overflow:
        lines.append(
            f"on random inputs its numbers are not finite after {verdict.overflow - 1} steps, in the file too: a "
            "server refuses such a step"
        )
    return lines


def _write_checkpoint(
    model: onnx.ModelProto, spec: GraphSpec, directory: Path, training: dict[str, Any], counting: Counting
) -> ImportedGraph:
    """Verify a graph, and write it and its manifest into an empty directory. training: its record."""
    alone = FileAlone(model, spec)
    signature = alone.signature()
    graph, verdict, refused = _best_form(model, alone, signature, counting)
    write_atomically(directory / ONNX_FILE, graph)
    if spec.sample:
        write_sample(spec, directory)
    manifest = _manifest(alone, signature, verdict, parameters_of(model), training, hashlib.sha256(graph).hexdigest())
    write_manifest(directory, manifest)
    return ImportedGraph(spec, verdict, manifest.parameters, refused)


def completed(model: onnx.ModelProto, spec: GraphSpec, guess: bool) -> GraphSpec:
    """Return a specification without gaps, of a graph that takes a step. Raises ImportFailed."""
    try:
        spec = complete(spec, model, guess)
        check_names(spec)
    except ConfigError as error:
        raise ImportFailed(f"{spec.where}: {error}") from error
    return probed(FileAlone(model, spec))


def _best_form(
    model: onnx.ModelProto, alone: FileAlone, signature: Signature, counting: Counting
) -> tuple[bytes, Verdict, dict[str, str]]:
    """Return the first form that agrees with the file alone, its verdict, and why others were refused."""
    refused: dict[str, str] = {}
    for form in FORMS[alone.spec.form]:
        try:
            data = write_graph(*_inner(model, alone.spec, form), signature, form).SerializeToString()
            with counting(f"verifying {form}") as after_step:
                return data, verify(WrittenGraph(data, form, signature), alone, after_step), refused
        except RowsSeen as error:
            if alone.spec.form != "auto" or declares_batch(model, alone.spec):
                raise ImportFailed(
                    f"{alone.spec.where}: its rows see each other: {error}. Mend the graph; or have each row "
                    'served by itself, with form = "rows" in the specification'
                ) from error
            refused[form] = str(error)
        except FormFailed as error:
            refused[form] = str(error)
    reasons = "; ".join(f"{form}: {reason}" for form, reason in refused.items())
    raise ImportFailed(f"{alone.spec.where}: no form of the graph agrees with the file run alone: {reasons}")


def _inner(model: onnx.ModelProto, spec: GraphSpec, form: GraphForm) -> tuple[onnx.ModelProto, GraphSpec]:
    """Return the graph that a form is made of, and the specification with its batch axes. Raises FormFailed."""
    if form != "batched":
        inner = prepared(model, spec, 1)
        branching = next((node.op_type for node in nodes_of(inner.graph) if node.op_type in CONTROL_FLOW), None)
        if form == "scan" and branching:
            raise FormFailed(f"an operator {branching} is left in the graph, which onnxruntime may not load in a Scan")
        return inner, spec
    without = next((part for part in spec.fed if BATCH not in (part.shape or ())), None)
    if without:
        raise FormFailed(f"{without.name!r} has no batch axis")
    inner = prepared(model, spec, None)
    return inner, _with_output_axes(inner, spec)


def _with_output_axes(inner: onnx.ModelProto, spec: GraphSpec) -> GraphSpec:
    """Return the specification with the batch axes of outputs and traces, where two and three rows show them."""
    shapes = {part.tensor: part.shape or () for part in spec.fed}
    names = [value.name for value in inner.graph.output]
    try:
        session = open_session(inner.SerializeToString())
        two, three = (
            dict(zip(names, session.run(None, zeros_feed(inner, shapes, rows)), strict=True)) for rows in (2, 3)
        )
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise FormFailed(f"it does not take a step of several rows: {first_line(error)}") from error

    def placed(part: Part) -> Part:
        pairs = list(zip(two[part.tensor].shape, three[part.tensor].shape, strict=True))
        axes = [axis for axis, pair in enumerate(pairs) if pair == (2, 3)]
        bare = [size for axis, size in enumerate(two[part.tensor].shape) if axis not in axes]
        if len(axes) != 1 or bare != part.row_shape:
            raise FormFailed(
                f"{part.tensor!r} has no batch axis: its shape is {list(two[part.tensor].shape)} with two rows and "
                f"{list(three[part.tensor].shape)} with three"
            )
        return replace(part, shape=(*bare[: axes[0]], BATCH, *bare[axes[0] :]))

    return replace(spec, outputs=tuple(map(placed, spec.outputs)), trace=tuple(map(placed, spec.trace)))


def declares_batch(model: onnx.ModelProto, spec: GraphSpec) -> bool:
    """Return whether the file declares that it takes any number of rows."""
    values = inputs_of(model)
    for part in spec.fed:
        sizes = sizes_of(values[part.tensor])
        axis = (part.shape or ()).index(BATCH) if BATCH in (part.shape or ()) else None
        if axis is None or (sizes is not None and isinstance(sizes[axis], int)):
            return False
    return True


def _with_best_axes(model: onnx.ModelProto, spec: GraphSpec, given: set[str]) -> GraphSpec:
    """Return the specification with batch axes by which two rows are stepped as each alone, if there are any."""
    choices = axis_choices(spec, model, given)
    if all(len(shapes) == 1 for shapes in choices.values()):
        return spec
    for shapes in itertools.islice(itertools.product(*choices.values()), MOST_CHOICES):
        chosen = _with_shapes(spec, dict(zip(choices, shapes, strict=True)))
        if _is_batched(model, chosen):
            return chosen
    return spec


def _with_shapes(spec: GraphSpec, shapes: dict[str, Shape]) -> GraphSpec:
    return replace(
        spec,
        inputs=tuple(replace(part, shape=shapes[part.tensor]) for part in spec.inputs),
        state=tuple(replace(leaf, shape=shapes[leaf.tensor]) for leaf in spec.state),
    )


def _is_batched(model: onnx.ModelProto, spec: GraphSpec) -> bool:
    """Return whether a step of two rows is that of each alone."""
    alone = FileAlone(model, spec)
    signature = alone.signature()
    inputs = draw_inputs(spec, 2, np.random.default_rng(0))
    try:
        inner, placed = _inner(model, spec, "batched")
        data = write_graph(inner, placed, signature, "batched").SerializeToString()
        graph = WrittenGraph(data, "batched", signature)
        came = graph.step(inputs, graph.first(2)).tensors()
    except FormFailed:
        return False
    expected = joined([alone.step(inputs[[row]], alone.first()) for row in range(2)]).tensors()
    return all(
        came[name].shape == due.shape and np.allclose(came[name], due, rtol=1e-3, atol=1e-3, equal_nan=True)
        for name, due in expected.items()
    )


def _manifest(
    alone: FileAlone, signature: Signature, verdict: Verdict, parameters: int, training: dict[str, Any], digest: str
) -> Manifest:
    spec = alone.spec
    config: dict[str, Any] = {
        "output_activation": "identity",
        "dtypes": {name: dtype for name, dtype in signature.dtypes.items() if dtype != "float32"},
        "graph": {
            "form": verdict.form,
            "inputs": [
                _described(part, [part.numbers] if part.carry else part.row_shape) | _whole(alone.whole_range(part))
                for part in spec.inputs
            ],
            "outputs": [_described(part, part.row_shape) for part in spec.outputs],
            "trace": [_described(part, part.row_shape) for part in spec.trace],
            "step": facts(spec.step),
            "about": facts(spec.about),
        },
    }
    if spec.input_size == 1 and spec.inputs[0].vocabulary:  # in a vector of more, tokens are numbers like others
        config["embedding"] = {"vocabulary_size": spec.inputs[0].vocabulary}
    verified = {
        "steps": STEPS,
        "rows": list(verdict.rows),
        "difference": verdict.difference,
        "microseconds": {str(rows): round(value, 1) for rows, value in verdict.microseconds.items()},
    }
    return Manifest(
        kind=GRAPH_KIND,
        config=config,
        task={"name": NO_TASK},
        input_size=signature.input_size,
        output_size=signature.output_size,
        parameters=parameters,
        state=signature.state,
        trace=signature.trace,
        weights_sha256=digest,
        training=training | {"verified": verified},
    )


def _whole(ends: tuple[float, float] | None) -> dict[str, Any]:
    """Return the ends of the whole numbers that an input takes, for the manifest."""
    return {} if ends is None else {"whole": list(ends)}


def _described(part: Part, shape: list[int]) -> dict[str, Any]:
    span = (0, part.vocabulary - 1) if part.vocabulary else part.range
    return {"name": part.name, "shape": shape, "range": None if span is None else list(span)}
