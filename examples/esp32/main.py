# Measures a voltage on an ESP32 and hands each reading to a liotbchain gateway, by HTTP or by MQTT. See README.md.

import time

import machine
import network

import config
from reading import Backlog, Counter, is_taken

wifi = network.WLAN(network.STA_IF)
sensor = machine.ADC(machine.Pin(config.SENSOR_PIN))
sensor.atten(machine.ADC.ATTN_11DB)  # Up to about 3.1 V.


def connect():
    """Joins the network where it is not joined; gives up after 20 s, to measure meanwhile."""
    if wifi.isconnected():
        return True
    wifi.active(True)
    try:
        wifi.connect(config.WIFI_NAME, config.WIFI_PASSWORD)
    except OSError:
        return False  # It is still at it.
    for _ in range(40):
        if wifi.isconnected():
            return True
        time.sleep_ms(500)
    return False


def measure():
    return {"volts": round(sensor.read_uv() / 1000000, 3)}


class Http:
    """POST /readings of the gateway."""

    def __init__(self):
        self.headers = {"Content-Type": "application/json"}
        if config.API_TOKEN:
            self.headers["Authorization"] = "Bearer " + config.API_TOKEN

    def send(self, text):
        import requests  # Called urequests before MicroPython 1.21.

        answer = requests.post(config.GATEWAY_URL + "/readings", data=text.encode(), headers=self.headers, timeout=10)
        status = answer.status_code
        if not 200 <= status < 300:
            print("the gateway answers", status, answer.text[:200])
        answer.close()
        return is_taken(status)


class Mqtt:
    """QoS 1: `publish` returns when the broker has acknowledged."""

    def __init__(self):
        self.client = None
        self.topic = ("liotbchain/v1/%s/%s/up" % (config.SITE, config.DEVICE)).encode()

    def send(self, text):
        from umqtt.simple import MQTTClient

        if self.client is None:
            client = MQTTClient(
                config.DEVICE,
                config.BROKER,
                port=config.BROKER_PORT,
                user=config.BROKER_USER,
                password=config.BROKER_PASSWORD,
                # The broker need not hear from it between two readings.
                keepalive=0,
            )
            client.connect()
            self.client = client
        try:
            self.client.publish(self.topic, text.encode(), qos=1)
        except Exception:
            self.client = None
            raise
        return True


road = Http() if config.ROAD == "http" else Mqtt()
counter = Counter("counter.txt")
backlog = Backlog()
due = time.ticks_ms()

while True:
    backlog.add(config.DEVICE, counter.take(), measure())
    try:
        if connect() and not backlog.hand_over(road.send):
            print(len(backlog.texts), "readings wait")
    except Exception as error:  # Whatever the network did, the next reading is measured.
        print(len(backlog.texts), "readings wait:", repr(error))
    due = time.ticks_add(due, config.INTERVAL_S * 1000)
    time.sleep_ms(max(0, time.ticks_diff(due, time.ticks_ms())))
