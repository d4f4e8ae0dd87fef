"""engram bench: measure on this machine."""

from engram.cli import add, group
from engram.commands.bench import (
    durability,
    fairness,
    gpu,
    graphs,
    kernels,
    peers,
    serve,
    served_steps,
    sessions,
    training,
)

commands = group()
for name, about, run in (
    ("kernels", "The fused kernels beside all else that computes the same, checked first.", kernels.run),
    ("training", "Whole updates of the trainer beside those of public implementations.", training.run),
    ("serve", "What a served request costs, by each way to the server, beside the floors.", serve.run),
    ("graphs", "What a served step of imported graphs costs, beside the bare back end's.", graphs.run),
    ("peers", "Steps of sessions served by Engram and by other servers, to the same requests.", peers.run),
    ("served-steps", "Session-steps per second over WebSocket, beside the back end alone.", served_steps.run),
    ("durability", "Session-steps per second over WebSocket with each durability.", durability.run),
    ("sessions", "What many open sessions take, and what it costs to wake one.", sessions.run),
    ("gpu", "The torch back end on a GPU: checked against the CPU, beside the card's limits.", gpu.run),
    ("fairness", "How long the worst requests keep a session of another model waiting.", fairness.run),
):
    add(commands, name, about, run)
