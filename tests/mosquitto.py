"""A private Mosquitto: its files in a folder, on a free port, kept over restarts as Debian's own keeps them.
As there, a broker that is killed has forgotten what happened since its start.

Also the certificates for one with TLS, and a device that publishes to it.
"""

import datetime
import getpass
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ports import free_port
from program import PATIENCE_S, wait_until

NOT_FOUND = "Mosquitto is not installed; run: apt-get install --no-install-recommends mosquitto"


def find_program(name):
    """Returns the path of a program; Debian keeps the broker where a user without rights does not look."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise SystemExit(NOT_FOUND)
    return found


class Mosquitto:
    """A broker. It is killed when the `with` block ends, whatever happened in it.

    `users` are those who may connect, with their passwords; without, anybody may. `acl` is the text of an access list.
    `certificates` are those of `make_certificates`: then there is TLS and nothing else. `settings` are further lines.
    """

    def __init__(self, folder, users=None, acl=None, certificates=None, settings=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.certificates = certificates
        self.process = None
        self.log_path = self.folder / "mosquitto.log"
        lines = [
            f"listener {self.port} 127.0.0.1",
            # It would give up the rights to this folder otherwise.
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {self.folder}/",
            f"allow_anonymous {'false' if users else 'true'}",
            "max_queued_messages 0",
            "log_dest stderr",
            "log_type all",
            "log_timestamp_format %H:%M:%S",
        ]
        if users:
            passwords = self.folder / "passwords"
            passwords.touch(mode=0o600)
            for user, password in users.items():
                command = [find_program("mosquitto_passwd"), "-b", passwords, user, password]
                subprocess.run(command, check=True, capture_output=True)
            lines.append(f"password_file {passwords}")
        if acl:
            (self.folder / "acl").write_text(acl)
            lines.append(f"acl_file {self.folder / 'acl'}")
        if certificates:
            lines += [f"certfile {certificates.certificate}", f"keyfile {certificates.key}"]
        self.config_path = self.folder / "mosquitto.conf"
        self.config_path.write_text("\n".join([*lines, *settings]) + "\n")

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    @property
    def url(self):
        # The name is in the certificate.
        return f"mqtts://localhost:{self.port}" if self.certificates else f"mqtt://127.0.0.1:{self.port}"

    def start(self):
        with open(self.log_path, "ab") as log:
            command = [find_program("mosquitto"), "-c", self.config_path]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("Mosquitto to listen", self.listens)
        return self

    def listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Mosquitto ended with {self.process.returncode}:\n{self.log}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        except OSError:
            return False

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """Ends it as its service would: it writes down what it remembers."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    def kill(self):
        """Ends it as a power cut would."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait(PATIENCE_S)

    def forget(self):
        """Drops all that it remembers; it must not run."""
        (self.folder / "mosquitto.db").unlink(missing_ok=True)

    def restart(self):
        self.stop()
        return self.start()

    def device(self, client_id="device", version=5, **options):
        return Device(self, client_id, version, **options)


class Device:
    """A device that publishes at QoS 1 and knows what the broker acknowledged."""

    def __init__(self, broker, client_id, version, user=None, password=None):
        protocol = paho.MQTTv5 if version == 5 else paho.MQTTv311
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=protocol)
        self.client.max_queued_messages_set(0)
        self.client.max_inflight_messages_set(100)
        self.client.reconnect_delay_set(1, 1)
        if user:
            self.client.username_pw_set(user, password)
        if broker.certificates:
            self.client.tls_set(str(broker.certificates.authority))
        self.broker = broker
        self.received = {}
        self.arrived = threading.Condition()
        self.watched = []
        self.client.on_message = self.note
        self.client.on_connect = self.watch_again

    def note(self, _client, _data, message):
        with self.arrived:
            self.received.setdefault(message.topic, []).append(message)
            self.arrived.notify_all()

    def __enter__(self):
        host = "localhost" if self.broker.certificates else "127.0.0.1"
        self.client.connect(host, self.broker.port)
        self.client.loop_start()
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, topic, payload, qos=1, retain=False, **properties):
        """Hands a message to the client, which sends it as soon as it can; `wait_for_publish` of the result waits."""
        given = None
        if properties:
            given = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(given, name, value)
        sent = self.client.publish(topic, payload, qos=qos, retain=retain, properties=given)
        if sent.rc == paho.MQTT_ERR_NO_CONN:
            # It is kept, and goes out with the next connection.
            sent.rc = paho.MQTT_ERR_AGAIN
        return sent

    def publish(self, topic, payload, **options):
        """Publishes a message and waits for the broker to acknowledge it."""
        sent = self.send(topic, payload, **options)
        sent.wait_for_publish(PATIENCE_S)
        assert sent.is_published(), f"the broker did not acknowledge a message under {topic}"

    def watch(self, topic):
        """Subscribes to a topic; what comes is in `received`."""
        self.watched.append(topic)
        self.client.subscribe(topic, qos=1)

    def watch_again(self, client, *_):
        for topic in self.watched:
            client.subscribe(topic, qos=1)

    def wait_for(self, topic, payload):
        """Waits until the latest message under a topic is this."""
        with self.arrived:
            latest = lambda: self.received.get(topic, [None])[-1]
            met = self.arrived.wait_for(lambda: latest() and latest().payload == payload, PATIENCE_S)
            assert met, f"{topic} never held {payload!r}, but {[it.payload for it in self.received.get(topic, [])]}"


class Certificates:
    def __init__(self, folder):
        self.authority = folder / "ca.pem"
        self.certificate = folder / "broker.pem"
        self.key = folder / "broker.key"


def make_certificates(folder, name="localhost"):
    """Makes an authority and a certificate of it for a broker of this name; tells where they are."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder)
    authority_key, broker_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
    authority = certificate_for(authority_name, authority_key.public_key(), authority_name)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.sign(authority_key, hashes.SHA256())
    broker_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    broker = certificate_for(broker_name, broker_key.public_key(), authority_name)
    broker = broker.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    broker = broker.add_extension(x509.SubjectAlternativeName([alternative_name(name)]), critical=False)
    broker = broker.sign(authority_key, hashes.SHA256())
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(broker.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        broker_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    os.chmod(made.key, 0o600)
    return made


def certificate_for(name, public_key, issuer):
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
    )


def alternative_name(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
