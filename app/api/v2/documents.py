"""Documents on the server and its models: metadata, configuration, index."""

from typing import Any

from app.api.v2.schemas import FP32, INPUTS, OUTPUTS
from app.api.v2.versions import ANY, SEQUENCES, VERSIONS, Version
from app.catalogue import ModelCatalogue, ServedModel
from app.settings import Settings
from app.version import version

PLATFORM = "engram"

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "parameters",
    "sequence",
    "sequence(string_id)",
    "statistics",
)


def server_document() -> dict[str, Any]:
    return {"name": PLATFORM, "version": version() or "unknown", "extensions": list(EXTENSIONS)}


def metadata_document(model: ServedModel, version: Version) -> dict[str, Any]:
    """Return the tensors of a model: batches of sequences, or of steps."""
    tensors = {
        key: [{"name": name, "datatype": FP32, "shape": [ANY, *version.between, size]}]
        for key, name, size in _tensors(model)
    }
    return {"name": model.name, "versions": list(VERSIONS), "platform": PLATFORM, **tensors}


def config_document(model: ServedModel, version: Version, settings: Settings) -> dict[str, Any]:
    """Return the configuration of a model as Triton writes it; `parameters` has what it has no field for."""
    put, out = (
        [{"name": name, "data_type": f"TYPE_{FP32}", "dims": [*version.between, size]}]
        for _, name, size in _tensors(model)
    )
    more = {"fingerprint": model.fingerprint, "kind": model.manifest.kind, "traces": ",".join(model.spec.trace)}
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": settings.sequences_at_once,
        "input": put,
        "output": out,
        "sequence_batching": {
            "oldest": {"max_candidate_sequences": settings.max_sessions},
            "max_sequence_idle_microseconds": int(settings.idle_timeout * 1e6),
        },
        "parameters": {name: {"string_value": value} for name, value in more.items()},
    }


def index_document(models: ModelCatalogue, only_ready: bool) -> list[dict[str, str]]:
    """Return the models that are served, and unless only those are asked for, what could not be loaded."""
    served = [_indexed(model.name, "READY", "") for model in models]
    failed = [_indexed(name, "UNAVAILABLE", reason) for name, reason in models.failures.items()]
    names = {model["name"] for model in served}
    return served if only_ready else served + [model for model in failed if model["name"] not in names]


def _tensors(model: ServedModel) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
    """Return the key in a document, the name and the size of the input, and of the output."""
    return ("inputs", INPUTS, model.inputs.width), ("outputs", OUTPUTS, model.spec.output_size)


def _indexed(name: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": SEQUENCES.name, "state": state, "reason": reason}
