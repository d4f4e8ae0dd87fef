"""The place of a fault in a user's Python file."""

import traceback


def line_of(error: BaseException, path: str) -> str:
    """Return the line of the file at `path` that raised an error, as ", line 7"; "" if none did."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    return f", line {lines[-1]}" if lines else ""


def message_of(error: BaseException) -> str:
    """Return the message of an error with its type, and a syntax error without the file that it names."""
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
