"""Readings by way of a real Mosquitto, in both versions of MQTT; and by way of brokers that lie."""

import json
import re
from collections import Counter

import pytest

import liar
from gateway import (
    BLOCKS,
    MIB,
    Gateway,
    away,
    check_exactly_once_in_order,
    numbered,
    payloads,
    receiver_at,
    records,
    wait_for_sealed,
)
from liar import Liar
from mosquitto import Mosquitto, make_certificates
from program import Receiver, wait_until

pytestmark = pytest.mark.parametrize("version", ["5", "3.1.1"])

CLIENT_ID = "liotbchain-test"
STATUS = f"liotbchain/v1/default/{CLIENT_ID}/status"
SECRET = "geheim-7f3a"


class MqttGateway(Gateway):
    def __init__(self, folder, receiver_url, broker_url, version, **settings):
        mqtt = {"MQTT_URL": broker_url, "MQTT_VERSION": version, "MQTT_CLIENT_ID": CLIENT_ID}
        super().__init__(folder, receiver_url, **(mqtt | settings))

    @property
    def mqtt(self):
        return self.status["mqtt"]

    def wait_for(self, what, condition):
        """Waits until the status of the MQTT client meets a condition, and returns it."""
        return wait_until(what, lambda: (status := self.mqtt) and condition(status) and status)

    def wait_for_error(self, pattern):
        return self.wait_for(f"an error like {pattern!r}", lambda it: re.search(pattern, it["last_error"] or ""))

    def wait_for_taken(self, count):
        return self.wait_for(f"{count} readings", lambda it: it["taken"] >= count)


def device(broker, version, name="device", **options):
    return broker.device(name, 5 if version == "5" else 3, **options)


def up(name):
    return f"liotbchain/v1/test/{name}/up"


def test_the_bytes_of_a_device_are_on_the_chain(tmp_path, version):
    texts = {
        up("pi-1"): ' {"t" : 21.50,  "unit":"°C"}\n',
        up("pi 2"): '{"t":1e2,"big":9007199254740993}',
        "tele/plug/SENSOR": '{"ENERGY":{"Power":7}}',
    }
    topics = "liotbchain/v1/+/+/up=4,tele/+/SENSOR=2"
    with Mosquitto(tmp_path / "broker") as broker, Receiver(tmp_path, **BLOCKS) as receiver:
        with MqttGateway(tmp_path / "gateway", receiver.url, broker.url, version, MQTT_TOPICS=topics) as gateway:
            gateway.wait_for_broker()
            with device(broker, version) as client:
                for topic, text in texts.items():
                    client.publish(topic, text)
            wait_for_sealed(receiver, len(texts))
            status = gateway.mqtt
            assert (status["received"], status["taken"], status["duplicates"]) == (3, 3, 0)
        assert receiver.terminate() == 0
    signed = "".join(payloads(tmp_path))
    for topic, text in texts.items():
        assert f'{{"device":"{topic.split("/")[-2]}","received_ms":' in signed
        assert f',"reading":{text.strip()}}}' in signed


def test_many_devices_at_once_keep_their_order(tmp_path, version):
    sent = {f"device-{number}": 500 for number in range(4)}
    with Mosquitto(tmp_path / "broker") as broker, Receiver(tmp_path, **BLOCKS) as receiver:
        with MqttGateway(tmp_path / "gateway", receiver.url, broker.url, version) as gateway:
            gateway.wait_for_broker()
            with device(broker, version) as client:
                published = [
                    client.send(up(name), json.dumps(reading))
                    for reading in numbered(range(500))
                    for name in sent
                ]
                for one in published:
                    one.wait_for_publish(60)
            wait_for_sealed(receiver, sum(sent.values()))
            assert gateway.mqtt["withheld"] == 0
        assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), sent)


def test_the_broker_keeps_what_comes_while_the_sender_is_away(tmp_path, version):
    with Mosquitto(tmp_path / "broker") as broker, Receiver(tmp_path, **BLOCKS) as receiver:
        with MqttGateway(tmp_path / "gateway", receiver.url, broker.url, version) as gateway:
            gateway.wait_for_broker()
            gateway.kill()
            publish_all(broker, version, "pi", range(50))
            broker.restart()
            gateway.restart()
            gateway.wait_for_taken(50)
            # A broker that is gone for a while is found again.
            broker.stop()
            gateway.wait_for("a lost connection", lambda it: not it["connected"] and it["last_error"])
            broker.start()
            gateway.wait_for_broker()
            publish_all(broker, version, "pi", range(50, 100))
            wait_for_sealed(receiver, 100)
            assert gateway.mqtt["last_error"] is None
        assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), {"pi": 100})


def publish_all(broker, version, name, numbers, padding=0):
    with device(broker, version, name) as client:
        published = [client.send(up(name), json.dumps(reading)) for reading in numbered(numbers, padding)]
        for one in published:
            one.wait_for_publish(60)
            assert one.is_published()


def test_a_full_queue_acknowledges_nothing_until_there_is_room(tmp_path, version):
    """Neither a restart of the broker meanwhile nor one of the sender loses what is withheld, or makes it two."""
    with Mosquitto(tmp_path / "broker") as broker:
        limits = {"OUTBOX_SIZE_MAX": MIB}
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, **limits) as gateway:
            gateway.wait_for_broker()
            publish_all(broker, version, "pi", range(100), padding=20_000)
            status = gateway.wait_for("withheld messages", lambda it: it["withheld"] > 0)
            assert "the queue is full" in status["last_error"]
            taken = status["taken"]
            assert 0 < taken < 100
            assert acknowledged(broker) == taken
            broker.restart()
            gateway.wait_for_broker()
            gateway.wait_for("withheld messages", lambda it: it["withheld"] > 0)
            gateway.kill()
            gateway.restart()
            gateway.wait_for("withheld messages", lambda it: it["withheld"] > 0)
            with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
                wait_for_sealed(receiver, 100)
                status = gateway.wait_for("no withheld message", lambda it: it["withheld"] == 0)
                assert status["last_error"] is None
                assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), {"pi": 100})


def acknowledged(broker):
    return len(re.findall(f"Received PUBACK from {CLIENT_ID} ", broker.log))


def test_a_broker_that_forgets_what_is_withheld_loses_none_of_it(tmp_path, version):
    """It acknowledged it to the device, delivered it, lost its memory in a power cut, and says so."""
    with Mosquitto(tmp_path / "broker") as broker:
        limits = {"OUTBOX_SIZE_MAX": MIB}
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, **limits) as gateway:
            gateway.wait_for_broker()
            publish_all(broker, version, "pi", range(100), padding=20_000)
            status = gateway.wait_for("withheld messages", lambda it: it["withheld"] > 0)
            here = status["taken"] + status["withheld"]
            broker.kill()
            broker.forget()
            gateway.wait_for("a lost connection", lambda it: not it["connected"])
            broker.start()
            gateway.wait_for_broker()
            with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
                wait_for_sealed(receiver, here)
                assert gateway.mqtt["withheld"] == 0
                assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), {"pi": here})


def test_a_repetition_is_one_record_where_the_device_tells_readings_apart(tmp_path, version):
    with Mosquitto(tmp_path / "broker") as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            gateway.wait_for_broker()
            with device(broker, version) as client:
                for _ in range(3):
                    client.publish(up("a"), '{"counter":7,"t":1}')
                    client.publish(up("b"), '{"reading_id":"x","t":1}')
                    client.publish(up("c"), '{"t":1}')
                    if version == "5":
                        client.publish(up("d"), '{"t":1}', UserProperty=("reading_id", "y"))
            new, all_of_them = (6, 12) if version == "5" else (5, 9)
            status = gateway.wait_for("all messages", lambda it: it["received"] == all_of_them)
            status = gateway.wait_for_taken(new)
            assert (status["taken"], status["duplicates"]) == (new, all_of_them - new)


def test_unusable_messages_are_counted_and_do_not_come_again(tmp_path, version):
    """They could never be stored: without an acknowledgement they would stand before all others for ever."""
    with Mosquitto(tmp_path / "broker") as broker:
        topics = "liotbchain/v1/+/+/up=4,tele/#=2"
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, MQTT_TOPICS=topics) as gateway:
            gateway.wait_for_broker()
            with device(broker, version) as client:
                for payload in ["21.5 °C", "", '{"t":1,"t":2}', b"\xff"]:
                    client.publish(up("pi"), payload)
                client.publish(up("pi"), '{"t":"' + "x" * MIB + '"}')
                client.publish("tele", "{}")
                client.publish(up("pi"), '{"t":1}')
            status = gateway.wait_for_taken(1)
            assert status["unusable"].pop("topic") == 1
            assert status["unusable"].pop("too_large") == 1
            assert sum(status["unusable"].values()) == 4
            assert status["received"] == 7
            wait_until("acknowledgements", lambda: acknowledged(broker) == 7)
            warnings = gateway.stderr.count("is acknowledged and not stored")
            assert 0 < warnings <= 6
            gateway.kill()
            gateway.restart()
            gateway.wait_for_broker()
            with device(broker, version) as client:
                client.publish(up("pi"), '{"t":2}')
            status = gateway.wait_for_taken(1)
            assert (status["received"], status["unusable"]) == (1, {})


def test_a_retained_message_is_a_reading_once(tmp_path, version):
    """What is published with the flag while the sender is subscribed is taken, then and only then."""
    with Mosquitto(tmp_path / "broker") as broker:
        with device(broker, version) as client:
            client.publish(up("old"), '{"t":1}', retain=True)
            with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
                gateway.wait_for_broker()
                client.publish(up("new"), '{"t":2}', retain=True)
                gateway.wait_for_taken(1)
                gateway.kill()
                client.publish(up("away"), '{"t":3}', retain=True)
                gateway.restart()
                gateway.wait_for_broker()
                client.publish(up("last"), '{"t":4}')
                status = gateway.wait_for_taken(2)
                assert (status["taken"], status["duplicates"]) == (2, 0)
                # Version 5 can ask the broker not to send them.
                assert status["unusable"] == ({} if version == "5" else {"retained": 3})
                assert gateway.waiting == 3


def test_the_broker_tells_whether_the_sender_is_there(tmp_path, version):
    with Mosquitto(tmp_path / "broker") as broker, device(broker, version) as client:
        client.watch("liotbchain/v1/+/+/status")
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            client.wait_for(STATUS, b"online")
            gateway.kill()
            client.wait_for(STATUS, b"offline")
            gateway.restart()
            client.wait_for(STATUS, b"online")
            assert gateway.terminate() == 0
            client.wait_for(STATUS, b"offline")
        # It is retained.
        with device(broker, version, "late") as late:
            late.watch(STATUS)
            late.wait_for(STATUS, b"offline")


def test_by_tls_with_a_password(tmp_path, version):
    certificates = make_certificates(tmp_path / "tls")
    users = {"gateway": SECRET, "pi": "other"}
    with Mosquitto(tmp_path / "broker", users=users, certificates=certificates) as broker:
        login = {"MQTT_USER": "gateway", "MQTT_PASSWORD": SECRET, "MQTT_CA_FILE": certificates.authority}
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, **login) as gateway:
            gateway.wait_for_broker()
            with device(broker, version, user="pi", password="other") as client:
                client.publish(up("pi"), '{"t":1}')
            gateway.wait_for_taken(1)
            assert gateway.mqtt["url"] == broker.url
            assert gateway.terminate() == 0
            assert SECRET not in gateway.output


def test_the_system_s_certificates_are_used_without_a_file(tmp_path, version):
    certificates = make_certificates(tmp_path / "tls")
    with Mosquitto(tmp_path / "broker", certificates=certificates) as broker:
        # So a system is told whom to trust.
        system = {"SSL_CERT_FILE": certificates.authority}
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, **system) as gateway:
            gateway.wait_for_broker()


def test_what_is_wrong_is_said_with_its_cure_and_not_for_ever(tmp_path, version):
    certificates, others = make_certificates(tmp_path / "tls"), make_certificates(tmp_path / "others")
    with Mosquitto(tmp_path / "broker", users={"gateway": SECRET}, certificates=certificates) as broker:
        right = {"MQTT_USER": "gateway", "MQTT_PASSWORD": SECRET, "MQTT_CA_FILE": certificates.authority}
        mistakes = [
            ({"MQTT_PASSWORD": SECRET + "x"}, "check MQTT_USER and MQTT_PASSWORD"),
            ({"MQTT_CA_FILE": others.authority}, "set MQTT_CA_FILE to"),
            ({"MQTT_URL": broker.url.replace("localhost", "127.0.0.1")}, "MQTT_URL must name the host"),
            ({"MQTT_URL": broker.url.replace("mqtts", "mqtt"), "MQTT_CA_FILE": None}, "needs mqtts://"),
            ({"MQTT_URL": away().replace("http", "mqtt"), "MQTT_CA_FILE": None}, "check that it runs"),
        ]
        for number, (wrong, error) in enumerate(mistakes):
            folder = tmp_path / f"gateway-{number}"
            with MqttGateway(folder, away(), broker.url, version, **(right | wrong)) as gateway:
                gateway.wait_for_error(error)
                assert not gateway.mqtt["connected"]
                if "MQTT_PASSWORD" in wrong:
                    wait_until("more attempts", lambda: broker.log.count("New connection from") > 4)
                assert gateway.terminate() == 0
                assert gateway.output.count(error) == 1, gateway.output
                assert SECRET not in gateway.output


def test_a_web_server_is_no_broker(tmp_path, version):
    with Receiver(tmp_path) as receiver:
        url = receiver.url.replace("http", "mqtt")
        with MqttGateway(tmp_path / "gateway", receiver.url, url, version) as gateway:
            gateway.wait_for_error("is no MQTT broker")


def test_what_the_user_may_not_read_is_said(tmp_path, version):
    """The other topics are taken all the same."""

    def grant(kind, body):
        if kind == liar.CONNECT:
            return liar.connack(version, False)
        if kind == liar.SUBSCRIBE:
            codes = bytes([1, 0x87 if version == "5" else 0x80])
            answer = liar.packet(liar.SUBACK, body[:2] + (b"\0" if version == "5" else b"") + codes)
            return answer + liar.publish(version, 9, up("pi"), b'{"t":1}')
        return b""

    topics = "liotbchain/v1/+/+/up=4,secret/+=2"
    with Liar(grant) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, MQTT_TOPICS=topics) as gateway:
            gateway.wait_for_taken(1)
            status = gateway.wait_for_error('refuses the subscription to "secret/\\+"')
            assert status["connected"]


def test_a_broker_that_grants_nothing_is_asked_again(tmp_path, version):
    asked = []

    def refuse_twice(kind, body):
        if kind == liar.CONNECT:
            return liar.connack(version, True)
        if kind == liar.SUBSCRIBE:
            asked.append(body)
            refusal = 0x87 if version == "5" else 0x80
            return liar.suback(version, body, refusal if len(asked) <= 2 else 1)
        return b""

    with Liar(refuse_twice) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            gateway.wait_for_broker()
            assert len(asked) == 3
            assert gateway.mqtt["last_error"] is None
            assert "allow MQTT_USER to read it" in gateway.output


def test_the_subscription_is_made_whatever_the_broker_says_it_remembers(tmp_path, version):
    """Says that it remembers the session, and sends only to who subscribed on this connection."""

    def forgetful(kind, body):
        if kind == liar.CONNECT:
            return liar.connack(version, True)
        if kind == liar.SUBSCRIBE:
            return liar.suback(version, body, 1) + liar.publish(version, 1, up("pi"), b'{"counter":1}')
        return b""

    with Liar(forgetful) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            gateway.wait_for_taken(1)
            broker.hang_up()
            gateway.wait_for("a repetition", lambda it: it["duplicates"] == 1)


def test_what_comes_again_with_another_packet_id_is_acknowledged_by_that(tmp_path, version):
    """The broker hangs up before it reads the acknowledgement, and sends the message again as another."""
    acknowledged_ids = []
    connections = Counter()

    def renumber(kind, body):
        if kind == liar.CONNECT:
            connections["made"] += 1
            number = connections["made"]
            message = liar.publish(version, 40 + number, up("pi"), b'{"counter":1}', again=number > 1)
            return liar.connack(version, True) + message
        if kind == liar.PUBACK:
            acknowledged_ids.append(int.from_bytes(body[:2], "big"))
            if connections["made"] < 3:
                raise OSError("hangs up")
        if kind == liar.SUBSCRIBE:
            return liar.suback(version, body, 1)
        return b""

    with Liar(renumber) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            status = gateway.wait_for("three deliveries", lambda it: it["taken"] + it["duplicates"] == 3)
            assert (status["taken"], status["duplicates"]) == (1, 2)
            wait_until("acknowledgements", lambda: len(acknowledged_ids) == 3)
            assert acknowledged_ids == [41, 42, 43]


def test_a_broker_that_never_answers_the_subscription_is_left(tmp_path, version):
    subscriptions = []

    def silent(kind, body):
        if kind == liar.CONNECT:
            return liar.connack(version, True)
        if kind == liar.SUBSCRIBE:
            subscriptions.append(body)
            return liar.suback(version, body, 1) if len(subscriptions) > 1 else b""
        return b""

    with Liar(silent) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            gateway.wait_for_broker()
            assert len(subscriptions) == 2


def test_a_full_queue_does_not_hide_that_the_sender_is_there(tmp_path, version):
    """More comes before the answer to the subscription than fits anywhere, so that the answer is not read."""
    statuses = []

    def overflow(kind, body):
        if kind == liar.CONNECT:
            payload = b'{"t":"' + b"x" * 60_000 + b'"}'
            messages = [liar.publish(version, number, up("pi"), payload) for number in range(1, 61)]
            return liar.connack(version, True) + b"".join(messages)
        if kind == liar.SUBSCRIBE:
            return liar.suback(version, body, 1)
        if kind == liar.PUBLISH:
            statuses.append(body)
        return b""

    with Liar(overflow) as broker:
        limits = {"OUTBOX_SIZE_MAX": MIB}
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version, **limits) as gateway:
            status = gateway.wait_for("withheld messages", lambda it: it["connected"] and it["withheld"] > 0)
            assert "the queue is full" in status["last_error"]
            wait_until("a status", lambda: any(body.endswith(b"online") for body in statuses))


def test_a_session_that_the_broker_forgets_is_warned_of_once(tmp_path, version):
    greetings = []

    def short(kind, body):
        if kind == liar.CONNECT:
            greetings.append(body)
            expiry = b"\x05\x11" + (60).to_bytes(4, "big") if version == "5" else b""
            return liar.packet(liar.CONNACK, b"\0\0" + expiry)
        if kind == liar.SUBSCRIBE:
            return liar.suback(version, body, 1)
        return b""

    with Liar(short) as broker:
        with MqttGateway(tmp_path / "gateway", away(), broker.url, version) as gateway:
            gateway.wait_for_broker()
            broker.hang_up()
            gateway.wait_for("another connection", lambda it: it["connected"] and len(greetings) == 2)
            assert gateway.terminate() == 0
            assert gateway.output.count("away for 60 s") == (1 if version == "5" else 0)
    # Neither a clean session, nor one that ends.
    assert all(not body[7] & 2 for body in greetings)
    assert all((b"\x11\xff\xff\xff\xff" in body) == (version == "5") for body in greetings)
