"""Runs the built program: its servers, with settings from the environment alone, and its single commands."""

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import requests

from ports import free_port

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("LIOTBCHAIN_BINARY", ROOT / "target/release/liotbchain"))

# A busy machine may be slow; a test that waits this long has found a hang.
PATIENCE_S = 90

STARTS = itertools.count(1)


def wait_until(what, condition, patience_s=PATIENCE_S, pause_s=0.05):
    """Polls until the condition returns something true, and returns that."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s} s in vain for {what}")
        time.sleep(pause_s)


def environment(settings):
    """An environment with these settings and no others, so that a developer's own do not reach a test."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {name: str(value) for name, value in settings.items() if value is not None}


def run(*arguments, folder, settings=None, patience_s=PATIENCE_S, **options):
    """Runs a command to its end in a folder and returns its exit code and its output."""
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        cwd=folder,
        env=environment({"DATA_DIR": Path(folder) / "data"} | (settings or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=patience_s,
        **options,
    )


class Program:
    """A running server. It is killed when the `with` block ends, whatever happened in it."""

    def __init__(self, *arguments, folder, settings=None):
        self.arguments = arguments
        self.folder = Path(folder)
        self.settings = {"DATA_DIR": self.folder / "data"} | (settings or {})
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Starts the program, without waiting for more than the process."""
        # Output goes to files: a pipe that nobody reads would stop the program one day.
        name = f"{self.arguments[0]}-{next(STARTS)}"
        self.stdout_path = self.folder / f"{name}.out"
        self.stderr_path = self.folder / f"{name}.err"
        with open(self.stdout_path, "wb") as stdout, open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                [BINARY, *map(str, self.arguments)],
                cwd=self.folder,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # Python ignores the signal for a file that may not grow, and so shall the program: a full disk, too, is
                # told by an error and not by a signal.
                restore_signals=False,
            )
        return self

    @property
    def stdout(self):
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    @property
    def output(self):
        return self.stdout + self.stderr

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Ends the program as a power cut would: it gets no chance to tidy up."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait(PATIENCE_S)

    def terminate(self):
        """Asks the program to stop and returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def interrupt(self):
        """Does what Ctrl-C does and returns the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()

    def wait(self, patience_s=PATIENCE_S):
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.arguments[0]} did not end in {patience_s} s:\n{self.output}") from None

    def wait_for_output(self, pattern):
        """Waits until what the program printed matches, and returns the match."""

        def look():
            match = re.search(pattern, self.output)
            if not match:
                self.must_run()
            return match

        return wait_until(f"output like {pattern!r}; so far:\n{self.output}", look)

    def must_run(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.arguments[0]} ended with {self.process.returncode}:\n{self.output}")


class Server(Program):
    """A program with an address on the loopback interface."""

    def __init__(self, command, listen, folder, settings=None):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.session = requests.Session()
        self.session.trust_env = False
        super().__init__(command, folder=folder, settings={listen: self.address} | (settings or {}))

    def get(self, path, **options):
        return self.session.get(self.url + path, timeout=PATIENCE_S, **options)

    def post(self, path, **options):
        return self.session.post(self.url + path, timeout=PATIENCE_S, **options)

    def answers(self, path):
        self.must_run()
        try:
            return self.session.get(self.url + path, timeout=5).status_code == 200
        except requests.RequestException:
            return False


class Receiver(Server):
    """`liotbchain receiver` on a free port.

    Unless a test says otherwise, each transaction makes a block at a trifling difficulty, and answers wait for their
    block however busy the machine is.
    """

    def __init__(self, folder, **settings):
        quick = {"TRANSACTIONS_PER_BLOCK": 1, "DIFFICULTY": 1, "SEAL_WAIT": 60}
        super().__init__("receiver", "RECEIVER_LISTEN", folder, quick | settings)

    def ready(self):
        wait_until("the receiver to be ready", lambda: self.answers("/readyz"))
        return self

    def __enter__(self):
        super().__enter__()
        try:
            return self.ready()
        except BaseException:
            self.kill()
            raise

    def restart(self):
        self.start()
        return self.ready()

    def send(self, body, **headers):
        """Posts readings as JSON text, or as bytes that stand for it."""
        if isinstance(body, str):
            body = body.encode()
        headers = {"Content-Type": "application/json"} | headers
        return self.post("/receive_data", data=body, headers=headers)

    def chain(self):
        return self.get("/get_chain").json()


class Sender(Server):
    """`liotbchain sender` on a free port, sending to a receiver."""

    def __init__(self, folder, receiver_url, **settings):
        super().__init__("sender", "SENDER_LISTEN", folder, {"RECEIVER_URL": receiver_url} | settings)

    def __enter__(self):
        super().__enter__()
        try:
            wait_until("the sender to be up", lambda: self.answers("/healthz"))
        except BaseException:
            self.kill()
            raise
        return self
