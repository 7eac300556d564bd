"""Picks free TCP ports on the loopback address."""

import random
import socket


def free_port():
    """Returns a port that nothing listens on.

    It lies below the range from which the system takes the ports of outgoing connections: a client could otherwise
    be given the port of a server that a test has just killed and is about to start again.
    """
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
