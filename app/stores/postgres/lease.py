"""The lease of a server: a row of the table `servers`, renewed by a thread of its own, and messages between servers.

    the lease's thread                                    the event loop
    UPDATE servers SET renewed = now()   a few times in `seconds`
    its row is gone ------------------------------------> lost(): drop all sessions
    INSERT a row under a new id <------------------------ rejoin()
    NOTIFY engram_THEIRS <------------------------------- ask(), answer()
    LISTEN engram_OURS ---------------------------------> asked(), or the answer to an ask

The database's clock alone says whether a lease has run out, so clocks of servers may differ. A server ends the lease
of another by deleting its row, only after it has run out; a lease that was renewed late, and not ended, goes on. In its
own process a lease counts from when its last renewal was sent, which is earlier than when it came, and also while the
machine is suspended.
"""

import asyncio
import contextlib
import json
import logging
import queue
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from app.errors import StoreFailed, lease_lost
from app.stores.ownership import Asked, Lost
from app.stores.postgres.database import Database

logger = logging.getLogger(__name__)

RENEWALS = 4
"""Renewals within the seconds of a lease."""

ASK_SECONDS = 0.25
"""Time until a server that was asked for a session is asked again, or may have died."""

RETRY_SECONDS = 0.2
"""Time until a renewal that failed is tried again."""

FORGOTTEN_AFTER = 60
"""Seconds after which the row of a server that died is deleted, if nobody wanted its sessions before."""

JOIN = """
INSERT INTO servers (id, name, place, lasts, renewed, started)
VALUES ($1, $2, $3, make_interval(secs => $4), clock_timestamp(), clock_timestamp())
"""

RENEW = "UPDATE servers SET renewed = clock_timestamp() WHERE id = $1"

LEAVE = "DELETE FROM servers WHERE id = $1"

FORGET = "DELETE FROM servers WHERE renewed + lasts < clock_timestamp() - make_interval(secs => $1)"

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock of leases: as the database's does, it goes on while this machine is suspended, where the system has one."""


def elapsed() -> float:
    """Return seconds on the clock of leases."""
    return time.clock_gettime(CLOCK)


class ServerLease:
    """The ownership of a server that shares its store with others (`app.stores.ownership`)."""

    is_shared = True

    def __init__(
        self,
        database: Database,
        seconds: float,
        name: str,
        place: str = "",
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """Take a lease of `seconds`. Raises StoreFailed.

        database: a connection for the lease alone. name, place: of the server, and where it is reached, for people.
        interrupt: breaks off a call of the store that hangs, from any thread.
        """
        self.seconds = seconds
        self._database = database
        self._name, self._place = name, place
        self._interrupts = [database.interrupt, *([] if interrupt is None else [interrupt])]
        self._id = ""
        self._valid_until = 0.0
        self._messages: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        """Owners to notify, each with the message."""
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._joined = threading.Event()
        """Cleared while the lease is lost, until `rejoin`."""
        self._closed = False
        self._failed = False
        self._listening: tuple[int, str] | None = None
        """The connection and the id by which the thread listens."""
        self._answers: dict[str, asyncio.Future[bool]] = {}
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self._join()

    # From any thread

    @property
    def owner(self) -> str:
        return self._id

    @property
    def holds(self) -> bool:
        return elapsed() < self._valid_until

    @property
    def left(self) -> float:
        """Seconds for which the lease lasts still, if it is not renewed; 0 where it has run out."""
        return max(0.0, self._valid_until - elapsed())

    def check(self) -> None:
        if not self.holds:
            raise lease_lost(self.seconds)

    # On the event loop

    def start(self, asked: Asked, lost: Lost) -> None:
        self._loop, self._asked, self._lost = asyncio.get_running_loop(), asked, lost
        self._thread.start()
        self._loop.call_later(self.seconds, self._watch)

    async def ask(self, session: str, owner: str) -> bool | None:
        answer = self._answers.get(session)
        if answer is None:
            answer = self._answers[session] = self._loop.create_future()
            self._send(owner, {"session": session, "asker": self._id})
        try:
            return await asyncio.wait_for(asyncio.shield(answer), ASK_SECONDS)
        except TimeoutError:
            return None
        finally:
            self._answers.pop(session, None)

    def answer(self, session: str, asker: str, handed_over: bool) -> None:
        self._send(asker, {"session": session, "handed_over": handed_over})

    def rejoin(self) -> None:
        self._joined.set()
        self._wake()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._joined.set()
        self._wake()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, self.seconds)
        elif self._thread.ident is None:
            self._end()

    def _send(self, owner: str, message: dict[str, Any]) -> None:
        self._messages.put((owner, json.dumps(message)))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it has been woken often enough, or has ended
            self._waker.send(b"w")

    def _watch(self) -> None:
        """Break off calls of the database that hang, as long as the lease has run out; then give new ones time."""
        if self._closed:
            return
        hangs = elapsed() - self._valid_until > self.seconds
        if hangs:
            for interrupt in self._interrupts:
                interrupt()
        self._loop.call_later(self.seconds if hangs else self.seconds / RENEWALS, self._watch)

    def _receive(self, message: str) -> None:
        """Take a message of another server."""
        read = json.loads(message)
        if "asker" in read:
            self._asked(read["session"], read["asker"])
            return
        answer = self._answers.get(read["session"])
        if answer is not None and not answer.done():
            answer.set_result(read["handed_over"])

    # On the lease's thread

    def _work(self) -> None:
        while not self._closed:
            try:
                with self._database.errors():
                    self._serve()
                self._failed = False
            except Exception as error:
                self._note(error)
                time.sleep(RETRY_SECONDS)
        self._end()

    def _note(self, error: Exception) -> None:
        """Log the first failure in a row."""
        if not self._failed:
            unexpected = None if isinstance(error, StoreFailed) else error
            logger.error("the lease could not be renewed: %s", error, exc_info=unexpected)
        self._failed = True

    def _end(self) -> None:
        """End the lease, and release everything."""
        self._valid_until = 0.0
        with contextlib.suppress(StoreFailed):  # it then runs out
            self._database.run(LEAVE, self._id)
        self._database.close()
        self._waker.close()
        self._wakes.close()

    def _serve(self) -> None:
        """Renew the lease, and pass messages on until the next renewal. Raises StoreFailed."""
        self._listen()
        self._renew()
        due = time.monotonic() + self.seconds / RENEWALS
        while not self._closed and (left := due - time.monotonic()) > 0:
            self._notify()
            ready, _, _ = select.select([self._database.connection.fileno(), self._wakes.fileno()], [], [], left)
            if self._wakes.fileno() in ready:
                self._wakes.recv(4096)
            self._take_notifications()

    def _listen(self) -> None:
        """Listen on this connection, unless it does."""
        connection = self._database.connection
        listening = (self._database.connections, self._id)
        if self._listening != listening:
            connection.add_notify_handler(lambda notify: self._post(self._receive, notify.payload))
            self._database.run("UNLISTEN *")
            self._database.run(f'LISTEN "{_channel(self._id)}"')
            self._listening = listening

    def _take_notifications(self) -> None:
        connection = self._database.connection.pgconn
        connection.consume_input()
        while (notify := connection.notifies()) is not None:
            self._post(self._receive, notify.extra.decode())

    def _notify(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                owner, message = self._messages.get_nowait()
                self._database.run("SELECT pg_notify($1, $2)", _channel(owner), message)

    def _join(self) -> None:
        self._id = secrets.token_hex(8)
        sent = elapsed()
        self._database.run(JOIN, self._id, self._name, self._place, self.seconds)
        self._database.run(FORGET, float(FORGOTTEN_AFTER))
        self._joined.set()
        self._valid_until = sent + self.seconds

    def _renew(self) -> None:
        sent = elapsed()
        if self._database.run(RENEW, self._id):
            self._valid_until = sent + self.seconds
            return
        self._valid_until = 0.0
        self._joined.clear()
        self._post(self._lost)
        self._joined.wait()
        if not self._closed:
            self._join()
            self._listen()

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)


def _channel(owner: str) -> str:
    return f"engram_{owner}"
