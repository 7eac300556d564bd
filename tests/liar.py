"""A broker that lies: it speaks as much MQTT as a test needs it to, and says what the test tells it to say.

`script` is called with each packet that came, as its type and its bytes, and returns the bytes to answer with.
"""

import socket
import threading

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12
DISCONNECT = 14


class Liar:
    def __init__(self, script):
        self.script = script
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = []
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.hang_up()

    def hang_up(self):
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has hung up itself

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection, connection.makefile("rb") as incoming:
            try:
                while packet := read_packet(incoming):
                    connection.sendall(self.script(*packet))
            except OSError:
                pass  # the test is over, or the sender was killed


def read_packet(incoming):
    first = incoming.read(1)
    if not first:
        return None
    size, shift = 0, 0
    while True:
        digit = incoming.read(1)[0]
        size |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return first[0] >> 4, incoming.read(size)


def packet(kind, body, flags=0):
    size, digits = len(body), b""
    while size > 0x7F:
        digits += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([kind << 4 | flags]) + digits + bytes([size]) + body


def connack(version, session_present):
    return packet(CONNACK, bytes([session_present, 0]) + (b"\0" if version == "5" else b""))


def suback(version, subscribe, code):
    """Grants, or refuses, the only filter."""
    return packet(SUBACK, subscribe[:2] + (b"\0" if version == "5" else b"") + bytes([code]))


def publish(version, packet_id, topic, payload, again=False):
    topic, packet_id = topic.encode(), packet_id.to_bytes(2, "big")
    body = len(topic).to_bytes(2, "big") + topic + packet_id + (b"\0" if version == "5" else b"") + payload
    return packet(PUBLISH, body, flags=2 | again << 3)
