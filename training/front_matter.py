"""The front matter of a card: what the Hugging Face Hub reads of a model, in YAML between two lines of dashes."""

import math
from pathlib import Path
from typing import Any

import yaml

from models.manifest import GRAPH_KIND, Manifest
from training.evaluation import options_text
from training.tasks import NO_TASK

LINE = "---\n"

TAGS = {
    "dnc": "differentiable-neural-computer",
    "ntm": "neural-turing-machine",
    "rnn": "recurrent-neural-network",
    GRAPH_KIND: "imported-graph",
}
"""The tag of a kind of model; one of a user's own has its name."""


def front_matter(name: str, manifest: Manifest, license_id: str | None = None) -> str:
    """Return the front matter of a card, both lines of dashes with it.

    license_id: of the weights, as the hub names it, such as "apache-2.0"; None leaves it out.
    """
    task = [] if manifest.task["name"] == NO_TASK else [manifest.task["name"]]
    values: dict[str, Any] = {
        **({"license": license_id} if license_id else {}),
        "library_name": "engram",
        "tags": ["engram", "memory-augmented-neural-network", TAGS.get(manifest.kind, manifest.kind), *task],
    }
    measured = [row for row in manifest.evaluation if math.isfinite(row["errors"])]
    results = [_result(manifest.task["name"], row) for row in measured]
    if results:
        values["model-index"] = [{"name": name, "results": results}]
    return f"{LINE}{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)}{LINE}"


def license_of(card: Path) -> str | None:
    """Return the license in the front matter of a card; None without a card, front matter or license."""
    text = card.read_text(errors="replace") if card.exists() else ""
    _, begun, rest = text.partition(LINE)
    try:
        values = yaml.safe_load(rest.partition(f"\n{LINE}")[0]) if begun and text.startswith(LINE) else None
    except yaml.YAMLError:
        return None
    found = values.get("license") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None


def _result(task: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement as the hub has it."""
    what = options_text(row["options"])
    size = f", {row['memory_size']} memory locations" if row["memory_size"] else ""
    return {
        "task": {"type": task},
        "dataset": {"type": f"engram/{task}", "name": f"{what}{size}"},
        "metrics": [{"type": row["unit"], "value": row["errors"], "name": f"{row['unit']} per sequence"}],
    }
