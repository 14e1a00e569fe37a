"""The HTTP server of a daemon with --embedded: what it answers, and that clients of the worst kind cost it little."""

import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
from base64 import b64encode

from harness import protobuf
from harness.process import BIN, Process, scratch, skip, wait_until

USERS, ITEMS, EVENTS, DIM = 40, 300, 3000, 16
STRANGE = "käuferin ☂/%{}+?&#"
CLIENTS = 10_000
CONNECTIONS_MAX = 256  # M2SED_HTTP_CONNECTIONS of daemon/http.h
TURN_MS_MAX = 50
MIB = 1 << 20


class Server:
    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.config = folder / "m2sed.yaml"
        self.config.write_text(
            f"daemon: {{state_dir: '{folder / 'state'}', embedded_partitions: 2}}\n"
            f"checkpoint: {{dir: '{folder / 'checkpoints'}'}}\n"
            f"http: {{listen: '127.0.0.1:{port}'}}\n"
            "model: {hidden: 16, attention: 16, experts: 4, layers: 1, ffn: 32}\n"
            "train: {batch: 64, replay_ratio: 1}\n"
        )
        command = [BIN / "m2sed", "--config", self.config, "--embedded"]
        self.process = Process(command, folder / "m2sed.log")

    def ctl(self, *words, text=None):
        done = subprocess.run(
            [BIN / "m2sectl", *words, "--embedded", "--config", self.config],
            input=text,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, target, method="GET", headers=None, connection=None, body=None):
        """(status, headers, body)"""
        connection = connection or self.connect()
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def status(self):
        code, _, body = self.ask("/status")
        assert code == 200
        return json.loads(body)

    def recommend(self, user, query=""):
        return self.ask(f"/recommend/{urllib.parse.quote(user, safe='')}{query}")

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), 20)


# ---- a daemon with something to tell ----


def fill(server):
    rng = random.Random(1)

    def rows():
        data = struct.pack(f"<{DIM}f", *(rng.gauss(0, 1) for _ in range(DIM)))
        return {"dim": DIM, "data": b64encode(data).decode()}

    items = [{"item_id": f"item {number}", "text_rows": rows(), "image_rows": rows()} for number in range(ITEMS)]
    users = [STRANGE, *(f"user {number}" for number in range(1, USERS))]
    events = [
        {
            "user_id": rng.choice(users),
            "item_id": f"item {int(ITEMS * rng.random() ** 2)}",
            "event_time_ms": 1_700_000_000_000 + 1000 * number,
        }
        for number in range(EVENTS)
    ]
    for topic, records in (("items", items), ("interactions", events)):
        server.ctl("produce", topic, "-", text="".join(json.dumps(record) + "\n" for record in records))
    return users


def start_beside(server):
    """Somebody else has the address at first: the daemon works without HTTP, and listens later."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        server.process.start()
        server.process.wait_output("no HTTP, trying again.*Address already in use")
        server.process.wait_output("embedded Redis")
    server.process.wait_output("HTTP is there", 30)


def check_start(server):
    assert server.ask("/livez")[::2] == (200, b"alive\n")
    wait_until(lambda: server.ask("/readyz")[0] == 503 and server.status(), 5, "a status")
    code, headers, body = server.ask("/readyz")
    assert code == 503 and headers["Retry-After"] == "1", (code, body)
    assert body == b"starting\nno item has feature rows yet\n", body
    code, _, body = server.recommend("somebody")
    assert code == 503 and b"no vectors yet" in body


def wait_settled(server):
    """All is learned and nothing moves any more: {status}"""

    def settled():
        status = server.status()
        return int(status["events"]["received"]) == EVENTS and status["serving"]["users_waiting"] == "0" and status

    wait_until(settled, 60, "the events")
    epoch, since = None, 0
    deadline = time.monotonic() + 30
    while since < 4:
        status = settled()
        assert time.monotonic() < deadline
        since = since + 1 if status and status["serving"]["epoch"] == epoch else 0
        epoch = status and status["serving"]["epoch"]
        time.sleep(0.5)
    assert int(epoch) > 1


# ---- what it answers ----


def check_status(server):
    code, headers, body = server.ask("/readyz")
    assert (code, body) == (200, b"ready\n"), body
    code, headers, body = server.ask("/status", headers={"Accept": "application/x-protobuf"})
    assert code == 200 and headers["Content-Type"] == "application/x-protobuf"
    binary, status = protobuf.decode("Status", body), server.status()
    assert binary["state"] == "STATE_RUNNING" and status["state"] == "running"
    for part, name in (("events", "trained"), ("events", "digest"), ("training", "step"), ("catalogue", "items")):
        assert int(status[part][name]) == binary[part][name] > 0, (part, name)
    assert status["catalogue"]["items"] == str(ITEMS) and not status["reasons"]

    code, headers, body = server.ask("/metrics")
    assert code == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert f"\nm2sed_received_total {EVENTS}\n" in body.decode()
    assert f'm2sed_freshness_seconds_count{{stage="sequence"}} {EVENTS}\n' in body.decode()
    lag = re.findall(r'm2sed_partition_lag_records{topic="interactions",partition="([01])"} 0\n', body.decode())
    assert len(lag) == 2
    promtool = shutil.which("promtool")
    if promtool:
        done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
    else:
        print("promtool is not installed: the metrics are not checked by it")


def check_protocol(server):
    connection = server.connect()
    for target in ("/", "/livez", "/status", "/metrics"):
        whole = server.ask(target, connection=connection)
        local = connection.sock
        head = server.ask(target, "HEAD", connection=connection)
        assert whole[0] == head[0] == 200 and head[2] == b"" and len(whole[2]) == int(whole[1]["Content-Length"])
        assert abs(int(head[1]["Content-Length"]) - len(whole[2])) < 200, target
        assert connection.sock is local is not None, "one connection for many requests"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        code, headers, _ = server.ask("/status", method)
        assert code == 405 and headers["Allow"] == "GET, HEAD", (method, code)
    assert server.ask("/status", "POST", body=b"x" * 100_000)[0] == 405
    assert server.ask("/status", body=b"x" * 100_000)[0] == 400
    for target in ("/nothing", "/status/", "/recommend/", "/../etc/passwd", "/%2e%2e/status"):
        assert server.ask(target)[0] == 404, target
    with server.raw() as pipelined:
        pipelined.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        received = b""
        while received.count(b"alive\n") < 20:
            part = pipelined.recv(65536)
            assert part, received
            received += part


def check_page(server):
    code, headers, body = server.ask("/")
    assert code == 200 and headers["Content-Type"].startswith("text/html")
    assert b"<html" in body and b"/status" in body
    assert not re.search(rb"(src|href)=|https?://|@import|url\(", body), "nothing from elsewhere"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def check_recommend(server, users):
    for user in users[:8]:
        code, headers, body = server.recommend(user)
        assert code == 200 and headers["Content-Type"] == "application/json", (user, body)
        answer = json.loads(body)
        assert answer["user"] == user
        expected = json.loads(server.ctl("recommend", user, "-k", "10", "--json"))
        assert answer["epoch"] == expected["epoch"] and answer["step"] == expected["step"], (answer, expected)
        assert len(answer["items"]) == 10
        for ours, theirs in zip(answer["items"], expected["items"], strict=True):
            assert ours["item_id"] == theirs["item_id"], (answer, expected)
            assert abs(ours["score"] - theirs["score"]) < 1e-4
        sequence = {entry["item_id"] for entry in json.loads(server.ctl("sequence", user, "--json"))["items"]}
        every = json.loads(server.recommend(user, "?k=100")[2])["items"]
        assert len(every) == 100 and not {item["item_id"] for item in every} & sequence
        assert every[:10] == answer["items"]
    assert len(json.loads(server.recommend("user 1", "?k=1")[2])["items"]) == 1
    assert server.recommend("nobody")[0] == 404
    for bad in ("?k=0", "?k=101", "?k=x", "?n=1"):
        assert server.recommend("user 1", bad)[0] == 400
    for bad in ("%", "%zz", "%00", "a%0Ab", "%ff", "x" * 129):
        assert server.ask(f"/recommend/{bad}")[0] == 400, bad


# ---- who means no good ----


class Watch:
    """Looks at the daemon's own figures while others do their worst."""

    def __init__(self, server):
        self.server, self.turns, self.answers = server, [], []
        self.rss, self.files, self.files_max = server.process.rss_bytes(), self.open_files(), 0
        self.waits = [self.waited_ms()] * 6

    def waited_ms(self):
        """For how long the loop's thread could have run and other threads of this machine did instead."""
        return int(pathlib.Path(f"/proc/{self.server.process.pid}/schedstat").read_text().split()[1]) / 1e6

    def open_files(self):
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    def look(self, seconds, meanwhile=None):
        """Asks twice a second, so that no status is missed: each has the longest turn of the second before."""
        for _ in range(2 * seconds):
            if meanwhile:
                meanwhile()
            begin = time.monotonic()
            turn = self.server.status()["process"]["loop_delay_ms"]
            self.answers.append(time.monotonic() - begin)
            self.files_max = max(self.files_max, self.open_files())
            # The turn was in the second that the newest status tells of.
            self.waits = [*self.waits[1:], self.waited_ms()]
            self.turns.append((turn, self.waits[-1] - self.waits[0]))
            time.sleep(max(0, 0.5 - self.answers[-1]))

    def judge(self, what):
        grown = self.server.process.rss_bytes() - self.rss
        worst, slowest = max(turn for turn, _ in self.turns), max(self.answers)
        files = self.files_max - self.files
        print(f"{what}: turn {worst:.1f} ms, answer {slowest:.2f} s, {grown / MIB:+.1f} MiB, {files:+} open files")
        assert all(turn < TURN_MS_MAX + waited for turn, waited in self.turns), self.turns
        assert grown < 32 * MIB and files < CONNECTIONS_MAX + 32, (grown, files)
        self.turns, self.answers, self.files_max = [], [], 0


def open_slowly(port, count, request):
    """That many connections, each with the beginning of a request."""
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        clients.append(client)
    for client in clients:
        try:
            client.send(request)
        except OSError:  # not connected yet: one that only waits, then
            continue
    return clients


def many_connections(server, watch):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(CLIENTS, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
    clients = open_slowly(server.port, count, b"GET /status HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    print(f"{count} connections")
    watch.look(3)
    for client in clients:
        client.close()
    watch.look(1)
    watch.judge("half requests")


def slow_clients(server, watch):
    """Each sends its request byte by byte, or takes a long answer so; some are cut for others, and come again."""
    half = b"GET /status HTTP/1.1\r\nHost: a\r\nX-Slow: "
    senders = open_slowly(server.port, 200, half)
    takers = open_slowly(server.port, 40, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")

    def a_byte_each():
        for number, client in enumerate(senders):
            try:
                client.send(b"y")
            except OSError:
                client.close()
                senders[number : number + 1] = open_slowly(server.port, 1, half)
        for client in takers:
            with contextlib.suppress(OSError):
                client.recv(1)

    watch.look(2, a_byte_each)
    for client in senders + takers:
        client.close()
    watch.judge("a byte at a time")


def unread_answers(server, watch):
    """They ask for much and take nothing of it."""
    clients = open_slowly(server.port, 400, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
    watch.look(3)
    for client in clients:
        client.close()
    watch.judge("answers that nobody reads")


def what_comes_back(server, requests):
    """What each of these got as an answer, all sent at once; b"": it was cut, or waits for more to come."""
    clients = [server.raw() for _ in requests]
    for client, data in zip(clients, requests, strict=True):
        with contextlib.suppress(ConnectionError):  # it had enough
            client.sendall(data)
    time.sleep(0.5)
    answers = []
    for client in clients:
        client.setblocking(False)
        with client, contextlib.suppress(ConnectionError, BlockingIOError):
            answers.append(b"")
            answers[-1] = client.recv(65536)
    return answers


def garbage(server, watch):
    rng = random.Random(2)
    oversized = [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /status HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(10_000)) + b"\r\n",
    ]
    wrong = oversized * 20 + [
        b"GET /status HTTP/1.1\r\n\r\n",  # no Host
        b"GET /status FTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\r\n\r\n",
    ]
    wrong += [rng.randbytes(size) for size in (1, 10, 100, 1000, 10_000) * 18]
    for data, answer in zip(wrong, what_comes_back(server, wrong), strict=True):
        assert re.match(rb"HTTP/1\.[01] [45]\d\d |$", answer), (data[:80], answer[:80])
    good = b"GET /recommend/user%201?k=10 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    for _ in range(4):
        nearly = [bytearray(good) for _ in range(100)]
        for request in nearly[1:]:
            for _ in range(rng.randrange(1, 4)):
                request[rng.randrange(len(request))] = rng.randrange(256)
        answers = what_comes_back(server, nearly)
        assert answers[0].startswith(b"HTTP/1.1 200 ")
        assert all(re.match(rb"HTTP/1\.[01] \d\d\d |$", answer) for answer in answers)
    watch.look(1)
    watch.judge("garbage, oversized headers")


def flood(server, watch):
    """As many requests as come through from four clients at once."""
    counts, until = [0, 0, 0, 0], time.monotonic() + 3

    def client(number, target):
        connection = server.connect()
        while time.monotonic() < until:
            assert server.ask(target, connection=connection)[0] == 200
            counts[number] += 1

    targets = ("/status", "/metrics", "/recommend/user%201?k=100", "/recommend/user%202")
    threads = [threading.Thread(target=client, args=(number, target)) for number, target in enumerate(targets)]
    for thread in threads:
        thread.start()
    watch.look(3)
    for thread in threads:
        thread.join()
    print(f"requests a second: {[count // 3 for count in counts]}")
    assert min(counts) > 10
    watch.judge("a flood")


def silent_redis(server, watch):
    """More ask for recommendations than wait at a time while Redis says nothing: all are told, in time."""
    daemon = server.process.pid
    redis = int(pathlib.Path(f"/proc/{daemon}/task/{daemon}/children").read_text())
    os.kill(redis, signal.SIGSTOP)
    try:
        clients = open_slowly(server.port, 100, b"GET /recommend/user%201 HTTP/1.1\r\nHost: a\r\n\r\n")
        watch.look(1)
        wait_until(lambda: server.ask("/readyz")[::2] == (503, b"running\nRedis is not connected\n"), 20, "the reason")
        answers = []
        for client in clients:
            client.setblocking(True)
            client.settimeout(20)
            answers.append(client.recv(65536))
            client.close()
    finally:
        os.kill(redis, signal.SIGCONT)
    assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
    assert 30 <= sum(b"too many at a time" in answer for answer in answers) < 100
    wait_until(lambda: server.recommend("user 1")[0] == 200, 20, "a recommendation again")
    wait_until(lambda: server.ask("/readyz")[0] == 200, 5, "all is well again")
    watch.judge("a silent Redis")


def main():
    with scratch() as folder:
        if not shutil.which("redis-server"):
            skip("redis-server is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            server = Server(folder, probe.getsockname()[1])
        start_beside(server)
        check_start(server)
        users = fill(server)
        wait_settled(server)
        check_status(server)
        check_protocol(server)
        check_page(server)
        check_recommend(server, users)
        watch = Watch(server)
        garbage(server, watch)
        many_connections(server, watch)
        slow_clients(server, watch)
        unread_answers(server, watch)
        flood(server, watch)
        silent_redis(server, watch)
        idle = server.raw()
        assert server.process.stop(20) == 0
        idle.close()


main()
