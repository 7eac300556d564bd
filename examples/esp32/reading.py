# What does not need the board: numbering, keeping and writing down of readings. Runs on any MicroPython or Python 3.

import json

# Numbers are reserved in flash this many at a time, since flash bears some 100,000 writes; a start skips the rest.
RESERVED = 1000
# Readings kept in memory while nobody takes them; with 60 bytes each some 12 KB.
KEPT_MAX = 200


class Counter:
    """A number for each reading that is never used twice, though a board has no clock and loses its power."""

    def __init__(self, path):
        self.path = path
        try:
            with open(path) as file:
                self.next = int(file.read())
        except (OSError, ValueError):
            self.next = 0
        self.reserved = self.next

    def take(self):
        if self.next == self.reserved:
            self.reserved += RESERVED
            with open(self.path, "w") as file:
                file.write(str(self.reserved))
        self.next += 1
        return self.next - 1


class Backlog:
    """Readings that were not taken yet, oldest first. The oldest goes where there are too many: the board has no disk
    to speak of. Its number is then missing on the chain, so the gap shows, and `dropped` counts it."""

    def __init__(self):
        self.texts = []
        self.dropped = 0

    def add(self, device, counter, values):
        reading = {"device": device, "counter": counter}
        reading.update(values)
        if self.dropped:
            reading["dropped"] = self.dropped
        if len(self.texts) == KEPT_MAX:
            self.texts.pop(0)
            self.dropped += 1
        # Written down once: sent again, the text must be the same to be recognised.
        self.texts.append(json.dumps(reading))

    def hand_over(self, send):
        """Sends the oldest, again and again the same, until `send` says that it was taken; true when all are."""
        while self.texts:
            if not send(self.texts[0]):
                return False
            self.texts.pop(0)
        return True


def is_taken(status):
    """What an HTTP status means: 202 is on the gateway's disk. 400 and 413 will never be taken, so it may go."""
    return 200 <= status < 300 or status in (400, 413)
