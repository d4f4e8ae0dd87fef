"""The thread that owns the store, and the group commit.

    engines' workers                      the writer's thread
    ----------------                      -------------------
    commit() -- Group ----------.         loop:
    event loop                  +--> inbox  take all groups and calls that have come
    call() ---- StoreCall ------'           write the steps of all groups at once; then carry out the calls, one by one
    futures, done() <--------------------   sync, where every commit is to survive a power cut; answer
                                            fold a part of what was written, if there is much of it

All that a tick of an engine finished is one group; while one commit is under way, the next groups gather. When a store
hangs, those who wait for it get an error; the thread waits on, and continues when the store returns.
"""

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from app.errors import EngramError, SessionMoved, StoreFailed, stopping
from app.futures import report, resolve
from app.stores.base import Entry, Store
from app.stores.ownership import Alone, Ownership

logger = logging.getLogger(__name__)

T = TypeVar("T")

Durability = Literal["ack", "interval", "none"]

LATE_SECONDS = 1.0
"""With `interval`: seconds beyond the commit interval after which a store that does not answer gets no more steps."""

Done = Callable[[Sequence[EngramError | None]], None]
"""Called with the outcome of each entry of a group: None where it was written, or the error."""


class CommitObserver(Protocol):
    """The writer reports to it, from the writer's thread."""

    def commit(self, entries: int, seconds: float) -> None:
        """`entries` entries were written in one commit, which took `seconds`."""

    def failure(self) -> None:
        """The store could not write or read something."""


@dataclass(eq=False, slots=True)
class Group:
    """The steps that a tick finished, to be written."""

    entries: Sequence[Entry]
    done: Done
    released: bool = False
    """Whether its waiter was answered because the store hung; then it is not begun any more."""


@dataclass(eq=False, slots=True)
class StoreCall:
    """A function to call with the store, and the future of its result."""

    function: Callable[[Store], Any]
    waiter: "asyncio.Future[Any]"
    released: bool = False


Item = Group | StoreCall


class Writer:
    """Writes the steps that engines finish, and carries out all other calls of the store, in order.

    ack: a group's steps are done when they are committed. interval: they are done at once, and committed within
    commit_interval seconds; while that fails, no more are taken. A commit is synced within sync_interval seconds; with
    0, before its steps are done. timeout: seconds after which a call of the store hangs, and its waiters get an error;
    ownership: while its lease has run out, a call hangs sooner, for what waits for it may not be acknowledged.
    """

    def __init__(
        self,
        store: Store,
        observer: CommitObserver,
        durability: Durability,
        commit_interval: float,
        sync_interval: float,
        timeout: float = math.inf,
        ownership: Ownership | None = None,
    ) -> None:
        self._store = store
        self._ownership = ownership or Alone()
        self._observer = observer
        self._waits = durability == "ack"
        self._commit_interval = commit_interval
        self._sync_interval = sync_interval
        self._inbox: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._timeout = timeout
        self._closed = False
        self._failure: StoreFailed | None = None
        self._waiting: set[Item] = set()
        """The groups and calls to answer. The one who removes an item, the thread or the event loop, answers it."""
        # Set by the event loop
        self._hang: StoreFailed | None = None
        # Set by the thread
        self._busy_since: float | None = None
        # Set by the thread, and by the threads of callers
        self._unwritten_since: float | None = None
        """When the oldest step was answered that is not yet written."""
        # The thread's own
        self._pending: list[Entry] = []
        self._commit_at = 0.0
        self._sync_at: float | None = None
        self._unsynced_since: float | None = None
        """When the oldest step was answered that is written, and not yet synced."""
        self._is_written = False
        """Whether something was written since the store last folded."""
        self._folds_fail = False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    # From any thread

    def commit(self, entries: Sequence[Entry], done: Done) -> None:
        """Write entries; call `done` once, from this thread or the writer's, when they count as written."""
        failure = self._hang or (None if self._waits else self._failure or self._late())
        if failure is not None:
            done([failure] * len(entries))
        elif self._waits:
            self._put(Group(entries, done))
        else:
            if self._unwritten_since is None:
                self._unwritten_since = time.monotonic()
            self._inbox.put(Group(entries, _nobody))
            done([None] * len(entries))

    @property
    def lag(self) -> float:
        """Seconds since the oldest step was answered that is not yet safe from a power cut; 0 if there is none."""
        oldest = [since for since in (self._unwritten_since, self._unsynced_since) if since is not None]
        return max(0.0, time.monotonic() - min(oldest)) if oldest else 0.0

    @property
    def waiting(self) -> int:
        """The entries, of one request each, that are not yet written."""
        groups = [item for item in list(self._waiting) if isinstance(item, Group)]
        return len(self._pending) + sum(len(group.entries) for group in groups)

    def _late(self) -> StoreFailed | None:
        """Return an error while the store takes so long that too many steps would be lost with the process."""
        since = self._busy_since
        if since is None or time.monotonic() - since <= self._commit_interval + LATE_SECONDS:
            return None
        return StoreFailed(f"the store has not answered for more than {LATE_SECONDS:g} s: try again later")

    def _put(self, item: Item) -> None:
        self._waiting.add(item)
        self._inbox.put(item)

    # On the event loop

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        if self._timeout < math.inf or self._ownership.is_shared:
            self._watch()

    async def call(self, function: Callable[[Store], T]) -> T:
        """Call a function with the store after all earlier groups and calls, and return its result.

        Raises what the function raises, StoreFailed where the store hangs, and ShuttingDown.
        """
        if self._closed:
            raise stopping()
        if self._hang is not None:
            raise self._hang.with_traceback(None)
        call = StoreCall(function, self._loop.create_future())
        self._put(call)
        result: T = await call.waiter
        return result

    async def close(self, timeout: float | None = None) -> None:
        """Write the groups that are left, and close the store; a second call does nothing.

        timeout: seconds after which `close` no longer waits for a store that hangs.
        """
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, timeout)
        if self._thread.is_alive():
            logger.error("the store hangs, and is left as it is: all steps that were acknowledged are in it")
            self._release_all(stopping())

    def _watch(self) -> None:
        """Check repeatedly whether the store hangs; if so, answer all who wait for it with an error."""
        since = self._busy_since
        if self._hang is None and since is not None and (limit := self._limit()) < time.monotonic() - since:
            logger.error("the store does not answer within %g s", limit)
            self._hang = StoreFailed(
                f"the store does not answer within {limit:g} s ({self._setting()}); the request may or may "
                "not have been applied: read the session's step to find out"
            )
            self._release_all(self._hang)
            if self._busy_since != since:  # it has just answered, and the thread may not have seen that it hung
                self._recover()
        if self._thread.is_alive():
            seconds = self._ownership.seconds if self._ownership.is_shared else math.inf
            self._loop.call_later(min(self._timeout, seconds) / 4, self._watch)

    def _limit(self) -> float:
        """Return the seconds after which a call hangs."""
        return self._timeout if self._ownership.holds else min(self._timeout, self._ownership.seconds / 4)

    def _setting(self) -> str:
        return "setting step_timeout" if self._ownership.holds else "the lease has run out, setting lease"

    def _release_all(self, error: EngramError) -> None:
        waiting = list(self._waiting)
        for item in waiting:
            item.released = True
        self._resolve([(item, error) for item in waiting])

    def _recover(self) -> None:
        if self._hang is not None:
            logger.warning("the store answers again")
            self._hang = None

    # On the writer's thread

    def _work(self) -> None:
        while (items := self._take()) is not None:
            try:
                outcomes, unsynced = self._carry_out(items)
            except Exception as error:  # a bug of ours: all who wait get the error, and the next ones are served
                outcomes, unsynced = [(item, None) for item in items], _explained(error)
            self._resolve([(item, unsynced or outcome) for item, outcome in outcomes])
            self._fold()
            self._rest()
        self._flush()
        self._store.close()

    def _take(self) -> list[Item] | None:
        """Return all groups and calls in the inbox; wait for one, or until it is time to write. None: closed."""
        items: list[Item] = []
        try:
            item = self._inbox.get(timeout=self._patience())
        except queue.Empty:
            return items
        while item is not None:
            items.append(item)
            if self._inbox.empty():  # nobody else takes anything
                return items
            item = self._inbox.get()
        if not items:
            return None
        self._inbox.put(None)  # the end comes again, once these are carried out
        return items

    def _patience(self) -> float | None:
        """Return the seconds until the next write or sync is due; None for none."""
        due = [self._commit_at] if self._pending else []
        if self._sync_at is not None:
            due.append(self._sync_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _carry_out(self, items: Sequence[Item]) -> tuple[list[tuple[Item, Any]], EngramError | None]:
        """Carry out groups and calls; return the outcome of each, and the error of the sync, which all of them get."""
        groups = [item for item in items if isinstance(item, Group) and not item.released]
        calls = [item for item in items if isinstance(item, StoreCall)]
        outcomes: list[tuple[Item, Any]] = []
        if self._waits:
            outcomes += zip(groups, self._write(groups), strict=True)
        else:
            self._gather(groups)
            if calls or self._is_due(self._commit_at):
                self._flush()
        outcomes += [(call, self._answer(call)) for call in calls]
        return outcomes, self._sync_if_due()

    def _write(self, groups: Sequence[Group]) -> list[list[EngramError | None]]:
        """Write the entries of groups at once, and return the outcomes of each group's entries."""
        entries = [entry for group in groups for entry in group.entries]
        errors = self._append(entries)
        outcomes = []
        for group in groups:
            outcomes.append(errors[: len(group.entries)])
            errors = errors[len(group.entries) :]
        return outcomes

    def _append(self, entries: Sequence[Entry]) -> list[EngramError | None]:
        if not entries:
            return []
        began = self._begin()
        try:
            refused = self._store.append(entries)
        except Exception as error:
            failure = _explained(error)
            report(self._observer.failure)
            return [failure] * len(entries)
        report(self._observer.commit, len(entries), time.monotonic() - began)
        self._note_write()
        return [_moved() if index in refused else None for index in range(len(entries))]

    def _gather(self, groups: Sequence[Group]) -> None:
        """Keep entries that count as written, to write them within the commit interval."""
        now = time.monotonic()
        if not self._pending:
            self._commit_at = now + self._commit_interval
        if self._unwritten_since is None and groups:
            self._unwritten_since = now
        self._pending += [entry for group in groups for entry in group.entries]

    def _flush(self) -> None:
        """Write the entries that count as written; where that fails, keep them, to try again later."""
        failure = next((error for error in self._append(self._pending) if isinstance(error, StoreFailed)), None)
        if failure is None:
            self._pending, self._unwritten_since = [], None
        elif self._failure is None:
            logger.error(
                "steps that were answered cannot be written, and no more are taken until they are: %s", failure
            )
        self._failure = failure
        self._commit_at = time.monotonic() + self._commit_interval

    def _answer(self, call: StoreCall) -> Any:
        """Carry out a call, unless it was released, or steps before it could not be written; return its outcome."""
        if call.released or self._failure is not None:
            return self._failure
        self._begin()
        try:
            outcome = call.function(self._store)
        except Exception as error:
            if not isinstance(error, EngramError) or isinstance(error, StoreFailed):
                report(self._observer.failure)
            return _explained(error)
        self._note_write()
        return outcome

    def _fold(self) -> None:
        """Have the store fold a part of what was written; where that fails, try again after the next commit."""
        if not self._is_written:
            return
        self._is_written = False
        self._begin()
        try:
            self._store.fold()
        except Exception as error:
            if not self._folds_fail:
                logger.error("what was written cannot be moved into the log: %s", _explained(error))
            self._folds_fail = True
            report(self._observer.failure)
        else:
            self._folds_fail = False

    def _note_write(self) -> None:
        self._is_written = True
        if self._unsynced_since is None:
            self._unsynced_since = self._unwritten_since or time.monotonic()
        if self._sync_at is None:
            self._sync_at = time.monotonic() + self._sync_interval

    def _sync_if_due(self) -> StoreFailed | None:
        """Sync when it is due; return the error where every commit is to be synced and this one was not."""
        if self._sync_at is None or not self._is_due(self._sync_at):
            return None
        self._sync_at = None
        self._begin()
        try:
            self._store.sync()
        except StoreFailed as error:
            logger.error("%s", error)
            report(self._observer.failure)
            if self._sync_interval == 0:
                return error
            self._note_write()  # to try again, also where nothing more is written
        else:
            self._unsynced_since = None
        return None

    def _is_due(self, moment: float) -> bool:
        return time.monotonic() >= moment

    def _begin(self) -> float:
        """Note that an operation of the store begins, and return the time."""
        began = self._busy_since = time.monotonic()
        self._end_hang()
        return began

    def _rest(self) -> None:
        """Note that the store is idle."""
        self._busy_since = None
        self._end_hang()

    def _end_hang(self) -> None:
        if self._hang is not None:
            self._post(self._recover)

    # From both

    def _resolve(self, outcomes: Sequence[tuple[Item, Any]]) -> None:
        """Answer those who wait for groups and calls, unless they were answered; wake the event loop once.

        The outcome of a call is its result or error; of a group, the error of each entry, or one for all of them.
        """
        answers = []
        for item, outcome in outcomes:
            try:
                self._waiting.remove(item)
            except KeyError:
                continue
            if isinstance(item, StoreCall):
                answers.append((item.waiter, outcome))
            else:
                report(item.done, [outcome] * len(item.entries) if isinstance(outcome, EngramError) else outcome)
        if answers:
            self._post(_resolve_all, answers)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _resolve_all(answers: "Sequence[tuple[asyncio.Future[Any], Any]]") -> None:
    for waiter, outcome in answers:
        resolve(waiter, outcome)


def _explained(error: Exception) -> EngramError:
    """Return an error for the client: our own as it is; any other is logged, and becomes StoreFailed."""
    if isinstance(error, EngramError):
        return error
    logger.error("the store failed", exc_info=error)
    return StoreFailed(f"the store failed: {type(error).__name__}; the server's log says why")


def _moved() -> SessionMoved:
    return SessionMoved("another server has claimed this session, or went on with it: ask again")


def _nobody(_: Sequence[EngramError | None]) -> None:
    """Ignore the outcomes of entries that count as written: nobody waits for them."""
