"""Budgets for tests."""

import sys

from app.budget import Budget, Budgets
from app.errors import AnswersFull, OutOfMemory, QueueFull, UploadsFull


def states(limit: int = 2**20) -> Budget:
    return Budget("states", limit, "max_memory_bytes", OutOfMemory)


def queue(limit: int = sys.maxsize) -> Budget:
    return Budget("sequences in work", limit, "max_queue_bytes", QueueFull)


def budgets(answers: int = sys.maxsize, uploads: int = sys.maxsize) -> Budgets:
    """Return budgets that are not full before these limits."""
    return Budgets(
        queue(),
        Budget("answers", answers, "max_answer_bytes", AnswersFull),
        Budget("uploads", uploads, "max_upload_bytes", UploadsFull),
        states(sys.maxsize),
    )
