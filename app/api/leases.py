"""Bytes of the budgets of the server that are held for requests, until these were answered."""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.budget import Budget, Budgets, Lease
from app.errors import InvalidRequest

LEASES = "engram.leases"
"""The key, in a scope, of the leases that are held until the request was answered."""


class ReleaseLeases:
    """Give each request a list of leases, and release them when its response was handed over, or it has failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leases: list[Lease] = []
        scope[LEASES] = leases
        try:
            await self._app(scope, receive, send)
        finally:
            for lease in leases:
                lease.release()


def hold(request: Request, budget: Budget, size: int = 0) -> Lease:
    """Hold bytes of a budget until a request was answered; return their lease. Raises the error of the budget."""
    lease = Lease(budget)
    request.scope[LEASES].append(lease)
    lease.grow(size)
    return lease


def hold_answer(request: Request, budgets: Budgets, outputs: int, traces: int = 0) -> None:
    """Hold the bytes of an answer. Raises AnswersFull, and InvalidRequest if the outputs alone are over the limit."""
    check_answer(budgets, outputs)
    hold(request, budgets.answers, outputs + traces)


def check_answer(budgets: Budgets, size: int) -> None:
    """Raise InvalidRequest for an answer, its traces aside, that is larger than all answers may be together."""
    limit = budgets.answers.limit
    if size > limit:
        raise InvalidRequest(
            f"the answer would have {size} bytes of numbers, but at most {limit} are held for all answers together "
            "(setting max_answer_bytes): send fewer steps at a time",
            expected=f"an answer of at most {limit} bytes",
            got=f"{size} bytes",
        )
