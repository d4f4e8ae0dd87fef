"""The version of Engram that is installed."""

from importlib import metadata


def version() -> str | None:
    """Return the version of the installed package, None if it is not installed."""
    try:
        return metadata.version("engram")
    except metadata.PackageNotFoundError:
        return None
