"""The settings of the server: read from flags, the environment and a TOML file, in this order of precedence."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.logs import LogFormat
from app.store_url import HIDDEN, is_url, masked, with_password, without_password

ENVIRONMENT_PREFIX = "ENGRAM_"

NOT_SETTINGS = ("config", "key", "url")
"""Variables of the environment that are no settings: the file of settings, and the key and the server of clients."""

FOREVER = 1e9
"""The longest time that can be set, in seconds: some thirty years."""

MAX_FILE_BYTES = 2**20
"""The most bytes of a file of settings."""

MemorySize = Annotated[int, Field(ge=1, le=10**9)]

SnapshotSeconds = Annotated[float, Field(gt=0, le=86400)]


HostName = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9_.:-]+$", max_length=253)]

Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9_.-]+(:[0-9]{1,5})?$", max_length=300)]


StoreKind = Literal["sqlite", "memory", "postgres"]


class SettingsError(ValueError):
    """A setting is not valid; the message names the setting, the value and the expected values."""


def _words(value: Any) -> Any:
    """Return the words of a text with commas, or of several."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    return [word.strip() for text in texts for word in str(text).split(",") if word.strip()]


def _by_name(example: str) -> BeforeValidator:
    """Return a validator that reads NAME=N,NAME=N, or a list of such pairs, as a mapping."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return value
        words = value if isinstance(value, list) else str(value).split(",")
        pairs = [word.rpartition("=") for word in words]
        if not all(name for name, _, _ in pairs):
            raise PydanticCustomError("by_name", "expected NAME=N, as in {example}", {"example": example})
        return {name: number for name, _, number in pairs}

    return BeforeValidator(read)


def _store(value: Any) -> Any:
    """Return the name of a store, or the URL of a database, which has no password any more."""
    if value in ("sqlite", "memory") or (isinstance(value, str) and _is_usable(value)):
        return value
    raise PydanticCustomError(
        "store",
        "expected sqlite, memory or a URL, postgresql://USER@HOST/DATABASE, with %40 for @, %23 for # and %2F for / in "
        "a password",
    )


def _is_usable(url: str) -> bool:
    try:
        return without_password(url)[1] is None and HIDDEN not in url
    except ValueError:
        return False


def kind_of(store: str) -> StoreKind:
    """Return which kind of store a setting `store` names, which was checked."""
    if store == "memory":
        return "memory"
    return "sqlite" if store == "sqlite" else "postgres"


class _TomlFile(TomlConfigSettingsSource):
    def _read_file(self, file_path: Any) -> dict[str, Any]:
        if file_path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {file_path.stat().st_size} bytes, but settings need at most {MAX_FILE_BYTES}")
        return tomllib.loads(file_path.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark


class Settings(BaseSettings):
    """The settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(
        "127.0.0.1", description="address to listen on; one that other machines reach needs a key, or insecure"
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    key_file: Path | None = Field(
        None,
        description="file with one key that has all scopes, such as a Docker secret; beside the keys of engram keys",
    )
    insecure: bool = Field(
        False, description="listen on any address also without a key: everyone who reaches it can use the server"
    )
    hosts: Annotated[list[HostName], NoDecode, BeforeValidator(_words)] = Field(
        [],
        description="names by which clients may address the server, beside loopback and the address to listen on, "
        "separated by commas; *.example.org is every name below example.org",
    )
    origins: Annotated[list[Origin], NoDecode, BeforeValidator(_words)] = Field(
        [],
        description="origins of web pages that may use the server beside its own, such as https://example.org, "
        "separated by commas",
    )
    checkpoints: Path = Field(Path("checkpoints"), description="directory whose subdirectories are the models to serve")
    data: Path = Field(Path("data"), description="directory of the store, which keeps the sessions")
    store: Annotated[str, BeforeValidator(_store)] = Field(
        "sqlite",
        description="where sessions are kept: sqlite: in a file of the data directory; memory: only in this process; "
        "postgresql://USER@HOST/DATABASE: in a database that several servers share, and the keys too",
    )
    store_password_file: Path | None = Field(
        None,
        description="file with the password of the database, such as a Docker secret; without it, the password is that "
        "of the URL, of PGPASSWORD or of a pgpass file",
    )
    lease: float = Field(
        2,
        gt=0.3,
        le=3600,
        description="seconds after which other servers may take over the sessions of this one, if it does not reach "
        "the database that they share; sessions of a server that died are refused for as long",
    )
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=50)] | None = Field(
        None, description="name of this server among those that share a database; by default the name of the host"
    )
    durability: Literal["ack", "interval", "none"] = Field(
        "ack",
        description="when steps are written: ack: before they are answered; interval: within commit_interval; none: "
        "never, but a snapshot when a session leaves memory",
    )
    commit_interval: float = Field(
        0.1, gt=0, le=3600, description="seconds within which steps are written, with durability interval"
    )
    sync_interval: float = Field(
        1,
        ge=0,
        le=3600,
        description="seconds within which written steps are safe from a power cut; 0: before they are answered",
    )
    snapshots: Annotated[dict[str, SnapshotSeconds], NoDecode, _by_name("dnc-copy=1")] = Field(
        {},
        description="models whose sessions write no inputs, only a snapshot within this many seconds of a step, with "
        "any durability: NAME=SECONDS, separated by commas",
    )
    keep_steps: int = Field(
        100_000, ge=0, le=10**12, description="steps of a session that a rewind can go back by, at least"
    )
    keep_seconds: float = Field(
        30 * 86400, gt=0, le=FOREVER, description="seconds after which a rewind can no longer go back to a step"
    )
    backend: Literal["auto", "fused", "onnx", "torch"] = Field(
        "auto",
        description="back end that computes the steps; auto: the fused kernels if they support "
        "the model; else onnx on a CPU, torch on CUDA or without a model.onnx",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the steps are computed; auto: cuda if torch is installed and finds a device"
    )
    state_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="numbers of memories and link matrices on a GPU; bfloat16 takes half of their bytes, and rounds",
    )
    threads: int = Field(1, ge=1, description="CPU threads of one model's step")
    memory_size: Annotated[dict[str, MemorySize], NoDecode, _by_name("dnc-copy=256")] = Field(
        {}, description="memory locations of models, if not as in training: NAME=N, separated by commas"
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        description="sessions of a model stepped together in a tick; by default 64 on a CPU, 4096 on a GPU",
    )
    linger: float = Field(
        0,
        ge=0,
        le=1,
        description="seconds that a step may wait until half of the active sessions can be stepped together: larger "
        "batches, but a delay; 0: no step waits",
    )
    max_sessions: int = Field(1_000_000, ge=1, le=10**9, description="open sessions of a model")
    max_resident: int = Field(
        4096, ge=1, le=10**8, description="sessions of a model whose state is in memory; the others are in the store"
    )
    max_queue: int = Field(
        1024, ge=1, le=10**8, description="sequences of a model in work, and as many waiting for their session"
    )
    max_queue_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of the inputs and results of all sequences in work; one request alone may have more; by "
        "default an eighth of the memory, at most 256 MiB",
    )
    max_answer_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of the results, states and files of all answers in the making, until clients have read "
        "them; one answer alone may have as many beside its traces; by default an eighth of the memory, at most "
        "256 MiB",
    )
    max_upload_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of all request bodies over 64 KiB, in memory or in files, until they are answered; one body "
        "alone may have more; by default an eighth of the memory, at most 256 MiB",
    )
    max_steps: int = Field(10_000, ge=1, description="steps in one sequence")
    max_sequences: int = Field(
        256,
        ge=1,
        description="sequences in a request to /infer, and sessions in one to /steps or a frame of /streams; never "
        "more than max_queue",
    )
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="bytes of a request body or a WebSocket frame")
    max_trace_bytes: int = Field(64 * 2**20, ge=1, description="bytes of the traces that one request asks for")
    max_state_bytes: int = Field(
        16 * 2**20, ge=1, description="bytes of the state of a session that asks for a memory size"
    )
    max_memory_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of the states of all models in memory; the other sessions are in the store; by default a "
        "quarter of the memory of the machine or the container; with a GPU, of what is "
        "free there, if that is less",
    )
    max_target_bytes: int = Field(2**16, ge=256, description="bytes of the URL of a request")
    max_header_bytes: int = Field(2**16, ge=1024, description="bytes of the header fields of a request")
    max_header_fields: int = Field(256, ge=16, description="header fields of a request")
    header_timeout: float = Field(
        10,
        gt=0,
        le=FOREVER,
        description="seconds that a client has to send the header fields of a request, and a new connection its first "
        "request",
    )
    body_timeout: float = Field(
        30,
        gt=0,
        le=FOREVER,
        description="seconds within which a body must go on, at 1024 bytes per second or more on average",
    )
    keep_alive_timeout: float = Field(
        75, gt=0, le=FOREVER, description="seconds without a request until a connection is closed"
    )
    write_timeout: float = Field(
        30,
        gt=0,
        le=FOREVER,
        description="seconds within which a client must read on of an answer, at 1024 bytes per second or more on "
        "average; else its connection is aborted",
    )
    max_connections: int = Field(
        1000, ge=1, description="open connections, WebSockets among them; each takes a file descriptor (ulimit -n)"
    )
    max_connections_per_address: int = Field(
        256,
        ge=1,
        description="open connections of one IPv4 address, or of 64 bits of an IPv6 address; those of this machine are "
        "only counted in max_connections",
    )
    max_control_frames: int = Field(
        100,
        ge=10,
        description="pings, pongs and fragments below 64 bytes that a WebSocket may take in a second; ten times as "
        "many at once",
    )
    idle_timeout: float = Field(7 * 86400, gt=0, le=FOREVER, description="seconds without use until a session expires")
    step_timeout: float = Field(
        60,
        gt=0,
        le=FOREVER,
        description="seconds after which requests no longer wait for a step, or a store, that hangs",
    )
    ready_timeout: float = Field(5, gt=0, le=FOREVER, description="seconds that /readyz waits for a step of each model")
    shutdown_timeout: float = Field(
        20, gt=0, le=86400, description="seconds that accepted work has to finish after a stop signal"
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=3600,
        description="seconds after a stop signal in which /readyz answers 503 and all else is served as before, so "
        "that a load balancer sends new requests elsewhere; then, where several servers share the sessions, they are "
        "handed over; HTTP requests in work end before the stop begins; 0: the stop begins at once",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")
    log_format: LogFormat = Field(
        "text", description="lines of the log: text, or json, one object for each event; docs/operations.md"
    )
    access_log: bool = Field(
        False, description="log a line for every request and WebSocket when it ends; each step then takes longer"
    )
    otel_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="URL of an OpenTelemetry collector (OTLP over HTTP) that gets a trace of each request, such as "
        "http://127.0.0.1:4318; without it, the variable OTEL_EXPORTER_OTLP_ENDPOINT counts; each step then takes "
        "longer",
    )
    profile: Path | None = Field(
        None,
        description="file for a profile of the server's processor time, written when it stops: a flame graph where the "
        "name ends in .svg, else folded stacks",
    )

    _password: str | None = PrivateAttr(None)
    """The password of the store's URL, which is not in `store`."""

    @property
    def store_url(self) -> str:
        """The URL of the store with its password, for nothing but a connection. Raises SettingsError."""
        file = self.store_password_file
        if file is not None and self._password is not None:
            raise SettingsError("setting store_password_file: the URL of the store has a password too: remove one")
        return with_password(self.store, self._password if file is None else _password_in(file))

    @property
    def sequences_at_once(self) -> int:
        """The sequences in one request, at most."""
        return min(self.max_sequences, self.max_queue)

    @model_validator(mode="wrap")
    @classmethod
    def _hide_password(cls, values: Any, handler: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        """Take the password out of the store's URL, before anything can show it."""
        store = values.get("store") if isinstance(values, dict) else None
        if not isinstance(store, str):
            return handler(values)
        try:
            url, password = without_password(store) if is_url(store) else (store, None)
        except ValueError:
            url, password = masked(store), None
        settings = handler(values | {"store": url})
        settings._password = password
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _TomlFile(settings_cls)


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings from the flags, the environment and the file that `config` or ENGRAM_CONFIG names.

    Flags that are None or no settings are ignored. Raises SettingsError.
    """
    file = flags.get("config") or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if file and not Path(file).is_file():
        raise SettingsError(f"config: no file {file}")
    _refuse_unknown_variables()

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    given = {name: value for name, value in flags.items() if name in Settings.model_fields and value is not None}
    try:
        return FromFile(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None
    except ValueError as error:
        raise SettingsError(f"config {file}: {error}") from error


def _refuse_unknown_variables() -> None:
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in (*Settings.model_fields, *NOT_SETTINGS)}
    unknown = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"environment variable {unknown[0]}: no such setting; see engram serve --help")


def _explain(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    return f"setting {place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {masked(repr(problem['input']))}"


def _password_in(file: Path) -> str:
    """Return the password in a file, without the end of its line. Raises SettingsError."""
    try:
        found = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"setting store_password_file: {file} cannot be read: {error}") from error
    if not found:
        raise SettingsError(f"setting store_password_file: {file} is empty; expected the password of the database")
    return found
