"""The faults that several servers meet: each function brings one about, and returns when it is over."""

import random
import signal
import time
from collections.abc import Callable, Mapping

from benchmarks.chaos.cluster import LEASE_SECONDS, Cluster, Replica

Fault = Callable[[Cluster, random.Random], None]

DOWN = 2.0
"""Seconds for which something that was killed stays so, at most."""

FROZEN = (LEASE_SECONDS + 1, LEASE_SECONDS + 3)
SILENT = 10.0
SILENT_FOR_LONG = 120.0

CLOCK_SECONDS = (-366 * 86400, -3600, -60, 60, 3600, 366 * 86400)
APART = 2.0
"""Seconds for which a clock is apart."""


def any_server(cluster: Cluster, chance: random.Random) -> Replica:
    return chance.choice(cluster.servers)


def kill_server(cluster: Cluster, chance: random.Random) -> None:
    end_server(any_server(cluster, chance), signal.SIGKILL, chance)


def stop_server(cluster: Cluster, chance: random.Random) -> None:
    end_server(any_server(cluster, chance), signal.SIGTERM, chance)


def end_server(server: Replica, number: int, chance: random.Random) -> None:
    """Send a signal, and start the server again a little later."""
    server.stop(number)
    time.sleep(chance.uniform(0, DOWN))
    server.start()
    server.wait_until_ready()


def freeze_server(cluster: Cluster, chance: random.Random) -> None:
    """Stop a server for longer than its lease lasts, and have it go on."""
    server = any_server(cluster, chance)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(chance.uniform(*FROZEN))
    server.process.send_signal(signal.SIGCONT)
    server.wait_until_ready()


def reload_proxy(cluster: Cluster, _: random.Random) -> None:
    cluster.proxy.reload()


def kill_proxy(cluster: Cluster, chance: random.Random) -> None:
    cluster.proxy.kill()
    time.sleep(chance.uniform(0, DOWN))
    cluster.proxy.start()


def kill_database(cluster: Cluster, chance: random.Random) -> None:
    """Kill all processes of the database, and start it again a little later; no server is started again."""
    cluster.postgres.kill()
    time.sleep(chance.uniform(0, DOWN))
    cluster.postgres.start()
    cluster.wait_until_ready()


def silence_database(cluster: Cluster, chance: random.Random) -> None:
    silence(any_server(cluster, chance), SILENT)


def silence_database_for_long(cluster: Cluster, chance: random.Random) -> None:
    silence(any_server(cluster, chance), SILENT_FOR_LONG)


def silence(server: Replica, seconds: float) -> None:
    """Let nothing pass between a server and the database for some seconds."""
    server.link.silence()
    time.sleep(seconds)
    server.link.resume()
    server.wait_until_ready()


def drop_connections(cluster: Cluster, chance: random.Random) -> None:
    """Break a server's connections to the database."""
    server = any_server(cluster, chance)
    server.link.drop()
    server.wait_until_ready()


def set_clock(cluster: Cluster, chance: random.Random) -> None:
    """Set the wall clock of a server apart for some seconds, if it can be set."""
    server = any_server(cluster, chance)
    if server.clock:
        server.clock.set(chance.choice(CLOCK_SECONDS))
        time.sleep(APART)
        server.clock.set(0)


FAULTS: Mapping[str, Fault] = {
    "server killed": kill_server,
    "server stopped": stop_server,
    "server frozen": freeze_server,
    "database killed": kill_database,
    "database silent for 10 s": silence_database,
    "connections to the database dropped": drop_connections,
    "proxy reloaded": reload_proxy,
    "proxy killed": kill_proxy,
    "clock set": set_clock,
}

LONG_FAULTS: Mapping[str, Fault] = {"database silent for 2 minutes": silence_database_for_long}

ALL = {**FAULTS, **LONG_FAULTS}
