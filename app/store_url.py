"""URLs of databases, from which the password is taken, so that they can be shown.

    postgresql://engram:secret@10.0.0.5:5432/engram?sslmode=require
    scheme       user   password                    options

libpq reads such a URL: several hosts, a directory of sockets (`?host=/run/postgresql`) and its other options are as in
its documentation.
"""

import re
from urllib.parse import quote, unquote

SCHEMES = ("postgresql://", "postgres://")

HIDDEN = "***"

PASSWORD_OPTION = re.compile(r"(?<=[?&])password=([^&]*)&?")

IN_CREDENTIALS = re.compile(r"(.*?://[^:@]*|(?!.*://)[^:@]*):.*@", re.S)
"""The beginning of a text, and a password up to the last `@`: also in a URL that is none."""

AS_VALUE = re.compile(r"(passw\w*\s*=\s*)(?!\*\*\*).*", re.I | re.S)
"""A password with its name, and all that follows."""


def is_url(store: str) -> bool:
    """Return whether a store is named by the URL of a database."""
    return store.startswith(SCHEMES)


def shown(url: str) -> str:
    """Return the URL of a database for messages: without its password, and without what follows the name."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in query:  # a password with a question mark, or a user with an @: nothing is sure to be no secret
        return f"{scheme}://..."
    user, at, host = place.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"


def without_password(url: str) -> tuple[str, str | None]:
    """Return a URL without its password, and the password, None for none. Raises ValueError for what is no such URL."""
    scheme, credentials, rest = _parts(url)
    user, colon, password = credentials.partition(":")
    found = unquote(password) if colon else None
    option = PASSWORD_OPTION.search(rest)
    if option is not None:
        found, rest = unquote(option[1]), PASSWORD_OPTION.sub("", rest).rstrip("?&")
    if re.search(r"[\s#@]", rest.partition("?")[0]) or re.search(r"\s", user):
        raise ValueError("it has a space, or an @ or # that is not written %40 or %23")
    if "sslpassword=" in rest:
        raise ValueError("it has the option sslpassword, which everyone would see")
    return f"{scheme}{user}{'@' if user else ''}{rest}", found


def with_password(url: str, password: str | None) -> str:
    """Return a URL that has no password with this one."""
    if password is None:
        return url
    scheme, user, rest = _parts(url)
    return f"{scheme}{user}:{quote(password, safe='')}@{rest}"


def masked(text: str) -> str:
    """Return a text with asterisks in place of what may be a password."""
    return AS_VALUE.sub(rf"\1{HIDDEN}", IN_CREDENTIALS.sub(rf"\1:{HIDDEN}@", text))


def _parts(url: str) -> tuple[str, str, str]:
    """Return the scheme of a URL, the user with the password, as libpq finds them, and what follows the `@`."""
    scheme = next((scheme for scheme in SCHEMES if url.startswith(scheme)), None)
    if scheme is None:
        raise ValueError("it does not begin with postgresql://")
    rest = url.removeprefix(scheme)
    place, _, _ = rest.partition("/")
    if "@" not in place:
        return scheme, "", rest
    credentials, _, rest = rest.partition("@")
    return scheme, credentials, rest
