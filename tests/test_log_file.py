"""`LOG_FILE`: bounded, private, and no reason to stop or to wait."""

import json
import re
import resource
import stat

import cases
import signer
from program import Receiver, Sender, wait_until

TOKEN = "a-token-that-no-log-may-show"
SMALL = 65536


def log(receiver):
    return receiver.folder / "data/liotbchain.log"


def send(receiver, device, readings, **headers):
    answer = receiver.send("[" + ",".join(device.item(cases.reading()) for _ in range(readings)) + "]", **headers)
    assert answer.status_code == 200, answer.text


def test_a_log_is_bounded_and_private(tmp_path):
    settings = {"LOG_LEVEL": "debug", "LOG_FORMAT": "json", "LOG_FILE_SIZE_MAX": SMALL, "LOG_FILES_MAX": 3}
    with Receiver(tmp_path, LOG_FILE="liotbchain.log", **settings) as receiver:
        device = signer.new_ed25519()
        # A line a block, which is a line a reading.
        for _ in range(10):
            send(receiver, device, 200)
        assert receiver.terminate() == 0
    files = sorted(log(receiver).parent.glob("liotbchain.log*"))
    assert [file.name for file in files] == ["liotbchain.log", "liotbchain.log.1", "liotbchain.log.2"]
    lines = []
    for file in reversed(files):
        assert SMALL // 2 < file.stat().st_size <= SMALL or file == files[0]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        lines += [json.loads(line)["fields"] for line in file.read_text().splitlines()]
    # No line is missing between the files, and the last one is there.
    heights = [line["height"] for line in lines if line["message"] == "block sealed"]
    assert heights == list(range(heights[0], 2001)) and heights[0] > 1
    assert lines[-1]["message"] == "stopped"
    # Nothing happened that others than the reader of the file have to know.
    assert "block sealed" not in receiver.stderr and "warning" not in receiver.stderr


def test_secrets_are_in_no_log(tmp_path):
    with Receiver(tmp_path, API_TOKEN=TOKEN, LOG_FILE="liotbchain.log", LOG_LEVEL="trace") as receiver:
        send(receiver, signer.new_ed25519(), 1, Authorization=f"Bearer {TOKEN}")
        assert receiver.send("[]", Authorization=f"Bearer {TOKEN}x").status_code == 401
        assert receiver.terminate() == 0
    text = log(receiver).read_text()
    assert "DEBUG" in text and "block sealed" in text and "\x1b" not in text
    assert TOKEN not in text + receiver.output


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path):
    room = 8 << 20
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/liotbchain.log", "wb") as filled:
        filled.truncate(room)
    with Receiver(tmp_path, LOG_FILE="liotbchain.log", LOG_LEVEL="debug") as receiver:
        device = signer.new_ed25519()
        # No file of this process may grow beyond this; the log has got there, the chain has not.
        resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        for _ in range(5):
            send(receiver, device, 20)
        wait_until("the warning", lambda: "cannot be written" in receiver.stderr)
        assert len(re.findall("LOG_FILE=.* cannot be written: File too large", receiver.stderr)) == 1

        resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        send(receiver, device, 20)
        told = receiver.wait_for_output(r"WARN .*lines of the log were lost lines=(\d+)")
        assert 1 <= int(told[1]) <= 100
        assert receiver.terminate() == 0
    assert receiver.stderr.count("cannot be written") == 1
    text = log(receiver).read_bytes()[room:].decode()
    assert "lines of the log were lost" in text and "stopped" in text.splitlines()[-1]


def test_a_log_that_cannot_be_opened_goes_to_standard_error(tmp_path):
    (tmp_path / "a-folder").mkdir()
    with Receiver(tmp_path, LOG_FILE=tmp_path / "a-folder", LOG_LEVEL="debug") as receiver:
        send(receiver, signer.new_ed25519(), 1)
        assert receiver.terminate() == 0
    assert re.search(r"warning: LOG_FILE=.*a-folder cannot be used, .*: it is no regular file", receiver.stderr)
    assert "block sealed" in receiver.stderr


def test_two_programs_do_not_share_a_file(tmp_path):
    settings = {"LOG_FILE": "liotbchain.log"}
    with Receiver(tmp_path, **settings) as receiver, Sender(tmp_path, receiver.url, **settings) as sender:
        assert "another process logs to it" in sender.stderr
        sender.wait_for_output("sender listens")
        assert sender.terminate() == 0
        assert "stopped" in sender.stderr
        assert receiver.terminate() == 0
    assert "sender listens" not in log(receiver).read_text()


def test_the_start_is_told_in_both_places(tmp_path):
    with Receiver(tmp_path, LOG_FILE="log/liotbchain.log") as receiver:
        assert receiver.terminate() == 0
    assert re.search(f"INFO .*receiver +{receiver.url} ", (tmp_path / "data/log/liotbchain.log").read_text())
    assert re.search(f"^receiver +{receiver.url} ", receiver.stderr, re.MULTILINE)
