"""Ownership of sessions: by this server alone, or by one of several that share a store.

    server A                         the store                            server B
    claim a ------------------------> a is A's, epoch 1
    append (epoch 1) ---------------> committed
                                      a is A's, and A lives <------------- claim a: Held
    asked("a") <--------------------- notification <---------------------- ask
    finish the step, evict
    release a ----------------------> a is nobody's, epoch 2
                                      notification ----------------------> answered
                                      a is B's, epoch 3 <----------------- claim a

Each server has a lease, which it renews. While the lease lasts, no other server claims what is its own. Once it has run
out, any server may end it, and so claim all of its sessions; steps under their former epochs are then refused.
"""

import secrets
from collections.abc import Callable
from typing import Protocol

Asked = Callable[[str, str], None]
"""Called with a session, and the owner that asks for it."""

Lost = Callable[[], None]
"""Called when others may have claimed the sessions of this server."""


class Ownership(Protocol):
    """The right of a server to sessions. Used on the event loop, but for `owner` and `holds`."""

    seconds: float
    """Time after which sessions of a server that died are free, at most; 0 where no other server shares the store."""

    @property
    def is_shared(self) -> bool:
        """Whether other servers may have sessions of the same store."""

    @property
    def owner(self) -> str:
        """Under which this server claims sessions: another one after a lease was lost."""

    @property
    def holds(self) -> bool:
        """Whether no other server can have claimed a session of this one."""

    def check(self) -> None:
        """Raise LeaseLost where another server can have claimed sessions of this one."""

    def start(self, asked: Asked, lost: Lost) -> None:
        """Begin to call `asked` when another owner asks for a session, and `lost` when the lease was lost."""

    async def ask(self, session: str, owner: str) -> bool | None:
        """Ask an owner to hand over a session, and return whether it has, None where it does not answer in time."""

    def answer(self, session: str, asker: str, handed_over: bool) -> None:
        """Answer to another owner that asked for a session."""

    def rejoin(self) -> None:
        """Take a new lease: nothing is left in memory of sessions of the lost one."""

    async def close(self) -> None:
        """End the lease: all of its sessions are free."""


class Alone:
    """The ownership of a server whose store no other shares."""

    seconds = 0.0
    is_shared = False
    holds = True

    def __init__(self) -> None:
        self.owner = secrets.token_hex(8)

    def check(self) -> None:
        """Return: nobody else can claim."""

    def start(self, asked: Asked, lost: Lost) -> None:
        """Return: nobody asks."""

    async def ask(self, session: str, owner: str) -> bool | None:  # noqa: ARG002
        """Return that nobody answers."""
        return None

    def answer(self, session: str, asker: str, handed_over: bool) -> None:
        """Return: nobody asks."""

    def rejoin(self) -> None:
        """Return: nothing is lost."""

    async def close(self) -> None:
        """Return: there is no lease."""
