"""HTTP by hand, for requests that a library refuses to make or breaks off in the middle of."""

import json
import select
import socket
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def request(address, method, path, headers=(), body=(), patience_s=60):
    """Sends a request and reads the answer, which may come before the whole request was sent."""
    with connect(address, patience_s) as connection:
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        send(connection, [head.encode(), *body])
        return read_answer(connection, method)


def connect(address, patience_s=60):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), patience_s)


def send(connection, chunks):
    """Sends until all is sent or the other side has something to say."""
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            readable, writable, _ = select.select([connection], [connection], [], 60)
            if readable or not writable:
                return
            try:
                view = view[connection.send(view[:65_536]) :]
            except (BrokenPipeError, ConnectionResetError):
                return


def read_answer(connection, method="GET"):
    """Reads one answer, or returns None when the other side closes without one."""
    with connection.makefile("rb") as stream:
        start = stream.readline()
        if not start:
            return None
        status = int(start.split()[1])
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, value = line.decode().split(":", 1)
            headers[name.strip().lower()] = value.strip()
        if method == "HEAD":
            return Answer(status, headers, b"")
        return Answer(status, headers, stream.read(int(headers.get("content-length", 0))))
