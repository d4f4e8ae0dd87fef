"""Keys and callers."""

import hashlib

import pytest

from app.access.keys import (
    NO_LIMITS,
    SCOPES,
    Caller,
    Key,
    KeyLimits,
    digest_of,
    id_of,
    is_digest_of,
    new_key,
)
from app.errors import InvalidInput, InvalidKey


def caller() -> Caller:
    return Caller("default", frozenset(SCOPES))


def test_new_key_is_kept_as_its_digest_only():
    key, token = new_key("team-a", ["infer"], KeyLimits(max_batch=3), "of the lab")
    secret = token.rpartition("_")[2]
    assert (key.tenant, key.scopes, key.limits.max_batch, key.name) == ("team-a", {"infer"}, 3, "of the lab")
    assert token == f"engram_{key.id}_{secret}"
    assert len(bytes.fromhex(secret)) == 32
    assert key.digest == hashlib.sha256(token.encode()).digest()
    assert secret not in repr(key)


def test_new_keys_have_nothing_in_common():
    keys, tokens = zip(*(new_key() for _ in range(100)), strict=True)
    assert len({key.id for key in keys}) == len(set(tokens)) == len({key.digest for key in keys}) == 100


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (b"engram_0123456789ab_00ff", b"0123456789ab"),
        (b"engram_0123456789ab_00_ff", b"0123456789ab"),
        (b"engram__", b""),
        (b"engram_0123456789ab", b"file"),
        (b"Engram_0123456789ab_00ff", b"file"),
        (b"a-secret-of-the-key-file", b"file"),
        (b"", b"file"),
        (b"\xff\x00_\x00_", b"file"),
    ],
)
def test_id_is_read_from_keys_of_its_form_only(token, expected):
    assert id_of(token) == expected


def test_digest_is_of_one_key_only():
    key, token = new_key()
    assert is_digest_of(key.digest, token.encode())
    for other in (token[:-1], token.upper(), f"{token} ", "", new_key()[1]):
        assert not is_digest_of(key.digest, other.encode())


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tenant": "Team A"}, "tenant 'Team A': expected 1 to 63 lower-case letters"),
        ({"tenant": ""}, "tenant '': "),
        ({"tenant": "-a"}, "tenant '-a': "),
        ({"tenant": "a" * 64}, "tenant 'a"),
        ({"tenant": "a\n"}, r"tenant 'a\\n': "),
        ({"tenant": "a/b"}, "tenant 'a/b': "),
        ({"scopes": frozenset(["step"])}, "scope 'step': there is no such scope; expected some of infer, sessions, ad"),
        ({"scopes": frozenset()}, "scopes: expected at least one of infer, sessions, admin"),
        ({"limits": KeyLimits(max_steps=0)}, "limit max_steps: expected a number above 0, or none for no limit, got 0"),
        ({"limits": KeyLimits(steps_per_second=float("nan"))}, "limit steps_per_second: .* got nan"),
        (
            {"limits": KeyLimits(steps_per_second=1e-310)},
            "limit steps_per_second: expected a number from 1e-06 to 9007",
        ),
        ({"limits": KeyLimits(max_sessions=2**63)}, "limit max_sessions: .* got 9223372036854775808"),
        ({"name": "a\tb"}, r"name 'a\\tb': expected at most 200 printable characters"),
        ({"name": "x" * 201}, "name 'xxx"),
    ],
)
def test_key_that_cannot_be_is_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Key(**{"id": "ab", "digest": digest_of(b""), "tenant": "a", "scopes": frozenset(["infer"])} | values)


def test_request_over_a_limit_of_the_key_is_refused():
    limits = KeyLimits(max_batch=2, max_steps=5)
    limits.check_batch(2, "inputs")
    limits.check_steps(5, "inputs[1]")
    with pytest.raises(InvalidInput, match=r"inputs: at most 2 are .* \(the key's limit max_batch\), but 3 came"):
        limits.check_batch(3, "inputs")
    with pytest.raises(InvalidInput, match=r"inputs\[1\]: at most 5 steps .* max_steps\), but 6 came") as raised:
        limits.check_steps(6, "inputs[1]")
    assert raised.value.more == {"place": "inputs[1]", "expected": "at most 5 steps", "got": "6"}


def test_key_without_limits_refuses_no_size():
    KeyLimits().check_batch(10**9, "inputs")
    KeyLimits().check_steps(10**9, "inputs")


def test_caller_without_limits_costs_no_checks():
    assert Caller("default", frozenset(SCOPES), KeyLimits()).limits is NO_LIMITS
    assert Caller("default", frozenset(SCOPES), KeyLimits(max_streams=1)).limits == KeyLimits(max_streams=1)


def test_end_of_a_key_is_reported_once_to_each_watcher(caplog):
    it, seen = caller(), []

    def fail(_):
        raise RuntimeError("of one socket")

    it.watch(fail)
    it.watch(seen.append)
    unwatch = it.watch(seen.append)
    it.watch(seen.append)
    unwatch()
    error = InvalidKey("revoked")
    it.end(error)
    it.end(InvalidKey("again"))
    assert (seen, it.ended) == ([error, error], error)
    assert "an observer failed" in caplog.text


def test_watch_of_an_ended_key_is_called_at_once():
    it, seen = caller(), []
    it.end(InvalidKey("revoked"))
    it.watch(seen.append)()
    assert seen == [it.ended]
