"""The outage: the receiver is away for a minute (10 with LIOTBCHAIN_LONG=1) while 50 devices go on measuring, and all else
fails meanwhile. What a device saw acknowledged is on the chain afterwards, exactly once and in its order.

A device is acknowledged by 202 over HTTP, and by its broker's PUBACK over MQTT. So what the broker took is part of the
promise, and the broker keeps it on its disk for the gateway's session.
"""

import json
import os
import random
import threading
import time

import requests

from gateway import BLOCKS, Gateway, check_exactly_once_in_order, records, wait_for_sealed
from mosquitto import Mosquitto
from program import PATIENCE_S, Receiver

OUTAGE_S = 600 if os.environ.get("LIOTBCHAIN_LONG") == "1" else 60
# The receiver is there at the start, and back before the end: the first and the last seconds are where others lose.
BEFORE_S, AFTER_S = 3, 2
LOAD_S = BEFORE_S + OUTAGE_S + AFTER_S
# Half of 500 readings a second come by each road.
DEVICES = 25
PER_DEVICE_S = 10
LIST = 5
GATEWAY_KILLS, BROKER_RESTARTS = 5, 2


class Device(threading.Thread):
    """Counts its readings from 0, and sends each until it is acknowledged. `counted` is how many are."""

    def __init__(self, name):
        super().__init__(name=name, daemon=True)
        self.counted = 0
        self.fault = None

    def run(self):
        try:
            self.measure(time.monotonic())
        except BaseException as fault:
            self.fault = fault

    def readings(self, count):
        numbers = range(self.counted, self.counted + count)
        self.counted += count
        return [{"counter": number, "celsius": 20 + number % 7} for number in numbers]


class HttpDevice(Device):
    """Sends a list at a time. One whose answer did not come is sent again as it was."""

    def __init__(self, name, url):
        super().__init__(name)
        self.url = url

    def measure(self, started):
        with requests.Session() as session:
            session.trust_env = False
            for number in range(LOAD_S * PER_DEVICE_S // LIST):
                time.sleep(max(0, started + number * LIST / PER_DEVICE_S - time.monotonic()))
                self.deliver(session, json.dumps(self.readings(LIST)))

    def deliver(self, session, body):
        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/readings?device={self.name}"
        while True:
            try:
                answer = session.post(url, data=body, headers=headers, timeout=PATIENCE_S)
            except requests.Timeout:
                raise
            except requests.RequestException:
                time.sleep(0.05)  # killed in the middle, or not up again yet
                continue
            if answer.status_code == 202:
                return
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 0
            time.sleep(0.2)


class MqttDevice(Device):
    """Publishes with QoS 1, and the next when the broker acknowledged the one before.

    With more on their way, the library sends again what was not acknowledged, but lets new ones overtake it.
    """

    def __init__(self, name, broker, version):
        super().__init__(name)
        self.device = broker.device(name, version)
        self.device.client.on_publish = self.note
        self.acknowledged = threading.Event()
        self.codes = set()

    def note(self, _client, _data, _number, code, _properties):
        self.codes.add(code.value)
        self.acknowledged.set()

    def measure(self, started):
        with self.device:
            for number in range(LOAD_S * PER_DEVICE_S):
                time.sleep(max(0, started + number / PER_DEVICE_S - time.monotonic()))
                [reading] = self.readings(1)
                self.acknowledged.clear()
                self.device.send(f"liotbchain/v1/test/{self.name}/up", json.dumps(reading))
                assert self.acknowledged.wait(PATIENCE_S), "the broker did not acknowledge a reading"
        # 16 says that nobody subscribed: the broker would have thrown the reading away.
        assert self.codes == {0}, self.codes


class Load:
    """All devices, until the block ends; whatever went wrong in one of them fails the test."""

    def __init__(self, gateway, broker):
        self.devices = [HttpDevice(f"http-{number}", gateway.url) for number in range(DEVICES)]
        self.devices += [MqttDevice(f"mqtt-{number}", broker, [5, 3][number % 2]) for number in range(DEVICES)]

    def __enter__(self):
        for device in self.devices:
            device.start()
            # Devices do not measure all at once.
            time.sleep(1 / PER_DEVICE_S / len(self.devices))
        return self

    def __exit__(self, *_):
        for device in self.devices:
            device.join(LOAD_S + PATIENCE_S)
        for device in self.devices:
            assert device.fault is None, f"{device.name}: {device.fault!r}"
            assert not device.is_alive(), f"{device.name} is not done"

    @property
    def counted(self):
        return {device.name: device.counted for device in self.devices}


def test_an_outage_loses_nothing_and_keeps_the_order(tmp_path):
    # A broker that wrote its whole file at each change, as for other tests, would do nothing else here.
    at_times = ["autosave_on_changes false", "autosave_interval 10"]
    with Receiver(tmp_path, **BLOCKS) as receiver, Mosquitto(tmp_path / "broker", settings=at_times) as broker:
        with Gateway(tmp_path / "gateway", receiver.url, MQTT_URL=broker.url) as gateway:
            gateway.wait_for_broker()
            with Load(gateway, broker) as load:
                time.sleep(BEFORE_S)
                receiver.kill()
                time_up = time.monotonic() + OUTAGE_S
                for disturb in disturbances(gateway, broker):
                    disturb()
                time.sleep(max(0, time_up - time.monotonic()))
                assert gateway.waiting > 0
                receiver.restart()
            sent = load.counted
            assert sum(sent.values()) == 2 * DEVICES * LOAD_S * PER_DEVICE_S
            wait_for_sealed(receiver, sum(sent.values()))
            gateway.wait_until_empty()
            assert gateway.terminate() == 0
        assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), sent)


def disturbances(gateway, broker):
    """Kills of the gateway and restarts of the broker, in any order and at any moment, spread over the outage."""

    def kill_gateway():
        gateway.kill()
        # Long enough that the broker has to keep what comes for it, or none at all.
        time.sleep(random.choice([0, 1, 2]))
        gateway.restart()

    events = [kill_gateway] * GATEWAY_KILLS + [broker.restart] * BROKER_RESTARTS
    random.shuffle(events)
    span_s = OUTAGE_S / len(events)
    started = time.monotonic()
    for number, event in enumerate(events):
        time.sleep(max(0, started + (number + random.random() / 2) * span_s - time.monotonic()))
        yield event
