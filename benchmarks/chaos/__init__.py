"""Kill a server at random moments under load, and compare its state with the answers that clients got.

python -m benchmarks.chaos

    server    starts--serving-----X  starts--serving---X  X starts--serving-------------> stops
    clients         step, fork ...?     ?...again           ?...again, step ...  finish
    checker                                                                      compare everything

Every client records each answer: outputs of steps over HTTP (if_step) and over WebSocket (seq), forks, rewinds, resets
and deletions. It sends unanswered requests again. At the end all outputs are compared, bit for bit, with an undisturbed
run of the same inputs by the fused back end in this process; and each session's step, recording, state and next step
with the record.
"""

from benchmarks.chaos.checker import Reference, check_earlier_sessions, check_sessions
from benchmarks.chaos.kills import check, kill_again_and_again
from benchmarks.chaos.load import Load
from benchmarks.chaos.record import KEPT_STEPS, Array, read_recording
from benchmarks.chaos.server import Server, only

__all__ = [
    "KEPT_STEPS",
    "Array",
    "Load",
    "Reference",
    "Server",
    "check",
    "check_earlier_sessions",
    "check_sessions",
    "kill_again_and_again",
    "only",
    "read_recording",
]
