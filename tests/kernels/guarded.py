"""A library compiled with -DENGRAM_GUARDS: it counts the arrays of workspaces and scratch that are overrun."""

import ctypes

import numpy as np

from kernels.layout import CALLS, Model, Segment
from kernels.library import Library


class GuardedLibrary(Library):
    """Fills workspaces and scratch with NaN before each call, as the guards are. For one thread."""

    def __init__(self, path):
        super().__init__(path)
        self._overruns = ctypes.c_int64.in_dll(ctypes.CDLL(str(path)), "engram_overruns")
        self._step, self._make_calls = self.step, self.make_calls
        self.step, self.make_calls = self.guarded_step, self.guarded_calls

    @property
    def overruns(self):
        """How often an array was found overrun."""
        return self._overruns.value

    def guarded_step(self, model, states, call):
        made = call._obj
        self._fill(made.workspace, self.workspace_size(model, made.batch, 0))
        self._step(model, states, call)

    def guarded_calls(self, team, calls, count):
        call = calls._obj
        model, over = Model.from_address(call.m), Segment.from_address(call.over)
        if call.kernel == CALLS.index("unroll"):
            last = (over.steps - 1) * over.workspace_stride
            self._fill(over.workspace, last + self.workspace_size(ctypes.byref(model), over.total, call.keep))
        if call.kernel == CALLS.index("backward"):
            self._fill(call.scratch, self.scratch_size(ctypes.byref(model), over.total))
        self._make_calls(team, calls, count)

    def _fill(self, address, count):
        number = ctypes.c_float if self.dtype.itemsize == 4 else ctypes.c_double
        np.ctypeslib.as_array((number * count).from_address(address)).fill(np.nan)
