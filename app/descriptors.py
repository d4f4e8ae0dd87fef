"""Watch for the limit of open files, of which each connection is one."""

import asyncio
import errno
import logging
import os
import resource

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1
QUIET_SECONDS = 60
"""Time without another line in the log after files can be opened again."""


SPARE_FILES = 128
"""Files that a server has open beside its connections, at most."""


def connections_within(wanted: int) -> int:
    """Return how many connections leave SPARE_FILES for others, at most `wanted`; log it if they are fewer.

    With a limit of open files so low that few connections are left, all may be taken.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft < 2 * SPARE_FILES or soft - SPARE_FILES >= wanted:
        return wanted
    logger.warning(
        "max_connections %d: only %d connections are taken, for %d files may be open (ulimit -n)",
        wanted,
        soft - SPARE_FILES,
        soft,
    )
    return soft - SPARE_FILES


async def watch_files() -> None:
    """Log when no more files can be opened, and when they can be opened again, until cancelled.

    The event loop does not log it: it closes the connections that it cannot accept.
    """
    reported = False
    while True:
        shortage = _shortage()
        if shortage and not reported:
            logger.error(
                "%s: new connections are closed at once; close others, or raise the limit (ulimit -n)", shortage
            )
        elif reported and not shortage:
            logger.warning("files can be opened again: new connections are taken")
        await asyncio.sleep(QUIET_SECONDS if reported and not shortage else CHECK_SECONDS)
        reported = shortage is not None


def _shortage() -> str | None:
    """Return why no more files can be opened, or None."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return os.strerror(error.errno) if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
