"""A synchronous standby of a PostgreSQL."""

from pathlib import Path

from benchmarks.postgres import ROLE, Postgres
from tests.waiting import until

NAME = "standby"


class Standby(Postgres):
    """A standby, which its primary waits for before it acknowledges a commit; directory: empty."""

    def __init__(self, directory: Path, primary: Postgres) -> None:
        self._primary = primary
        super().__init__(directory)

    def make_data(self) -> None:
        """Copy the files of the primary."""
        source = f"host=127.0.0.1 port={self._primary.port} user={ROLE} application_name={NAME}"
        self.tool(
            "pg_basebackup",
            "--dbname",
            source,
            "--pgdata",
            str(self.data),
            "--write-recovery-conf",
            "--checkpoint=fast",
        )

    def follow(self) -> None:
        """Start, and have the primary wait for every commit to be on both disks."""
        self.start()
        self._primary.run(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
        self._primary.run("SELECT pg_reload_conf()")
        until(lambda: self._primary.run("SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def promote(self) -> None:
        """Take the place of the primary, which is dead."""
        self.run("SELECT pg_promote()")
        until(lambda: self.run("SELECT pg_is_in_recovery()") == [(False,)])
