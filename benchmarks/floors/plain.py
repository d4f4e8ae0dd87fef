"""A model served by FastAPI, torch and a dictionary of states: python -m benchmarks.floors.plain CHECKPOINT."""

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, WebSocket
from fastapi.websockets import WebSocketDisconnect
from pydantic import BaseModel, Field

from benchmarks.floors import serve
from models.artefact import load
from models.contract import MemoryModel


class StepsBody(BaseModel):
    """The body of a request to step a session."""

    inputs: Annotated[list[list[float]], Field(min_length=1)]


class Sessions:
    """The states of sessions, each of which begins when it is first stepped."""

    def __init__(self, model: MemoryModel[Any]) -> None:
        self._model = model
        self._states: dict[str, Any] = {}

    @torch.inference_mode()
    def step(self, session: str, inputs: list[list[float]]) -> list[list[float]]:
        """Take steps, [T, input_size], and return the outputs, [T, output_size]."""
        state, outputs = self._states.get(session), []
        state = self._model.initial_state(1) if state is None else state
        for vector in torch.tensor(inputs):
            logits, state, _ = self._model.step(vector[None], state)
            outputs.append(self._model.activate(logits)[0].tolist())
        self._states[session] = state
        return outputs


def plain(checkpoint: Path) -> FastAPI:
    """Return the application of one checkpoint."""
    model, _ = load(checkpoint)
    app, sessions = FastAPI(), Sessions(model)

    @app.post("/sessions/{session}/steps")
    async def steps(session: str, body: StepsBody) -> dict[str, Any]:
        return {"outputs": sessions.step(session, body.inputs)}

    @app.websocket("/sessions/{session}/stream")
    async def stream(socket: WebSocket, session: str) -> None:
        await socket.accept()
        await socket.send_json({"session": session})
        try:
            while True:
                await socket.send_json({"outputs": sessions.step(session, (await socket.receive_json())["inputs"])})
        except WebSocketDisconnect:
            pass

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(plain(Path(sys.argv[1])))
