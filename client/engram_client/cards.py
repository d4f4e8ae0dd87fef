"""The cards of models."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from engram_client.tables import html_table

Shapes = dict[str, list[int]]
"""Shapes by name, of one step, without a batch axis."""


@dataclass(frozen=True, eq=False)
class Card(Mapping[str, Any]):
    """The description of a model. A member that does not apply to it is None.

    It is also a mapping of all members by the names that the server gives them, `card["input_size"]`; those that this
    client does not know are in `more`.
    """

    name: str
    kind: str
    """dnc, ntm, a recurrent cell such as lstm, or onnx, an imported graph."""
    task: dict[str, Any]
    """Its name, and the sizes of training."""
    input_size: int
    output_size: int
    vocabulary_size: int | None = None
    """Inputs are tokens, whole numbers below it; None: any numbers."""
    output_activation: str = "identity"
    """sigmoid: outputs are probabilities of a 1; softmax: of the classes; identity: values."""
    output_groups: int = 1
    """The number of equal parts of the outputs that have a softmax each."""
    output_at: str = "every-step"
    """The place of the answer: every-step, or last-step."""
    memory_size: int | None = None
    """Memory locations, unless a session asks for others."""
    word_size: int | None = None
    read_heads: int | None = None
    write_heads: int | None = None
    deallocation: bool | None = None
    """Whether a DNC empties a memory location that is freed."""
    look_up_scaling: bool | None = None
    """Whether the key strengths of a DNC or NTM grow with the logarithm of the memory locations."""
    order: str | None = None
    """The order of an NTM's heads: together, in-turn or before-controller."""
    style: str | None = None
    """The formulas of an NTM: paper, pytorch-ntm or ntm-lasagne."""
    controller: dict[str, Any] | None = None
    graph: dict[str, Any] | None = None
    """Inputs, outputs and origin of an imported graph."""
    sample: bool = False
    """Whether `Client.sample` gives the recording of the checkpoint."""
    parameters: int = 0
    backend: str | None = None
    device: str | None = None
    state: Shapes = field(default_factory=dict)
    """The shapes of the state's leaves."""
    trace: Shapes = field(default_factory=dict)
    """The shapes of the traces of one step."""
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    """The measured errors."""
    training: dict[str, Any] = field(default_factory=dict)
    """The record of the training."""
    more: dict[str, Any] = field(default_factory=dict, repr=False)
    """Members that this client does not know, by name."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the card in a document of the server. Raises TypeError where it lacks a name, a kind or sizes."""
        known = {name: value for name, value in document.items() if name in MEMBERS}
        return cls(**known, more={name: value for name, value in document.items() if name not in MEMBERS})

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name) if name in MEMBERS else self.more[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*MEMBERS, *self.more))

    def __len__(self) -> int:
        return len(MEMBERS) + len(self.more)

    def _repr_html_(self) -> str:
        shown = ((name, self[name]) for name in self if name not in LONG and self[name] is not None)
        traces = [("traces", ", ".join(self.trace))] if self.trace else []
        return html_table(f"Model {self.name}", [*shown, *traces])


MEMBERS = tuple(member.name for member in fields(Card) if member.name != "more")
"""The members that a server gives, by name."""

LONG = {"name", "graph", "state", "trace", "evaluation", "training"}
"""Members that a notebook does not show, but for the names of the traces."""
