"""A private Redis server and a client: binary-safe, with pipelines, in the standard library."""

import socket

from harness.process import Process, free_port, need_program, wait_until


class RedisError(Exception):
    """An error reply of the server."""


class Client:
    """One connection. Replies are bytes, int, None, lists of these; an error reply raises RedisError.
    Arguments may be bytes, str, int or float."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, *words):
        (reply,) = self.pipeline([words])
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def pipeline(self, commands):
        """Sends all commands at once; error replies are elements of the answer."""
        self.socket.sendall(b"".join(self._encode(words) for words in commands))
        return [self._read() for _ in commands]

    @staticmethod
    def _encode(words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)

    def _read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        count = int(rest)
        if count < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(count)]
        data = self.file.read(count + 2)
        if len(data) != count + 2:
            raise ConnectionError("Redis closed the connection")
        return data[:-2]


class Server(Process):
    """redis-server in `folder`, on the loopback address and a Unix socket, without persistence unless
    `config` (lines as in redis.conf) says otherwise. A restart keeps port and folder."""

    def __init__(self, folder, config=()):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.unix_socket = folder / "redis.sock"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"unixsocket {self.unix_socket}",
            f"dir {folder}",
            "daemonize no",
            'save ""',
            "appendonly no",
            *config,
        ]
        (folder / "redis.conf").write_text("\n".join(lines) + "\n")
        super().__init__([need_program("redis-server"), folder / "redis.conf"], folder / "redis.log")

    def start(self):
        super().start()
        wait_until(self._answers, 20, "Redis answers PING")
        return self

    def _answers(self):
        if not self.running():
            raise RuntimeError(f"redis-server ended: {self.output()[-500:]}")
        try:
            with self.client() as client:
                return client.call("PING") == b"PONG"
        except (OSError, RedisError):  # not listening yet, or still loading its file
            return False

    def client(self):
        return Client(self.port)
