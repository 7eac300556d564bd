"""A witness by others (aics-witness), which cosigns what it has found to go on from what it cosigned before."""

import json
import signal
import subprocess
import sys

import requests

from ports import free_port
from program import PATIENCE_S, environment, wait_until


class Witness:
    """`aics-witness serve` on a free port, with a folder, a key and a database of its own."""

    def __init__(self, folder, name):
        self.folder, self.name = folder / name.replace("/", "-"), name
        self.folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.vkey = self.command("init", "--name", name, "--listen", f"127.0.0.1:{self.port}").strip()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)

    def command(self, *arguments):
        command = [sys.executable, "-m", "aics_witness", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment({}), capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def trust(self, log_key):
        """Lets the witness cosign for a log. A running one is told to read that."""
        self.command("add-log", "--origin", log_key.split("+")[0], "--vkey", log_key)
        if self.process:
            self.process.send_signal(signal.SIGHUP)

    def start(self):
        with open(self.folder / "log", "ab") as log:
            command = [sys.executable, "-m", "aics_witness", "serve"]
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment({}), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until("the witness to be up", self.answers)
        return self

    def answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return requests.get(self.url + "/healthz", timeout=5, proxies={"http": ""}).status_code == 200
        except requests.RequestException:
            return False

    def stop(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)
            self.process = None

    @property
    def log(self):
        """What it knows of the one log that it cosigns for."""
        [log] = json.loads(self.command("status", "--json"))["logs"]
        return log
