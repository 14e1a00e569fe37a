"""serve.vector_type, changed between runs: what readers see is of one epoch and one meaning, whatever types it has."""

import stored
from checks import check_vectors
from world import timed, world

EVENTS, USERS = 1500, 5


def best(world, daemon, user, count):
    """As the documentation tells any program to do it."""
    with world.database(0) as client:
        dim = int(client.call("HGET", f"{stored.PREFIX}model", "dim"))
        blob, epoch = client.call("HMGET", stored.key("user", user), "v", "epoch")
        names = sorted(stored.keys(client, "item"))
        fields = ("v", "epoch", "v_prev", "epoch_prev")
        items = client.pipeline([["HMGET", name, *fields] for name in names])
    mine, scores = stored.vector(blob, dim), []
    for name, (now, now_epoch, before, before_epoch) in zip(names, items, strict=True):
        assert epoch in (now_epoch, before_epoch), (name, epoch, now_epoch, before_epoch)
        item = stored.vector(now if epoch == now_epoch else before, dim)
        scores.append((sum(a * b for a, b in zip(mine, item, strict=True)), name))
    return sorted(scores, reverse=True)[:count]


def check_readers(world, daemon):
    assert daemon.ctl("audit")["good"]
    for user in list(world.expected.sequences)[:USERS]:
        shown = daemon.ctl("recommend", user, "-k", "5", "--include-seen")["items"]
        for entry, (score, _) in zip(shown, best(world, daemon, user, 5), strict=True):
            assert abs(entry["score"] - score) < 1e-5, (user, entry, score)


def main():
    with world(EVENTS, 1) as made:
        daemon = made.daemon("typed", 0)
        options = ["--init-if-empty"]
        for number, vector_type in enumerate(("float32", "float16", "float32")):
            daemon.configure({"serve": {"vector_type": vector_type}})
            with timed(f"{vector_type}, run {number}"):
                daemon.run_to_the_end(*options)
            options = []
            check_vectors(made, daemon, 0, vector_type)
            check_readers(made, daemon)
            with made.database(0) as client:
                dim = int(client.call("HGET", f"{stored.PREFIX}model", "dim"))
                sizes = {client.call("HSTRLEN", name, "v_prev") for name in stored.keys(client, "item")}
                if number == 1:  # a user of the epoch before would find vectors of the type before
                    assert 4 * dim in sizes, sizes
                # As a user whom the sweep has not come to: of the epoch before, and of the other type.
                user = next(iter(made.expected.sequences))
                epoch = client.call("HGET", next(iter(stored.keys(client, "item"))), "epoch_prev")
                if epoch:
                    other = client.call("HGET", next(iter(stored.keys(client, "item"))), "v_prev")
                    client.call("HSET", stored.key("user", user), "v", other, "epoch", epoch)
                    check_readers(made, daemon)


main()
