#!/usr/bin/env python3
"""Measures a distance with an HC-SR04 on a Raspberry Pi and hands each reading to a liotbchain sender (a gateway).

Needs Python 3.9 or later; on a Pi also gpiozero, which Raspberry Pi OS brings along. With --simulate it needs no
hardware. What the gateway has not taken is kept in a file, so that neither an outage of the gateway nor of the power
loses a reading; the counter of each makes sure that none is stored twice.
"""

import argparse
import json
import math
import os
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# The farthest that the sensor sees.
RANGE_CM = 400
# Readings of one request. A backlog drains a hundred times faster than it grew.
READINGS_MAX = 100
PAUSE_S, PAUSE_MAX_S = 1, 60


class Misconfigured(Exception):
    """The gateway will not take anything as things stand; trying again does not help."""


def hardware(trigger_pin, echo_pin):
    """Returns a function that measures. The pins are GPIO numbers, not places on the header."""
    # Only here, so that the simulation runs on any machine.
    from gpiozero import DistanceSensor

    # Each value is the median of 5 pulses: a single echo is easily lost.
    sensor = DistanceSensor(echo=echo_pin, trigger=trigger_pin, max_distance=RANGE_CM / 100, queue_len=5)
    return lambda: sensor.distance * 100


def simulation():
    """Returns a function that measures what a water tank might show."""
    started = time.monotonic()

    def measure():
        course = 100 + 30 * math.sin((time.monotonic() - started) / 600)
        return RANGE_CM if random.random() < 0.005 else course + random.gauss(0, 0.3)

    return measure


class Backlog:
    """Readings that the gateway has not acknowledged, oldest first, in a file with a line each.

    A line is on the disk before the reading is handed over for the first time. The file is emptied when all of it was
    taken. A line that the power cut in half is left out.
    """

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.readings = []
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                self.readings.append((json.loads(line)["counter"], line.decode()))
            except (ValueError, KeyError, TypeError):
                print(f"{path}: a damaged line is left out", file=sys.stderr)
        self.write_anew()

    def write_anew(self):
        unfinished = self.path.with_suffix(".new")
        with open(unfinished, "wb") as file:
            file.writelines(text.encode() + b"\n" for _, text in self.readings)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)
        self.file = open(self.path, "ab")

    def add(self, counter, text):
        self.file.write(text.encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.readings.append((counter, text))

    def take_off(self, count):
        del self.readings[:count]
        if not self.readings:
            self.file.truncate(0)

    def oldest(self):
        return [text for _, text in self.readings[:READINGS_MAX]]


class Counter:
    """A number for each reading that is never used twice, whatever the clock says and however often the power fails.

    Numbers are reserved in the file a hundred at a time, which spares the SD card; a start skips what was reserved.
    """

    def __init__(self, path):
        self.path = path
        try:
            self.next = int(path.read_text())
        except FileNotFoundError:
            self.next = 0
        self.reserved = self.next

    def take(self):
        if self.next == self.reserved:
            self.reserved += 100
            unfinished = self.path.with_suffix(".new")
            with open(unfinished, "w") as file:
                file.write(str(self.reserved))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.path)
        self.next += 1
        return self.next - 1


class Gateway:
    """A liotbchain sender."""

    def __init__(self, url, device, token):
        self.url = f"{url.rstrip('/')}/readings?{urllib.parse.urlencode({'device': device})}"
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        # A proxy from the environment is of no use on the way to a machine of one's own.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def hand_over(self, texts):
        """Posts readings. Returns how many are done with, how many of these were taken, and why no more were."""
        body = "[" + ",".join(texts) + "]"
        request = urllib.request.Request(self.url, body.encode(), self.headers)
        try:
            with self.opener.open(request, timeout=30) as answer:
                taken = len(json.load(answer)["items"])
        except urllib.error.HTTPError as error:
            with error:
                why = f"{error.code}: {error.read(2000).decode(errors='replace')}"
            if error.code == 400 and len(texts) == 1:
                print(f"refused and left out: {texts[0]}: {why}", file=sys.stderr)
                return 1, 0, None
            if error.code == 400:
                # One at a time shows which one it is.
                return self.hand_over(texts[:1])
            if error.code in (401, 403, 404, 421):
                raise Misconfigured(f"{self.url} answers {why}") from error
            return 0, 0, why
        except (OSError, ValueError, KeyError, TypeError) as error:
            return 0, 0, str(error)
        if taken != len(texts):
            return 0, 0, f"{taken} of {len(texts)} readings were acknowledged"
        return taken, taken, None


class Measuring(threading.Thread):
    """Puts a reading into the backlog at each interval, whether or not the gateway answers."""

    def __init__(self, measure, options, backlog, counter):
        super().__init__(daemon=True)
        self.measure, self.interval_s, self.readings_max = measure, options.interval, options.readings
        self.backlog, self.counter = backlog, counter
        # Held by whoever touches the backlog.
        self.changed = threading.Condition()
        self.ended = threading.Event()
        self.is_complete, self.fault = False, None

    def run(self):
        try:
            self.measure_until_ended()
        except Exception as error:  # Of any library; whoever waits must hear of it.
            self.fault = error
        with self.changed:
            self.is_complete = True
            self.changed.notify()

    def measure_until_ended(self):
        due = time.monotonic()
        made = 0
        while not self.ended.is_set() and (self.readings_max is None or made < self.readings_max):
            number = self.counter.take()
            distance = round(self.measure(), 1)
            reading = {"distance_cm": distance, "counter": number, "time": round(time.time(), 3)}
            with self.changed:
                self.backlog.add(number, json.dumps(reading))
                self.changed.notify()
            made += 1
            due += self.interval_s
            self.ended.wait(max(0, due - time.monotonic()))


def hand_over_until_complete(gateway, measuring):
    """Hands the backlog over until there will be no more, or somebody asked to stop and the gateway is away."""
    backlog = measuring.backlog
    taken_in_all, pause_s, is_waiting = 0, PAUSE_S, False
    while True:
        with measuring.changed:
            measuring.changed.wait_for(lambda: backlog.readings or measuring.is_complete)
            texts = backlog.oldest()
        if not texts:
            return taken_in_all
        done, taken, problem = gateway.hand_over(texts)
        with measuring.changed:
            backlog.take_off(done)
        taken_in_all += taken
        if problem:
            if not is_waiting:
                print(f"waiting: {problem}", file=sys.stderr, flush=True)
            is_waiting = True
            # Not all devices come back at the same moment.
            if measuring.ended.wait(pause_s * random.uniform(0.5, 1)):
                return taken_in_all
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
        else:
            pause_s = PAUSE_S
            if is_waiting:
                print("the gateway takes readings again", file=sys.stderr, flush=True)
            is_waiting = False


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:5000"), help="the gateway")
    parser.add_argument("--device", default=os.environ.get("DEVICE", os.uname().nodename), help="name of this device")
    parser.add_argument("--interval", type=float, default=float(os.environ.get("INTERVAL", 10)), help="seconds")
    parser.add_argument("--trigger", type=int, default=23, help="GPIO number of the sensor's TRIG")
    parser.add_argument("--echo", type=int, default=24, help="GPIO number of the sensor's ECHO")
    state = os.environ.get("STATE_DIRECTORY", "distance-state")
    parser.add_argument("--state", type=Path, default=Path(state), help="folder of the backlog and the counter")
    parser.add_argument("--readings", type=int, help="stop after so many")
    parser.add_argument("--simulate", action="store_true", help="measure nothing: make values up")
    return parser.parse_args()


def main():
    options = arguments()
    measure = simulation() if options.simulate else hardware(options.trigger, options.echo)
    # The token stands in the environment, where other users do not see it.
    gateway = Gateway(options.url, options.device, os.environ.get("API_TOKEN"))
    backlog = Backlog(options.state / "backlog.ndjson")
    counter = Counter(options.state / "counter")
    measuring = Measuring(measure, options, backlog, counter)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: measuring.ended.set())
    if backlog.readings:
        print(f"{len(backlog.readings)} readings from before wait for the gateway", flush=True)
    measuring.start()
    try:
        taken = hand_over_until_complete(gateway, measuring)
    except Misconfigured as error:
        sys.exit(f"{error}\nset GATEWAY_URL to the address of the sender, and API_TOKEN to its token")
    print(f"{taken} readings taken by {options.url}, {len(backlog.readings)} kept for the next start", flush=True)
    if measuring.fault:
        sys.exit(f"the sensor cannot be read: {measuring.fault!r}")


if __name__ == "__main__":
    main()
