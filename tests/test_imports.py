"""Imports point one way: the rooms of the project and what each may know of the others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FORBIDDEN = {
    "models": ["kernels", "training", "app", "benchmarks", "fastapi", "pydantic", "onnx", "onnxruntime"],
    "models/manifest.py": ["torch", "numpy", "models"],
    "kernels": ["training", "app", "benchmarks", "fastapi", "pydantic"],
    "training": ["app", "benchmarks", "fastapi", "pydantic"],
    "benchmarks": ["fastapi", "pydantic", "app.api", "app.engine", "app.main", "app.sessions", "app.stores"],
    "app/engine": ["fastapi", "starlette", "pydantic", "torch", "app.api", "app.sessions", "app.main", "app.settings"],
    "app/backends": ["fastapi", "starlette", "pydantic", "training", "app.engine", "app.api", "app.sessions"],
    "app/backends/fused.py": ["torch", "models.artefact", "models.contract", "models.state", "models.registry"],
    "app/backends/graph.py": ["torch", "models.artefact", "models.contract", "models.state", "models.registry"],
    "app/backends/onnx.py": ["torch", "models.artefact", "models.contract", "models.state", "models.registry"],
    "app/stores": ["fastapi", "starlette", "pydantic", "torch", "app.engine", "app.api", "app.sessions"],
    "app/sessions/service.py": ["fastapi", "starlette", "pydantic", "torch", "app.api", "app.main", "app.settings"],
    "app/sessions/residents.py": [
        "fastapi",
        "starlette",
        "pydantic",
        "torch",
        "app.api",
        "app.main",
        "app.sessions.service",
    ],
    "app/sessions/session.py": [
        "fastapi",
        "starlette",
        "pydantic",
        "torch",
        "app.api",
        "app.main",
        "app.sessions.residents",
    ],
    "app/sessions/past.py": [
        "fastapi",
        "starlette",
        "pydantic",
        "torch",
        "app.api",
        "app.main",
        "app.sessions.session",
        "app.sessions.service",
    ],
    "app/sessions/snapshot.py": ["fastapi", "starlette", "pydantic", "torch", "app.api", "app.engine", "app.stores"],
    "app/dtypes.py": [
        "fastapi",
        "starlette",
        "pydantic",
        "torch",
        "app.api",
        "app.engine",
        "app.sessions",
        "app.stores",
    ],
    "app/protocols/frames.py": ["asyncio", "fastapi", "starlette", "pydantic", "torch", "uvicorn"],
    "app/protocols/websocket.py": [
        "fastapi",
        "pydantic",
        "torch",
        "app.api",
        "app.engine",
        "app.sessions",
        "app.stores",
    ],
    "app/profiling.py": ["fastapi", "starlette", "numpy", "app.api", "app.engine", "app.main", "app.sessions"],
    "app/protocols/http.py": ["fastapi", "starlette", "pydantic"],
    "app/errors.py": ["fastapi", "starlette", "pydantic", "app"],
    "app/api": ["torch", "training", "app.main", "app.backends.onnx", "app.backends.torch"],
}

WITHOUT_TORCH = ["torch", "models.contract", "models.dnc", "models.ntm", "models.registry", "kernels.unroll"]

FORBIDDEN |= {
    str(path.relative_to(ROOT)): WITHOUT_TORCH
    for path in (ROOT / "kernels").glob("*.py")
    if path.name != "unroll.py"  # what trainers unroll with; the others are for a server without torch
}

FORBIDDEN |= {
    f"benchmarks/{name}": ["torch", "training", "models.artefact", "models.contract", "models.registry"]
    for name in (
        "server.py",
        "served_steps.py",
        "durability.py",
        "sessions.py",
        "fairness.py",
        "worst_requests.py",
        "load",
        "serve",
        "floors/echo.py",
        "floors/picows_echo.py",
    )
}

ALLOWED = {"benchmarks/floors/plain.py": ["fastapi", "pydantic"]}
"""An application that is no part of the server, and is measured beside it."""

ONLY_IN_LOADING = (
    "app.backends.fused",
    "app.backends.onnx",
    "app.backends.torch",
    "app.stores.sqlite",
    "app.stores.memory",
    "app.backends.fake",
)


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)


def files(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("place", FORBIDDEN)
def test_room_imports_only_what_it_may(place):
    assert files(place)
    broken = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files(place)
        for module in imports(path)
        for forbidden in FORBIDDEN[place]
        if within(module, forbidden) and forbidden not in ALLOWED.get(str(path.relative_to(ROOT)), ())
    ]
    assert broken == []


def test_only_loading_names_back_ends_and_stores():
    naming = {
        str(path.relative_to(ROOT / "app"))
        for path in files("app")
        for module in imports(path)
        if any(within(module, name) for name in ONLY_IN_LOADING)
    }
    assert naming == {"loading.py", "stores/memory.py"}, "the store in memory is the embedded one's tables"


@pytest.mark.parametrize("room", ["training", "benchmarks"])
def test_only_the_command_line_knows_of(room):
    knowing = {path.name for path in files("app") for module in imports(path) if within(module, room)}
    assert knowing == {"cli.py"}
