"""Compile the kernels for GPUs as a step launches them: `python -m tests.kernels.gpu_compiler CAPABILITY MODEL...`.

Prints a line for each: the model, the kernel, its registers, and the bytes of local memory to which registers spill.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from benchmarks.kernels.sizes import SIZES
from kernels.gpu.step import GpuStep
from models.cells import LSTMConfig
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import build, config_values

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32"}
MODELS = SIZES | {
    "1024 locations": DNCConfig(9, 9, 1024, 64, 4, controller=LSTMConfig(hidden_size=256)),
    "improved": DNCConfig(9, 9, 64, 48, 4, 2, masking=True, deallocation=True, link_sharpening=True),
    "many heads": NTMConfig(9, 9, 128, 20, 5, 5, shift_width=5),
}


def launches(config, large="float32"):
    """Return the launches of one step: kernels with their arguments by name. large: the dtype of the largest leaves."""
    made = []

    def note(kernel, *arguments, grid, warmup, **named):
        made.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | named))

    JITFunction.run = note
    kind, values = "dnc" if isinstance(config, DNCConfig) else "ntm", config_values(config)
    step = GpuStep(kind, values, build(kind, values).eval(), config.memory_size, large=large)
    step.grow(1)
    step.step([0], np.zeros((1, config.input_size), np.float32))
    return made


def type_of(value):
    return TYPES[value.dtype] if isinstance(value, torch.Tensor) else {int: "i32", float: "fp32"}[type(value)]


def is_aligned(value):
    """Return whether Triton compiles a kernel for an address or a number of this alignment."""
    if isinstance(value, torch.Tensor):
        return value.data_ptr() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


def compiled(kernel, arguments, capability):
    options = {name: arguments.pop(name) for name in OPTIONS if name in arguments}
    constants = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    types = {name: "constexpr" if name in constants else type_of(arguments[name]) for name in kernel.arg_names}
    values = {(kernel.arg_names.index(name),): arguments[name] for name in constants}
    passed = [place for place, name in enumerate(kernel.arg_names) if name not in constants]
    aligned = [place for place in passed if is_aligned(arguments[kernel.arg_names[place]])]
    source = ASTSource(kernel, types, values, {(place,): [["tt.divisibility", 16]] for place in aligned})
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def usage(cubin):
    """Return the registers of a kernel, and its bytes of local memory: stack and spills."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack, local = (re.search(rf"{what}:(\d+)", shown)[1] for what in ("REG", "STACK", "LOCAL"))
    return int(registers), int(stack) + int(local)


if __name__ == "__main__":
    for model in sys.argv[2:]:
        name, _, large = model.partition(" in ")
        for kernel, arguments in launches(MODELS[name], large or "float32"):
            registers, local = usage(compiled(kernel, arguments, int(sys.argv[1])).asm["cubin"])
            sys.stdout.write(f"{model}\t{kernel.__name__}\t{registers}\t{local}\n")
