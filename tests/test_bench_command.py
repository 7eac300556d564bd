"""`liotbchain bench`: what it reports is what the receiver then holds."""

import json
import re

import pytest

from ports import free_port
from program import Program, Receiver, run, wait_until

TOKEN = "0123456789abcdef"


def bench(receiver, *arguments, settings=None, code=0):
    """Runs the command against a receiver and returns its report."""
    line = ("bench", "--url", receiver.url, "--json", *arguments)
    done = run(*line, folder=receiver.folder, settings=settings)
    assert done.returncode == code, done.stderr
    assert "panicked" not in done.stderr
    return json.loads(done.stdout)


def stored(receiver):
    """How many readings the receiver has, those that wait included."""
    status = receiver.get("/v1/status").json()
    blocks = receiver.chain()
    # The genesis block holds a transaction too, and it is no reading.
    return sum(len(block["data"]) for block in blocks[1:]) + status["pending"]


def test_counts_what_the_chain_then_holds(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=50) as receiver:
        report = bench(receiver, "--seconds", 2, "--connections", 3, "--batch", 50, "--keys", 5, "--verify")
        accepted = report["readings"]["accepted"]
        assert accepted == stored(receiver) > 0
        keys = {reading["key_id"] for block in blocks_of(receiver) for reading in block["transactions"]}
        assert len(keys - {"0" * 64}) == 5
        shown = receiver.get("/v1/status").json()

    assert accepted == 50 * report["lists"]["accepted"] == 50 * report["lists"]["sent"]
    assert report["errors"] == {} and report["readings"]["failed"] == 0
    assert 2 <= report["seconds"] < 3 and not report["interrupted"]
    assert 0 < report["readings"]["accepted_per_second"] <= accepted / 2
    times = report["latency_ms"]
    assert 0 < times["p50"] <= times["p99"] <= times["p99_9"] <= times["max"]
    assert times["count"] == report["lists"]["accepted"]
    assert report["sealing"]["in_answer"] == 1 and report["sealing"]["later_ms"] is None
    assert report["verified"] == {
        "asked_for": accepted, "sealed": accepted, "pending": 0, "missing": 0, "unanswered": 0,
    }  # fmt: skip
    assert report["receiver"]["process_id"] == receiver.process.pid
    assert report["receiver"]["cpu_s"] > 0 and report["receiver"]["peak_mib"] > 1
    assert report["client"]["signed_before"] >= accepted or report["client"]["signed_meanwhile"] > 0
    # The conditions stand beside the figures.
    assert (report["connections"], report["batch"], report["key"], report["keys"]) == (3, 50, "ed25519", 5)
    assert report["status"]["store"] == shown["store"]
    assert report["status"]["settings"]["transactions_per_block"] == 50


def blocks_of(receiver):
    page = receiver.get("/v1/blocks?include=transactions&limit=1000").json()
    yield from page["blocks"]
    while "next" in page:
        page = receiver.get(page["next"]).json()
        yield from page["blocks"]


@pytest.mark.parametrize("key", ["ed25519", "rsa", "p256"])
def test_sends_so_many_readings_of_each_kind_of_key(tmp_path, key):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=1) as receiver:
        report = bench(receiver, "--readings", 25, "--batch", 10, "--key", key, "--keys", 2)
        assert report["readings"]["accepted"] == stored(receiver) == 25
    assert report["lists"]["sent"] == 3
    assert (report["client"]["signed_before"], report["client"]["signed_meanwhile"]) == (25, 0)


def test_keeps_to_a_rate_and_follows_what_is_pending(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=5, SEAL_WAIT=0) as receiver:
        report = bench(receiver, "--seconds", 2, "--rate", 100, "--batch", 2)
        assert report["readings"]["accepted"] == stored(receiver) == 200
    assert (report["lists"]["sent"], report["lists"]["late"]) == (100, 0)
    assert report["sealing"]["in_answer"] < 1
    assert report["sealing"]["later_ms"]["count"] > 0 and report["sealing"]["still_pending"] == 0


def test_says_what_was_due_and_not_sent(tmp_path):
    # One connection, and each answer waits a second for a block that is not found: one list a second and not ten.
    settings = {"TRANSACTIONS_PER_BLOCK": 1, "DIFFICULTY": 16, "NONCE_LIMIT": 1 << 32, "SEAL_WAIT": 1}
    with Receiver(tmp_path, **settings) as receiver:
        report = bench(receiver, "--seconds", 3, "--rate", 10, "--batch", 1, "--connections", 1)
        sent = report["lists"]["sent"]
        assert 1 <= sent <= 4
        assert report["readings"]["accepted"] == stored(receiver) == sent
    assert report["lists"]["late"] == 30 - sent
    # What a list waited for its turn counts: the last one was due 0.1 s after the one before, and sent 1 s after it.
    assert report["latency_ms"]["max"] >= 1000 * sent - 100 * (sent - 1)
    assert report["sealing"]["in_answer"] == 0 and report["sealing"]["still_pending"] >= 1


def test_ends_though_what_it_follows_stays_pending(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=1000) as receiver:
        report = bench(receiver, "--readings", 500, "--batch", 1)
        assert report["readings"]["accepted"] == stored(receiver) == 500
    assert (report["sealing"]["in_answer"], report["sealing"]["later_ms"]) == (0, None)
    assert 1 <= report["sealing"]["still_pending"] <= 16


def test_counts_errors_by_their_code(tmp_path):
    # No block of this difficulty is ever found, so there is no room for all.
    settings = {"TRANSACTIONS_PER_BLOCK": 100, "PENDING_MAX": 100, "DIFFICULTY": 16, "SEAL_WAIT": 0}
    with Receiver(tmp_path, **settings) as receiver:
        report = bench(receiver, "--readings", 300, "--batch", 50)
        assert report["readings"]["accepted"] == stored(receiver) >= 100
    failed = report["readings"]["failed"]
    assert failed == 300 - report["readings"]["accepted"] > 0
    assert report["errors"] == {"503 overloaded": failed // 50}


def test_a_receiver_that_is_killed_holds_all_that_it_acknowledged(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=10) as receiver:
        line = ("bench", "--url", receiver.url, "--json", "--seconds", 3600, "--batch", 10)
        with Program(*line, folder=tmp_path) as program:
            wait_until("some blocks", lambda: receiver.get("/v1/status").json()["height"] >= 5)
            receiver.kill()
            # It goes on: only people know whether the receiver comes back.
            assert receiver.restart()
            height = receiver.get("/v1/status").json()["height"]
            wait_until("more blocks", lambda: receiver.get("/v1/status").json()["height"] > height)
            assert program.interrupt() == 0
            report = json.loads(program.stdout)
        accepted, failed = report["readings"]["accepted"], report["readings"]["failed"]
        assert failed > 0 and sum(report["errors"].values()) * 10 == failed
        # A list that was on its way may be stored without an answer.
        assert 50 <= accepted <= stored(receiver) <= accepted + failed


def test_ctrl_c_prints_the_result_so_far(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=10) as receiver:
        line = ("bench", "--url", receiver.url, "--json", "--seconds", 3600, "--rate", 200, "--batch", 10)
        with Program(*line, folder=tmp_path) as program:
            wait_until("three blocks", lambda: receiver.get("/v1/status").json()["height"] >= 3)
            assert program.interrupt() == 0
            report = json.loads(program.stdout)
        assert report["interrupted"] and report["readings"]["accepted"] == stored(receiver) >= 30
    assert report["lists"]["late"] <= 1


def test_people_get_a_few_lines(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=10) as receiver:
        done = run("bench", "--url", receiver.url, "--readings", 40, "--batch", 10, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in [
        r"load        4 connections, lists of 10, 8 ed25519 keys, as fast as answered, \d+\.\d s",
        r"chain       sqlite:.*, 10 a block, difficulty 1",
        r"accepted    40 readings: \d+ a second, in \d+ lists a second",
        r"latency     p50 [\d.]+ ms, p99 [\d.]+ ms, p99.9 [\d.]+ ms, max [\d.]+ ms",
        r"sealed      100.0 % in the answer",
        r"receiver    \S+ \(process \d+\), \d+ µs CPU a reading, \d+ MiB at most since its start",
        r"client      [\d.]+ of \d+ processors; signed 40 readings before, 0 meanwhile, waited for them [\d.]+ % of the time",
    ]:
        assert re.search(f"^{line}$", done.stdout, re.MULTILINE), (line, done.stdout)


def test_refusals_end_it_with_the_cure(tmp_path):
    with Receiver(tmp_path, API_TOKEN=TOKEN, LIST_ITEMS_MAX=10) as receiver:

        def refused(*arguments, **settings):
            line = ("bench", "--url", receiver.url, "--readings", 100, *arguments)
            done = run(*line, folder=tmp_path, settings=settings)
            assert (done.returncode, done.stdout) == (1, ""), done.stderr
            return done.stderr

        assert "hint: set RECEIVER_TOKEN" in refused("--batch", 5)
        assert TOKEN not in refused("--batch", 5, RECEIVER_TOKEN=TOKEN + "x")
        assert "hint: send smaller lists with --batch" in refused("--batch", 20, RECEIVER_TOKEN=TOKEN)
        report = bench(receiver, "--readings", 20, "--batch", 5, settings={"RECEIVER_TOKEN": TOKEN})
        assert report["readings"]["accepted"] == stored(receiver) == 20


def test_nobody_there_is_told_with_an_exit_code_of_its_own(tmp_path):
    done = run("bench", "--url", f"http://127.0.0.1:{free_port()}", folder=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be reached: Connection refused" in done.stderr and "hint: start it" in done.stderr
