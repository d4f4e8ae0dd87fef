import socket

from benchmarks.postgres import Postgres


def test_server_takes_another_port_where_its_own_is_taken(own_postgres):
    own_postgres.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own_postgres._was_ready, own_postgres.port = False, taken.getsockname()[1]
        own_postgres.start()
        assert own_postgres.port != taken.getsockname()[1]
    assert own_postgres.run("SELECT 5") == [(5,)]


def test_server_that_was_killed_starts_again_with_its_data(own_postgres: Postgres):
    own_postgres.run("CREATE TABLE made (number int8)")
    own_postgres.run("INSERT INTO made VALUES (%s)", 7)
    port, processes = own_postgres.port, own_postgres.processes()
    own_postgres.kill()
    assert not own_postgres.answers()
    own_postgres.start()
    assert (own_postgres.port, own_postgres.run("SELECT number FROM made")) == (port, [(7,)])
    assert not set(own_postgres.processes()) & set(processes)
