"""What all tests share: generated examples are not held to a time, for machines differ; and signals work.

A shell has what it runs in the background ignore SIGINT, and so would the servers that tests start there.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("engram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("engram")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
