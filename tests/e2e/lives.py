"""First lives of a daemon that end in mid-stream."""

import signal

import stored
from checks import check_partial, positions
from harness.process import wait_until
from world import timed


def begin(world, daemon, database):
    """Starts it on fresh weights, until a third of the users have a sequence."""
    process = daemon.start("--init-if-empty")
    users = len(world.expected.sequences) // 3
    with world.database(database) as client:
        wait_until(lambda: len(stored.keys(client, "seq")) >= users, 60, f"{users} users")
    return process


def check_end(world, daemon, how):
    """Its newest checkpoint is what its positions say. Returns the number of records in it."""
    taken = check_partial(world, daemon)
    print(f"{how}: the checkpoint has {taken} of {len(world.records)} records")
    assert 0 < taken < len(world.records), f"{how} did not come in mid-stream"
    return taken


def is_ahead(world, daemon, client):
    """Whether some sequence holds an event that is not in the newest checkpoint."""
    taken = positions(world, daemon.manifest())
    for blob in client.pipeline([["GET", name] for name in stored.keys(client, "seq")]):
        if any(position > taken[partition] for partition, position in stored.decode_sequence(blob)[0].items()):
            return True
    return False


def pause_ahead(world, daemon, client):
    """It is stopped, and if Redis is ahead of the checkpoint it stays so: no other one is written meanwhile."""
    assert daemon.process.running()
    daemon.process.pause()
    ahead = is_ahead(world, daemon, client)
    if not ahead:
        daemon.process.resume()
    return ahead


def killed(world, daemon, database):
    with timed("until kill -9"):
        process = begin(world, daemon, database)
        wait_until(daemon.generations, 60, "a checkpoint")
        wait_until(lambda: int(daemon.manifest()["trained_events"]) > 0, 60, "a checkpoint with events")
        with world.database(database) as client:
            wait_until(lambda: pause_ahead(world, daemon, client), 60, "Redis ahead of the checkpoint")
        process.kill()
    assert process.popen.returncode == -signal.SIGKILL
    return check_end(world, daemon, "kill -9")


def terminated(world, daemon, database):
    with timed("until SIGTERM"):
        process = begin(world, daemon, database)
    with timed("from SIGTERM to the end"):
        status = process.stop()
    assert status == 0, f"exit status {status}"
    return check_end(world, daemon, "SIGTERM")
