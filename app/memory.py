"""The numbers of memory slots that a model can be served with: no weight depends on them."""

import bisect
from dataclasses import dataclass

from app.backends.base import Spec
from app.errors import InvalidRequest
from models.manifest import Manifest, ManifestError


@dataclass(frozen=True)
class MemorySizes:
    """What sessions of a model may ask for.

    spec: of the model as it was trained, whose memory size is always granted; least: the fewest slots that the model
    can do with; max_state_bytes: what the state of any other memory size may take.
    """

    model: str
    spec: Spec
    least: int
    max_state_bytes: int

    def check(self, asked: int | None) -> None:
        """Raise InvalidRequest unless a session can have so many slots; None stands for the model's own number."""
        trained = self.spec.memory_size
        if asked in (None, trained):
            return
        if trained is None:
            raise _refusal(asked, f"{self.model} has no memory to resize", "no memory_size")
        if asked < self.least:
            raise _refusal(asked, f"{self.model} keeps {self.least} links per slot", f"at least {self.least}")
        size = self.spec.resized(asked).state_bytes
        if size > self.max_state_bytes:
            reason = f"the state would take {size} bytes, more than {self.max_state_bytes} (setting max_state_bytes)"
            raise _refusal(asked, reason, f"at most {self._largest(asked)}")

    def _largest(self, beyond: int) -> int:
        """Return the largest number of slots, below one that is too large, whose state takes no more than it may."""

        def size(slots: int) -> int:
            return self.spec.resized(slots).state_bytes

        return bisect.bisect_right(range(beyond), self.max_state_bytes, lo=1, hi=beyond, key=size) - 1


def least_memory(manifest: Manifest) -> int:
    """Return the fewest slots that a model can do with. Raises ManifestError."""
    if manifest.config.get("links") != "sparse":
        return 1
    least = manifest.config.get("links_per_slot")
    if type(least) is not int or least < 1:
        raise ManifestError(f"config.links_per_slot must be a whole number of at least 1, got {least!r}")
    return least


def _refusal(asked: int | None, reason: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"memory_size: {asked} slots cannot be had: {reason}; expected {expected}",
        place="memory_size",
        expected=expected,
        got=str(asked),
    )
