"""`liotbchain device` and the example of a Raspberry Pi: what devices measure comes to the chain exactly once, through
real senders, receivers and a real broker, whatever is away meanwhile.
"""

import importlib
import json
import re
import signal
import stat
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager

import pytest

from gateway import BLOCKS, Gateway, away, payloads, records, wait_for_sealed
from mosquitto import Mosquitto
from program import BINARY, PATIENCE_S, ROOT, Program, Receiver, environment, run, wait_until

TOKEN = "0123456789abcdef0123"
EXAMPLE = ROOT / "examples/raspberry-pi/distance.py"


@pytest.fixture
def chain(tmp_path):
    """A receiver with a folder of its own."""
    folder = tmp_path / "receiver"
    folder.mkdir()
    with Receiver(folder, **BLOCKS) as receiver:
        yield receiver


@pytest.fixture
def gateway(tmp_path, chain):
    with Gateway(tmp_path / "gateway", chain.url) as gateway:
        yield gateway


def device(folder, to, *flags, **settings):
    """A run to its end. Returns it with what it said at its end."""
    done = run("device", "--to", to, *flags, "--json", folder=folder, settings=settings)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return done, events[-1] if events else None


def must_take(folder, to, *flags, **settings):
    done, end = device(folder, to, *flags, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert end["event"] == "end"
    assert end["sent"] == end["acknowledged"]
    return end


def running(folder, to, *flags):
    return Program("device", "--to", to, *flags, "--json", folder=folder)


@contextmanager
def gateway_at(url, folder, receiver_url):
    """A gateway that comes up at last where devices were told that it is."""
    gateway = Gateway(folder, receiver_url)
    gateway.address, gateway.url = url.removeprefix("http://"), url
    gateway.settings["SENDER_LISTEN"] = gateway.address
    with gateway:
        yield gateway


def acknowledged(program):
    lines = [line for line in program.stdout.splitlines() if line.endswith("}")]
    return json.loads(lines[-1]).get("acknowledged", 0) if lines else 0


def on_chain(receiver, count):
    """The readings on the chain, by device, once so many are in blocks."""
    wait_for_sealed(receiver, count)
    assert receiver.terminate() == 0
    by_device = defaultdict(list)
    for record in records(receiver.folder):
        by_device[record.device].append(record.reading)
    return by_device


def check_each_once_in_order(by_device, devices, each):
    """Each device counted on from where it began, and nothing is missing, twice or out of order."""
    assert len(by_device) == devices, sorted(by_device)
    for name, readings in by_device.items():
        counters = [reading["counter"] for reading in readings]
        assert counters == list(range(counters[0], counters[0] + each)), (name, counters)
        times = [reading["time"] for reading in readings]
        assert times == sorted(times)
        assert all(reading["device"] == name for reading in readings)


# A fleet by HTTP ---------------------------------------------------------------------------------------------------


def test_a_fleet_comes_to_the_chain(tmp_path, chain, gateway):
    end = must_take(tmp_path, gateway.url, "--count", 30, "--interval", 0.1, "--readings", 600, "--kind", "power")
    assert end["acknowledged"] == 600
    by_device = on_chain(chain, 600)
    check_each_once_in_order(by_device, 30, 20)
    assert set(by_device["power-7"][0]) == {"device", "power_w", "energy_wh", "counter", "time"}


def measured(readings):
    return [{name: value for name, value in reading.items() if name not in ("counter", "time")} for reading in readings]


def test_a_seed_measures_the_same_again(tmp_path, chain, gateway):
    for seed in (7, 7, 8):
        flags = ("--count", 5, "--interval", 0.05, "--readings", 50, "--kind", "temperature", "--seed", seed)
        must_take(tmp_path, gateway.url, *flags)
    for readings in on_chain(chain, 150).values():
        first, again, other = (measured(readings[start : start + 10]) for start in (0, 10, 20))
        assert first == again
        assert first != other


def test_a_later_run_uses_no_number_again(tmp_path, gateway):
    for _ in range(2):
        must_take(tmp_path, gateway.url, "--count", 5, "--interval", 0.01, "--readings", 100, "--seed", 1)
    assert gateway.status["queued"] == 200
    assert gateway.status["duplicates"] == 0


def test_devices_that_sign_have_keys_of_their_own_and_keep_them(tmp_path, chain, gateway):
    for _ in range(2):
        flags = ("--count", 4, "--interval", 0.05, "--readings", 12, "--kind", "gps", "--sign")
        must_take(tmp_path, gateway.url, *flags)
    wait_for_sealed(chain, 24)
    assert chain.terminate() == 0
    # Every signature is checked before it is exported.
    texts = [json.loads(payload) for payload in payloads(chain.folder)]
    assert all("latitude_deg" in text and "reading" not in text for text in texts)
    exported = run("chain", "export", "--out", "-", folder=chain.folder).stdout.splitlines()
    keys = defaultdict(set)
    for line in map(json.loads, exported):
        for transaction in line["transactions"] if line["type"] == "block" and line["height"] > 0 else ():
            keys[json.loads(transaction["payload"])["device"]].add(transaction["key_id"])
    assert len(keys) == 4
    assert all(len(of_device) == 1 for of_device in keys.values())
    assert len(set.union(*keys.values())) == 4
    secret = tmp_path / "data/device_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_gateway_may_come_later(tmp_path, chain):
    url = away()
    with running(tmp_path, url, "--count", 10, "--interval", 0.1, "--readings", 200) as devices:
        devices.wait_for_output(r'"waits_for":".*refused')
        with gateway_at(url, tmp_path / "gateway", chain.url):
            assert devices.wait() == 0, devices.output
            check_each_once_in_order(on_chain(chain, 200), 10, 20)


def test_a_gateway_that_is_killed_gets_each_reading_once(tmp_path, chain, gateway):
    flags = ("--count", 20, "--interval", 0.05, "--readings", 3000)
    with running(tmp_path, gateway.url, *flags) as devices:
        for _ in range(3):
            before = acknowledged(devices)
            wait_until("readings to be taken", lambda: acknowledged(devices) > before)
            devices.must_run()
            gateway.kill()
            gateway.restart()
        assert devices.wait() == 0, devices.output
    assert acknowledged(devices) == 3000
    check_each_once_in_order(on_chain(chain, 3000), 20, 150)


def test_a_full_gateway_is_waited_for(tmp_path, chain):
    url = away()
    with Gateway(tmp_path / "gateway", url, OUTBOX_SIZE_MAX=1 << 20) as gateway:
        with running(tmp_path, gateway.url, "--count", 50, "--interval", 0.01, "--readings", 10_000) as devices:
            devices.wait_for_output(r'"waits_for":"503')
            gateway.kill()
            gateway.settings["RECEIVER_URL"] = chain.url
            gateway.restart()
            assert devices.wait() == 0, devices.output
            check_each_once_in_order(on_chain(chain, 10_000), 50, 200)


def test_ctrl_c_ends_with_a_summary(tmp_path, gateway):
    with Program("device", "--to", gateway.url, "--count", 20, "--interval", 0.1, folder=tmp_path) as devices:
        devices.wait_for_output(r"(?m)^\d\d:\d\d:\d\dZ [\d,]+ taken, [1-9]")
        assert devices.interrupt() == 0, devices.output
    sent, taken = re.search(r"(?m)^([\d,]+) readings sent in .*: ([\d,]+) acknowledged", devices.stdout).groups()
    assert sent == taken
    assert gateway.status["queued"] == int(taken.replace(",", ""))


def test_what_was_not_taken_at_the_end_is_said(tmp_path):
    with running(tmp_path, away(), "--count", 2) as devices:
        devices.wait_for_output(r'"waits_for"')
        assert devices.interrupt() == 1, devices.output
    end = json.loads(devices.stdout.splitlines()[-1])
    assert end["event"] == "end"
    assert (end["sent"], end["acknowledged"], end["unanswered"]) == (2, 0, 2)


@pytest.mark.parametrize("token", [None, "another-token-0123456789"])
def test_a_gateway_with_a_token_wants_it(tmp_path, chain, token):
    with Gateway(tmp_path / "gateway", chain.url, API_TOKEN=TOKEN) as gateway:
        done, end = device(tmp_path, gateway.url, "--readings", 3, "--interval", 0.01, API_TOKEN=token)
        assert done.returncode == 1
        assert "401" in done.stderr and "API_TOKEN" in done.stderr
        assert not token or token not in done.stdout + done.stderr
        assert end["acknowledged"] == 0
        must_take(tmp_path, gateway.url, "--readings", 3, "--interval", 0.01, API_TOKEN=TOKEN)


def test_what_is_no_gateway_is_not_believed(tmp_path, chain):
    done, end = device(tmp_path, chain.url, "--readings", 3, "--interval", 0.01)
    assert done.returncode in (1, 2)
    assert "--to" in done.stderr
    assert end["acknowledged"] == 0


# By MQTT -----------------------------------------------------------------------------------------------------------


@contextmanager
def subscribed(tmp_path, chain, broker):
    with Gateway(tmp_path / "gateway", chain.url, MQTT_URL=broker.url) as gateway:
        gateway.wait_for_broker()
        yield gateway


def test_a_fleet_comes_by_a_broker(tmp_path, chain):
    with Mosquitto(tmp_path / "broker") as broker, subscribed(tmp_path, chain, broker):
        flags = ("--count", 30, "--interval", 0.1, "--readings", 600, "--kind", "humidity")
        must_take(tmp_path, broker.url, *flags)
        must_take(tmp_path, broker.url, "--count", 30, "--interval", 0.01, "--readings", 30, "--sign")
        wait_for_sealed(chain, 630)
        assert chain.terminate() == 0
        found = [json.loads(payload) for payload in payloads(chain.folder)]
        by_device = defaultdict(list)
        for record in found:
            if "reading" in record:
                by_device[record["device"]].append(record["reading"])
        check_each_once_in_order(by_device, 30, 20)
        assert sorted(it["device"] for it in found if "reading" not in it) == sorted(f"distance-{it}" for it in range(1, 31))


def test_a_broker_that_restarts_gets_again_what_it_did_not_acknowledge(tmp_path, chain):
    with Mosquitto(tmp_path / "broker") as broker, subscribed(tmp_path, chain, broker):
        flags = ("--count", 50, "--interval", 0.05, "--readings", 5000)
        with running(tmp_path, broker.url, *flags) as devices:
            for _ in range(3):
                before = acknowledged(devices)
                wait_until("readings to be taken", lambda: acknowledged(devices) > before)
                devices.must_run()
                broker.restart()
            assert devices.wait() == 0, devices.output
        check_each_once_in_order(on_chain(chain, 5000), 50, 100)


def test_what_no_gateway_has_subscribed_to_is_published_again(tmp_path, chain):
    """A broker acknowledges what nobody wants, and throws it away."""
    with Mosquitto(tmp_path / "broker") as broker:
        with running(tmp_path, broker.url, "--count", 10, "--interval", 0.1, "--readings", 100) as devices:
            devices.wait_for_output(r'"waits_for":"no gateway')
            with subscribed(tmp_path, chain, broker):
                assert devices.wait() == 0, devices.output
                check_each_once_in_order(on_chain(chain, 100), 10, 10)


def test_a_broker_wants_user_and_password(tmp_path, chain):
    flags = ("--readings", 3, "--interval", 0.01)
    user = {"MQTT_USER": "pi", "MQTT_PASSWORD": "a-secret"}
    with Mosquitto(tmp_path / "broker", users={"pi": "a-secret"}) as broker:
        with Gateway(tmp_path / "gateway", chain.url, MQTT_URL=broker.url, **user) as gateway:
            gateway.wait_for_broker()
            done, _ = device(tmp_path, broker.url, *flags, MQTT_USER="pi", MQTT_PASSWORD="wrong-one")
            assert done.returncode == 1
            assert "MQTT_PASSWORD" in done.stderr and "wrong-one" not in done.stderr
            must_take(tmp_path, broker.url, *flags, **user)


# Another program's output ------------------------------------------------------------------------------------------

LINES = b'{ "celsius" : 2.150e1 }\n\n-3.25\ncelsius 21\n{"celsius":1,"celsius":2}\n21.5\n21.5\n'


def pipe(folder, to, text, *flags):
    """Sends what another program prints."""
    return subprocess.run(
        [BINARY, "device", "--to", to, "--stdin", *flags],
        cwd=folder,
        env=environment({"DATA_DIR": folder / "data"}),
        input=text,
        capture_output=True,
        timeout=PATIENCE_S,
    )


def check_piped(chain, done):
    """The good lines are on the chain as they were, each once though two are the same; the others were told."""
    assert done.returncode == 1
    errors = done.stderr.decode()
    assert "line 4 " in errors, errors
    wait_for_sealed(chain, 4)
    assert chain.terminate() == 0
    texts = payloads(chain.folder)
    found = [text.partition('"reading":')[2] for text in texts]
    assert found == ['{ "celsius" : 2.150e1 }}', '{"value":-3.25}}', '{"value":21.5}}', '{"value":21.5}}']
    assert {json.loads(text)["device"] for text in texts} == {"oven-1"}


def test_lines_of_another_program_come_by_http(tmp_path, chain, gateway):
    done = pipe(tmp_path, gateway.url, LINES, "--device", "oven-1")
    # The gateway knows that a key may not stand twice.
    assert "line 5 is refused" in done.stderr.decode()
    check_piped(chain, done)


def test_lines_of_another_program_come_by_mqtt(tmp_path, chain):
    with Mosquitto(tmp_path / "broker") as broker, subscribed(tmp_path, chain, broker):
        lines = LINES.replace(b'{"celsius":1,"celsius":2}\n', b"\n")
        check_piped(chain, pipe(tmp_path, broker.url, lines, "--device", "oven-1"))


def test_lines_may_name_their_devices(tmp_path, chain, gateway):
    done = pipe(tmp_path, gateway.url, b'{"device":"a","v":1}\n{"device":"b","v":2}\n')
    assert done.returncode == 0, done.stderr
    assert {name: len(readings) for name, readings in on_chain(chain, 2).items()} == {"a": 1, "b": 1}


def test_lines_without_a_device_are_told(tmp_path):
    done = pipe(tmp_path, away(), b"21.5\n")
    assert done.returncode == 1
    assert b"--device" in done.stderr


# The example of a Raspberry Pi -------------------------------------------------------------------------------------


@contextmanager
def sensor(folder, *flags):
    """The example without hardware, as it would run on a Pi."""
    command = [sys.executable, EXAMPLE, "--device", "tank-1", "--state", folder / "state", "--simulate", *map(str, flags)]
    output = (folder / "sensor.out").open("ab")
    process = subprocess.Popen(command, cwd=folder, env=environment({}), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        output.close()


def check_sensor(chain, count):
    """Readings stand on the chain once and in order; the counter may skip numbers at a restart."""
    readings = on_chain(chain, count)["tank-1"]
    counters = [reading["counter"] for reading in readings]
    assert len(counters) == count
    assert counters == sorted(set(counters))
    assert all(2 <= reading["distance_cm"] <= 400 for reading in readings)


def test_the_example_of_a_pi_comes_to_the_chain(tmp_path, chain, gateway):
    with sensor(tmp_path, "--url", gateway.url, "--interval", 0.01, "--readings", 250) as process:
        assert process.wait(PATIENCE_S) == 0
    check_sensor(chain, 250)


def test_the_example_of_a_pi_keeps_what_it_could_not_send(tmp_path, chain):
    url = away()
    backlog = tmp_path / "state/backlog.ndjson"
    kept = lambda: backlog.read_bytes().count(b"\n") if backlog.exists() else 0
    with sensor(tmp_path, "--url", url, "--interval", 0.01) as process:
        wait_until("a backlog", lambda: kept() > 150)
        process.send_signal(signal.SIGKILL)
        process.wait()
    waiting = kept()
    with open(backlog, "ab") as file:
        file.write(b'{"distance_cm": 1')  # The power failed in the middle of a line.
    with gateway_at(url, tmp_path / "gateway", chain.url):
        with sensor(tmp_path, "--url", url, "--interval", 0.01, "--readings", 20) as process:
            assert process.wait(PATIENCE_S) == 0
        assert kept() == 0
        check_sensor(chain, waiting + 20)


def test_the_example_of_a_pi_says_what_is_wrong(tmp_path, chain):
    with Gateway(tmp_path / "gateway", chain.url, API_TOKEN=TOKEN) as gateway:
        with sensor(tmp_path, "--url", gateway.url, "--interval", 0.01, "--readings", 5) as process:
            assert process.wait(PATIENCE_S) == 1
    assert "API_TOKEN" in (tmp_path / "sensor.out").read_text()


# The example of an ESP32 -------------------------------------------------------------------------------------------


def test_the_readings_of_an_esp32_are_taken_once(tmp_path, chain, gateway, monkeypatch):
    """What needs no board: numbers go on after a restart, and a text that is sent again makes no second record."""
    monkeypatch.syspath_prepend(ROOT / "examples/esp32")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reading = importlib.import_module("reading")
    statuses = []

    def send(text):
        answer = gateway.post("/readings", data=text, headers={"Content-Type": "application/json"})
        statuses.append(answer.status_code)
        # Of every second answer the board hears nothing.
        return reading.is_taken(answer.status_code) and len(statuses) % 2 == 0

    for _ in range(2):
        counter, backlog = reading.Counter(str(tmp_path / "counter.txt")), reading.Backlog()
        for _ in range(5):
            backlog.add("bench-1", counter.take(), {"volts": 1.25})
            while not backlog.hand_over(send):
                pass
    assert statuses == [202] * 20
    counters = [it["counter"] for it in on_chain(chain, 10)["bench-1"]]
    assert counters == [*range(5), *range(reading.RESERVED, reading.RESERVED + 5)]


def test_an_esp32_that_is_alone_too_long_says_what_is_missing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples/esp32")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reading = importlib.import_module("reading")
    backlog = reading.Backlog()
    for number in range(reading.KEPT_MAX + 3):
        backlog.add("bench-1", number, {})
    sent = []
    assert backlog.hand_over(lambda text: sent.append(json.loads(text)) or True)
    assert [it["counter"] for it in sent] == list(range(3, reading.KEPT_MAX + 3))
    assert sent[-1]["dropped"] == 2


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/*.py")), ids=lambda path: path.name)
def test_the_examples_are_python(path):
    compile(path.read_text(), path, "exec")
