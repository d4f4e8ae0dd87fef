"""The structures, numbers and functions of the C sources as Python has them, and their comparison with a library's.

`build.py` compiles these names into every library. The library then reports the size, offset and kind that each has in
C, and the compiler refuses declarations that differ from the definitions. Standard library only.
"""

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kernels.support import CELL_ACTIVATIONS, CELLS, INPUTS, KINDS

Integer, Float, Pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


def _fields(kinds: Mapping[Any, str]) -> Sequence[tuple[str, Any]]:
    return [(name, kind) for kind, names in kinds.items() for name in names.split()]


class Linear(ctypes.Structure):
    """`linear`."""

    _fields_ = _fields({Integer: "inputs outputs", Pointer: "weights bias transposed d_weights d_bias"})


class Sources(ctypes.Structure):
    """`sources`."""

    _fields_ = _fields({Integer: "count size", Pointer: "parts"})


class Layer(ctypes.Structure):
    """`layer`."""

    _fields_ = [
        *_fields({Integer: "kind activation size cells", Float: "forget_bias cell_clip projection_clip"}),
        *_fields({Sources: "below", Linear: "gates second", Pointer: "peepholes d_peepholes"}),
    ]


class Model(ctypes.Structure):
    """`model`."""

    _fields_ = [
        *_fields(
            {
                Integer: "kind layers input_size output_size output_activation output_groups "
                "memory_size word_size read_heads write_heads strength linked masking deallocation link_sharpening "
                "style order signed_heads shift_width",
                Float: "clip look_up_scale",
                Pointer: "controller",
                Sources: "hidden",
                Linear: "interface output query",
            }
        ),
        *_fields({Integer: "read_keys write_keys erase add strengths gates modes shifts read_masks write_masks"}),
        *_fields({Integer: "sharpness key_signs add_signs programs program_key_size interface_size"}),
        *_fields({Pointer: "program_keys d_program_keys forced"}),
    ]


class CellStates(ctypes.Structure):
    """`cell_states`."""

    _fields_ = _fields({Pointer: "h c"})


class States(ctypes.Structure):
    """`states`."""

    _fields_ = _fields({Pointer: "memory read_weights write_weights read_vectors usage link precedence hidden cells"})


class Traces(ctypes.Structure):
    """`traces`."""

    _fields_ = _fields(
        {
            Pointer: "controls controls_before retention allocation_weights write_content_weights read_content_weights "
            "forward_weights backward_weights content_weights gated_weights shifted_weights "
            "program_weights"
        }
    )


class StepCall(ctypes.Structure):
    """`step_call`."""

    _fields_ = _fields(
        {Integer: "batch steps", Pointer: "slots numbers inputs outputs traced workspace"},
    )


class Segment(ctypes.Structure):
    """`segment`."""

    _fields_ = _fields(
        {Integer: "total first batch steps base stride workspace_stride", Pointer: "lengths taken lists workspace"},
    )


class KernelCall(ctypes.Structure):
    """`kernel_call`."""

    _fields_ = [
        *_fields({Integer: "kernel"}),
        *_fields({Pointer: "m s g over step"}),
        *_fields({Integer: "keep part parts"}),
        *_fields({Pointer: "inputs d_outputs outputs d_inputs scratch"}),
    ]


class LossCall(ctypes.Structure):
    """`loss_call`."""

    _fields_ = _fields(
        {
            Integer: "answer steps batch size groups",
            Pointer: "outputs targets mask d_outputs",
            Float: "loss errors",
        }
    )


class Optimizer(ctypes.Structure):
    """`optimizer`."""

    _fields_ = _fields(
        {
            Integer: "kind step",
            Float: "rate decay square_decay momentum epsilon l1 l2 clip_value clip_norm",
        }
    )


class Weights(ctypes.Structure):
    """`weights`."""

    _fields_ = _fields({Integer: "count", Pointer: "values gradients trained mean square change"})


STRUCTURES = {
    "linear": Linear,
    "sources": Sources,
    "layer": Layer,
    "model": Model,
    "cell_states": CellStates,
    "states": States,
    "traces": Traces,
    "step_call": StepCall,
    "segment": Segment,
    "kernel_call": KernelCall,
    "loss_call": LossCall,
    "optimizer": Optimizer,
    "weights": Weights,
}
"""By their names in C."""

# The enumerations, each in the order of its numbers.

ACTIVATIONS = (*CELL_ACTIVATIONS, "softmax")
STRENGTHS = ("oneplus", "softplus")
STYLES = ("paper", "pytorch-ntm", "ntm-lasagne")
ORDERS = ("together", "in-turn", "before-controller")
CALLS = ("step", "unroll", "backward", "weight-gradients")
ANSWERS = ("bits", "classes")
OPTIMIZERS = ("adam", "rmsprop")
FUNCTIONS = ("exp", "tanh", "sigmoid", "softplus", "log", "elu", "softsign")

LANES, WIDE, PANEL = 8, 16, 16
"""Numbers in a vector, to which words are padded; in a wide one, to which weightings are; in a panel of weights."""

NUMBERS = {"LANES": LANES, "WIDE": WIDE, "PANEL": PANEL, "INPUTS": INPUTS}
NUMBERS |= {f"FUNCTION_{name.upper()}": number for number, name in enumerate(FUNCTIONS)}
NUMBERS |= {
    name.upper().replace("-", "_"): number
    for names in (CELLS, KINDS, ACTIVATIONS, STRENGTHS, STYLES, ORDERS, CALLS, ANSWERS, OPTIMIZERS)
    for number, name in enumerate(names)
}
"""The values of C's macros and enumerators."""

DECLARATIONS = """
i64 engram_workspace_size(const model *m, i64 total, i64 keep);
i64 engram_scratch_size(const model *m, i64 batch);
void engram_step(const model *m, const states *s, const step_call *call);
team *engram_open_team(i64 threads);
void engram_close_team(team *t);
void engram_make_calls(team *t, const kernel_call *calls, i64 count);
void engram_loss(loss_call *call);
double engram_gradient_norm(const optimizer *o, const weights *w, i64 parts);
void engram_step_weights(optimizer *o, const model *m, const weights *w, i64 parts, double norm);
void engram_gather(const int32_t *places, const real *from, real *to, i64 count);
void engram_function(i64 which, const real *in, real *out, i64 count);
int engram_runs_here(void);
int engram_number(void);
""".strip().split("\n")
"""The functions that Python calls."""


def declare(library: Any) -> None:
    """Give the functions of a loaded library the types of their arguments and results."""
    types = {"void": None, "int": ctypes.c_int, "i64": Integer, "double": Float}
    for declaration in DECLARATIONS:
        parts = re.fullmatch(r"(\w+ \*?)(\w+)\((.*)\);", declaration)
        assert parts
        returns, name, takes = parts.groups()
        function = getattr(library, name)
        function.restype = Pointer if "*" in returns else types[returns.strip()]
        function.argtypes = [
            Pointer if "*" in each else types[each.split()[0]] for each in takes.split(",") if each != "void"
        ]


FIELD_KINDS = {Integer: "integer", Float: "double", Pointer: "pointer"}
FIELD_KINDS |= {structure: name for name, structure in STRUCTURES.items()}


def facts() -> dict[str, str]:
    """Return what Python assumes of each name of C, in the words of `engram_facts`."""
    known = dict.fromkeys(DECLARATIONS, "") | {name: f"number {value}" for name, value in NUMBERS.items()}
    for name, structure in STRUCTURES.items():
        known[name] = f"structure of {ctypes.sizeof(structure)} bytes"
        for field, kind, *_ in structure._fields_:
            place = getattr(structure, field)
            known[f"{name}.{field}"] = f"{FIELD_KINDS[kind]} at {place.offset}, of {place.size} bytes"
    return known


def header() -> str:
    """Return the header of a library: the declarations, FACTS, the names that it reports, and KINDS."""
    names = [f'FUNCTION("{declaration}")' for declaration in DECLARATIONS] + [f"NUMBER({name})" for name in NUMBERS]
    for name, structure in STRUCTURES.items():
        names += [f"STRUCTURE({name})", *(f"FIELD({name}, {field})" for field, *_ in structure._fields_)]
    kinds = ", ".join(f'{name}: "{name}"' for name in STRUCTURES)
    return "\n".join([*DECLARATIONS, f"#define FACTS {' '.join(names)}", f"#define KINDS {kinds}", ""])


def differences(library: Any) -> list[str]:
    """Return, for each name that differs, what it is in a loaded library and in Python.

    Raises AttributeError where the library does not report its names.
    """
    report = library.engram_facts
    report.restype, report.argtypes = Integer, [ctypes.c_char_p, Integer]
    text = ctypes.create_string_buffer(report(None, 0) + 1)
    report(text, len(text))
    lines = (line.partition(": ") for line in text.value.decode().splitlines())
    reported, known = {name: fact for name, _, fact in lines}, facts()
    differing = [name for name in {**known, **reported} if known.get(name) != reported.get(name)]
    return [
        f"{name} is {reported.get(name, 'unknown')} in C, {known.get(name, 'unknown')} in Python" for name in differing
    ]
