"""A library compiled with -DENGRAM_GUARDS: it counts the arrays of workspaces and scratch that are overrun."""

import ctypes

import numpy as np

from kernels.library import Library


class GuardedLibrary(Library):
    """Fills workspaces and scratch with NaN before each call, as the guards are. For one thread."""

    def __init__(self, path):
        super().__init__(path)
        self._overruns = ctypes.c_int64.in_dll(ctypes.CDLL(str(path)), "engram_overruns")
        self._step, self._unroll, self._backward = self.step, self.unroll, self.backward
        self.step, self.unroll, self.backward = self.guarded_step, self.guarded_unroll, self.guarded_backward

    @property
    def overruns(self):
        """How often an array was found overrun."""
        return self._overruns.value

    def guarded_step(self, model, states, call):
        made = call._obj
        self._fill(made.workspace, self.workspace_size(model, made.batch, 0))
        self._step(model, states, call)

    def guarded_unroll(self, model, states, segment, keep, inputs, outputs):
        over = segment._obj
        last = (over.steps - 1) * over.workspace_stride
        self._fill(over.workspace, last + self.workspace_size(model, over.total, keep))
        self._unroll(model, states, segment, keep, inputs, outputs)

    def guarded_backward(self, model, states, d_states, segment, d_outputs, d_inputs, scratch):
        self._fill(scratch, self.scratch_size(model, segment._obj.total))
        self._backward(model, states, d_states, segment, d_outputs, d_inputs, scratch)

    def _fill(self, address, count):
        number = ctypes.c_float if self.dtype.itemsize == 4 else ctypes.c_double
        np.ctypeslib.as_array((number * count).from_address(address)).fill(np.nan)
