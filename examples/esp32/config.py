# Copy this file to the board beside main.py, with your own values. It holds secrets: keep it out of a repository.

WIFI_NAME = "my-network"
WIFI_PASSWORD = "my-password"

# Name of this device on the chain.
DEVICE = "bench-1"
INTERVAL_S = 10
# GPIO number of an analogue input (ADC), for instance of a light or moisture sensor.
SENSOR_PIN = 34

# "http" hands readings to a gateway (`liotbchain sender`), "mqtt" to the broker that the gateway reads from.
ROAD = "http"

GATEWAY_URL = "http://192.168.1.7:5000"
# The API_TOKEN of the sender; a sender that other machines can reach has one.
API_TOKEN = ""

BROKER = "192.168.1.7"
BROKER_PORT = 1883
BROKER_USER = None
BROKER_PASSWORD = None
SITE = "default"
