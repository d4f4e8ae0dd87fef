"""Ray Serve and the torch model: python -m benchmarks.floors.ray_serve CHECKPOINT SESSIONS

One replica process, with the states; `serve.batch` takes all requests that have come, without a wait. Ray's own
settings for throughput are on, by which the replica answers HTTP itself (direct ingress), with no proxy before it.
Ray's files are in a directory that is deleted in the end.
"""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import orjson
import torch
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.floors.batches import Batches
from benchmarks.ports import free_port

PORT = free_port()

os.environ |= {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(PORT),
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(PORT + 1),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: no cluster, all listen on 127.0.0.1
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}

import ray  # noqa: E402  which reads the environment
from ray import serve  # noqa: E402

OBJECT_STORE_BYTES = 100 * 2**20
"""Bytes of Ray's object store, which stays empty; Ray accepts few less."""

SPARE_REQUESTS = 64
"""Requests in work at once, beside one of each session."""


def listen_here_only() -> None:
    """Make a replica listen to other deployments on 127.0.0.1, for which Ray has no setting. Runs in each worker."""
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", "127.0.0.1"))


def application(checkpoint: Path, sessions: int) -> Any:
    """Return the deployment that steps the sessions of a checkpoint."""

    @serve.deployment(num_replicas=1, max_ongoing_requests=sessions + SPARE_REQUESTS)
    class Steps:
        def __init__(self) -> None:
            self._batches = Batches(checkpoint)

        @serve.batch(max_batch_size=sessions, batch_wait_timeout_s=0)  # type: ignore[untyped-decorator]
        async def step(self, names: list[str], inputs: list[list[float]]) -> list[list[float]]:
            outputs: list[list[float]] = self._batches.step(names, torch.tensor(inputs)).tolist()
            return outputs

        async def __call__(self, request: Request) -> Response:
            session = request.url.path.split("/")[2]
            output = await self.step(session, orjson.loads(await request.body())["inputs"][0])
            return Response(orjson.dumps({"outputs": [output]}), media_type="application/json")

    return Steps.bind()  # type: ignore[attr-defined]


def main(checkpoint: Path, sessions: int) -> None:
    """Run Ray Serve until a signal."""
    stopped = threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": listen_here_only},
            _temp_dir=directory,
        )
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        serve.start(proxy_location="Disabled", http_options={"host": "127.0.0.1", "port": free_port()})
        serve.run(application(checkpoint.resolve(), sessions), route_prefix="/")
        sys.stderr.write(f"Ray Serve is on http://127.0.0.1:{PORT} (end it by a signal)\n")
        stopped.wait()
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
