"""The versions of a model: the same network, with tensors of two forms.

version   input       output      for
1         [B, T, I]   [B, T, O]   any number of steps in a request; also [T, I] and [I]
2         [B, I]      [B, O]      clients that want shapes without a variable size: one step a request

The names are numbers, because `perf_analyzer` reads them as such.
"""

from typing import NamedTuple

from app.api.v2.tensors import invalid
from app.backends.base import Array
from app.catalogue import ServedModel
from app.errors import ModelNotFound

ANY = -1
"""A size that each request chooses."""


class Version(NamedTuple):
    """A version of every model; between: the sizes between the axis of the batch and the numbers of a step."""

    name: str
    between: tuple[int, ...]

    def as_sequences(self, inputs: Array) -> Array:
        """Return an input in a shape of version 1. Raises InvalidInput."""
        if self.between:
            return inputs
        if inputs.ndim != 2:
            expected = f"[B, input_size], one step of each sequence, in version {self.name}"
            raise invalid("inputs[0].shape", expected, list(inputs.shape))
        return inputs[:, None]

    def as_answered(self, output: Array) -> Array:
        """Return an output of version 1 in the form of this version."""
        return output if self.between else output[:, 0]


SEQUENCES = Version("1", (ANY,))
STEPS = Version("2", ())
VERSIONS = {version.name: version for version in (SEQUENCES, STEPS)}


def version_of(model: ServedModel, asked: str) -> Version:
    """Return a version of a model. Raises ModelNotFound."""
    if asked not in VERSIONS:
        known = " and ".join(VERSIONS)
        raise ModelNotFound(
            f"model {model.name!r} has the versions {known}, got {asked!r}",
            place="version",
            expected=f"one of {', '.join(VERSIONS)}",
            got=asked,
        )
    return VERSIONS[asked]
