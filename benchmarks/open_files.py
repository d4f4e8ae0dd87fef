"""The limit of open files, of which each connection is one."""

import resource

SPARE_FILES = 200
"""The most files that a server has open beside its connections."""


class TooManyConnections(ValueError):
    """More connections than this system lets a process have open."""


def allow_connections(count: int) -> None:
    """Raise the limit of open files for `count` connections, also for children. Raises TooManyConnections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise TooManyConnections(
            f"{count} connections: a process may have {hard} files open here, of which {SPARE_FILES} are for others: "
            "ask for fewer, or raise the limit (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
