"""Tenants, and the names of their sessions inside the server.

A session of the tenant `lab` is `lab/ID` in every map and in the store, one of the default tenant is `ID`; no ID has a
slash. So a request of one tenant can only look up its own sessions: with the ID of another's it looks up a name that no
session has, as with any other ID, and at the same cost. The border adds the tenant to the IDs of requests; clients see
IDs alone.
"""

import json
from typing import NamedTuple

DEFAULT = "default"
"""The tenant of every session that is opened without a key."""

IN_KEYS = "\n"
"""Between a tenant and its Idempotency-Key: no header field can have it."""


class Tenant(NamedTuple):
    """A tenant, and how many sessions it may have open; None for no limit of its own."""

    name: str = DEFAULT
    max_sessions: int | None = None


ANYBODY = Tenant()


def inside(tenant: str, session_id: str) -> str:
    """Return the name of a tenant's session."""
    return session_id if tenant == DEFAULT and "/" not in session_id else f"{tenant}/{session_id}"


def outside(name: str) -> str:
    """Return the ID that clients know a session by."""
    _, slash, session_id = name.partition("/")
    return session_id if slash else name


def tenant_of(name: str) -> str:
    """Return the tenant of the session of this name."""
    tenant, slash, _ = name.partition("/")
    return tenant if slash else DEFAULT


def prefix(tenant: str) -> str:
    """Return the beginning of the names of a tenant's sessions."""
    return "" if tenant == DEFAULT else f"{tenant}/"


def key_inside(tenant: str, key: str) -> str:
    """Return an Idempotency-Key of a tenant, as the store has it."""
    return key if tenant == DEFAULT else f"{tenant}{IN_KEYS}{key}"


def sequence_key(tenant: str, model: str, sequence_id: int | str) -> str:
    """Return the key of a tenant's sequence of a model, which is no Idempotency-Key that any client could send."""
    return key_inside(tenant, IN_KEYS + json.dumps([model, sequence_id]))


def key_outside(key: str) -> str:
    """Return an Idempotency-Key as its client sent it."""
    return key.rpartition(IN_KEYS)[2]
