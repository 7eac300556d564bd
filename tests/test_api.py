"""The versioned interface, /v1, from outside: what docs/api.md promises."""

import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import zstandard

import cases
import signer as keys
import verifier
from program import PATIENCE_S, ROOT, Receiver, run, wait_until
from test_pages import browser, page  # noqa: F401 (fixtures)

PROBLEM = "application/problem+json"
BLOCKS = 200


@pytest.fixture(scope="module")
def device():
    return keys.new_ed25519()


@pytest.fixture(scope="module")
def long(tmp_path_factory, device):
    """A receiver with a long chain and a transaction that waits. No test changes it."""
    with Receiver(tmp_path_factory.mktemp("long"), TRANSACTIONS_PER_BLOCK=2) as receiver:
        send(receiver, device, 2 * BLOCKS)
        pending = send(receiver, device, 1)
        assert pending.json()["items"][0]["status"] == "pending"
        yield receiver


def send(receiver, device, count):
    """Sends readings as transactions, and checks that they are taken."""
    answer = receiver.post("/v1/transactions", json=[transaction(device) for _ in range(count)])
    assert answer.status_code == 201, answer.text
    return answer


def transaction(device):
    item = json.loads(device.item("0", signed=(text := cases.reading())))
    return {"payload": text, "signature": item["signature"], "public_key": item["public_key"]}


def problem(answer, status, code):
    """Checks an answer that refuses, and that it says what to do."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    told = answer.json()
    assert (told["type"], told["status"], told["code"]) == ("about:blank", status, code), told
    assert told["title"] and len(told["detail"]) > 10
    assert ("request_id" in told) == (status >= 500)
    return told


def routes(receiver):
    """Every route below /v1 with something in the place of its parameters, and its methods."""
    places = {"{id}": transaction_id(receiver), "{block}": "1", "{key_id}": key_id(receiver)}
    for path, methods in receiver.get("/openapi.json").json()["paths"].items():
        if path.startswith("/v1/"):
            parameters = methods.get("get", {}).get("parameters", [])
            asked = [it for it in parameters if it["in"] == "query" and it["required"]]
            query = "&".join(f"{it['name']}={it['example']}" for it in asked)
            path = re.sub(r"\{\w+\}", lambda name: places[name[0]], path)
            yield path + ("?" + query if query else ""), {name.upper() for name in methods}


def transaction_id(receiver):
    return receiver.get("/v1/blocks/1").json()["transactions"][0]["id"]


def key_id(receiver):
    return receiver.get("/v1/keys").json()["keys"][0]["key_id"]


# What all routes keep to -------------------------------------------------------------------------------------------


def test_every_other_method_is_refused_and_told_which_are_allowed(long):
    for path, methods in routes(long):
        allowed = methods | ({"HEAD"} if "GET" in methods else set())
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - allowed:
            answer = long.session.request(method, long.url + path, timeout=PATIENCE_S)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].split(",")) == allowed, (method, path)
            if method != "HEAD":
                problem(answer, 405, "method_not_allowed")


def test_head_is_get_without_a_body(long):
    for path, methods in routes(long):
        if "GET" not in methods:
            continue
        asked = {"Accept-Encoding": "identity"}
        with long.get(path, headers=asked, stream=True) as got:
            shown = long.session.head(long.url + path, headers=asked, timeout=PATIENCE_S)
            assert shown.status_code == got.status_code == 200, path
            assert shown.content == b""
            for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control", "Link", "Content-Disposition"):
                assert shown.headers.get(name) == got.headers.get(name), (path, name)


def test_every_refusal_has_one_form(tmp_path, device):
    absent = "ab" * 32
    posts = "/v1/transactions"
    json_type = {"Content-Type": "application/json"}
    bad_signature = transaction(device) | {"signature": "AA=="}
    with Receiver(tmp_path, API_TOKEN="a-token-of-nobody", LIST_ITEMS_MAX=10) as receiver:
        token = {"Authorization": "Bearer a-token-of-nobody"}
        typed = token | json_type
        for method, path, headers, body, status, code in [
            ("GET", "/v1/nothing", {}, None, 404, "not_found"),
            ("GET", "/v1/transactions/" + absent, {}, None, 404, "transaction_not_found"),
            ("GET", "/v1/transactions/1", {}, None, 400, "bad_transaction_id"),
            ("GET", "/v1/blocks/" + absent, {}, None, 404, "block_not_found"),
            ("GET", "/v1/blocks/999999", {}, None, 404, "block_not_found"),
            ("GET", "/v1/blocks/-1", {}, None, 400, "bad_block"),
            ("GET", "/v1/blocks?limit=0", {}, None, 400, "bad_query"),
            ("GET", "/v1/blocks?limitt=1", {}, None, 400, "bad_query"),
            ("GET", "/v1/blocks?cursor=x", {}, None, 400, "bad_cursor"),
            ("GET", "/v1/keys/" + absent, {}, None, 404, "key_not_found"),
            ("GET", "/v1/keys/x", {}, None, 400, "bad_key_id"),
            ("GET", f"/v1/transactions/{absent}/receipt", {}, None, 404, "transaction_not_found"),
            ("GET", "/v1/transactions/1/tlog-proof", {}, None, 400, "bad_transaction_id"),
            ("GET", f"/v1/keys/{absent}/transactions", {}, None, 404, "key_not_found"),
            ("GET", "/v1/proofs/consistency", {}, None, 400, "bad_query"),
            ("GET", "/v1/proofs/consistency?from=1&to=9", {}, None, 404, "block_not_found"),
            ("GET", "/v1/proofs/inclusion?height=9", {}, None, 404, "block_not_found"),
            ("GET", "/v1/events?last_event_id=1", {}, None, 400, "malformed_event_id"),
            ("GET", "/v1/events?last_event_id=1-" + absent, {}, None, 400, "unknown_event_id"),
            ("GET", "/v1/events?since=1", {}, None, 400, "bad_query"),
            ("PUT", "/v1/validation", token, None, 405, "method_not_allowed"),
            ("GET", "/v1/status", {"Host": "elsewhere.example"}, None, 421, "unknown_host"),
            ("GET", "/v1/status", {"Origin": "http://elsewhere.example"}, None, 403, "foreign_origin"),
            ("POST", posts, json_type, b"[]", 401, "unauthorized"),
            ("POST", posts, json_type | {"Authorization": "Bearer wrong"}, b"[]", 401, "unauthorized"),
            ("DELETE", "/v1/validation", {}, None, 401, "unauthorized"),
            ("POST", posts, token, b"[]", 415, "unsupported_content_type"),
            ("POST", posts, typed | {"Content-Encoding": "br"}, b"[]", 415, "unsupported_encoding"),
            ("POST", posts, typed, b"[", 400, "not_json"),
            ("POST", posts, typed, b"\xff", 400, "not_utf8"),
            ("POST", posts, typed, b"[" * 500, 400, "too_deep"),
            ("POST", posts, typed, b"1", 400, "not_a_list"),
            ("POST", posts, typed, b"[]", 400, "empty_list"),
            ("POST", posts, typed, b"[" + b"{}," * 10 + b"{}]", 413, "too_many_items"),
            ("POST", posts, typed, b" " * (8 << 20) + b" ", 413, "body_too_large"),
            ("POST", posts + "?wait=-1", typed, b"[]", 400, "bad_query"),
            ("POST", posts, typed, json.dumps([bad_signature]).encode(), 400, "invalid_items"),
            ("POST", "/v1/validation", typed, b"[]", 400, "invalid_body"),
            ("POST", "/v1/validation", token, b"{}", 415, "unsupported_content_type"),
        ]:
            answer = receiver.session.request(
                method, receiver.url + path, headers=headers, data=body, timeout=PATIENCE_S
            )
            told = problem(answer, status, code)
            assert ("items" in told) == (code == "invalid_items"), told


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity"])
def test_a_long_refusal_can_be_read(long, encoding):
    headers = {"Content-Type": "application/json", "Accept-Encoding": encoding}
    refused = long.post("/v1/transactions", headers=headers, data="[" + ",".join(["{}"] * 1_000) + "]")
    # Refusals are sent as they are.
    assert "Content-Encoding" not in refused.headers
    assert len(problem(refused, 400, "invalid_items")["items"]) > 10


# Caching -----------------------------------------------------------------------------------------------------------


def test_a_block_is_named_by_its_hash_and_kept_until_it_changes(long):
    tip = long.get("/v1/blocks/tip")
    block = tip.json()
    tag = f'"{block["hash"]}"'
    by_hash = long.get("/v1/blocks/" + block["hash"])
    assert by_hash.json() == block == long.get(f"/v1/blocks/{block['height']}").json()
    # A payload may be pruned, and then caches must not have it for ever.
    assert by_hash.headers["Cache-Control"] == tip.headers["Cache-Control"] == "no-cache"
    for path in ("tip", str(block["height"]), block["hash"]):
        for value in (tag, f'W/{tag}, "another"', "*"):
            answer = long.get("/v1/blocks/" + path, headers={"If-None-Match": value})
            assert (answer.status_code, answer.content) == (304, b""), (path, value)
            assert answer.headers["ETag"].removeprefix("W/") == tag
        assert long.get("/v1/blocks/" + path, headers={"If-None-Match": '"another"'}).status_code == 200
    header = b"".join(
        [
            block["version"].to_bytes(2, "big"),
            *(bytes.fromhex(block[name]) for name in ("prev_block_hash", "transactions_root", "history_root")),
            block["height"].to_bytes(4, "big"),
            block["timestamp_ms"].to_bytes(8, "big"),
            block["bits"].to_bytes(4, "big"),
            block["nonce"].to_bytes(4, "big"),
        ]
    )
    assert hashlib.sha256(header).hexdigest() == block["hash"]


def test_a_sealed_transaction_has_its_blocks_tag_and_a_pending_one_none(long):
    sealed = long.get("/v1/transactions/" + transaction_id(long))
    told = sealed.json()
    assert told["status"] == "sealed"
    tag = sealed.headers["ETag"].removeprefix("W/")
    assert tag == f'"{told["block_hash"]}"'
    again = long.get("/v1/transactions/" + told["id"], headers={"If-None-Match": tag})
    assert again.status_code == 304


# Compression -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity"])
@pytest.mark.parametrize("path", ["/v1/blocks?limit=100", "/v1/blocks/1", "/v1/export"])
def test_answers_are_compressed_for_those_who_can_read_it(long, path, encoding):
    plain = long.get(path, headers={"Accept-Encoding": "identity"})
    answer = long.get(path, headers={"Accept-Encoding": encoding}, stream=True)
    raw = answer.raw.read(decode_content=False)
    expected = encoding if len(plain.content) > 1024 and encoding != "identity" else None
    assert answer.headers.get("Content-Encoding") == expected
    assert "accept-encoding" in answer.headers["Vary"].lower()
    if expected == "gzip":
        assert len(raw) < len(plain.content)
        raw = gzip.decompress(raw)
    elif expected == "zstd":
        assert len(raw) < len(plain.content)
        raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    assert raw == plain.content


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bodies_may_be_compressed(tmp_path, device, encoding):
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[encoding]
    headers = {"Content-Encoding": encoding, "Content-Type": "application/x-ndjson"}
    lines = "".join(json.dumps(transaction(device)) + "\n" for _ in range(50)).encode()
    with Receiver(tmp_path) as receiver:
        answer = receiver.post("/v1/transactions", headers=headers, data=compress(lines))
        assert answer.status_code == 201, answer.text
        assert len(answer.json()["items"]) == 50
        again = receiver.post("/v1/transactions", headers=headers, data=compress(lines))
        assert (again.status_code, again.json()) == (200, answer.json())
        problem(receiver.post("/v1/transactions", headers=headers, data=compress(lines)[:-9]), 400, "broken_body")


def peak_memory(receiver):
    """Most memory that the process ever had, in bytes."""
    status = Path(f"/proc/{receiver.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def bombs():
    """A few kilobytes that stand for 256 MiB."""
    chunk = bytes(1 << 20)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield "gzip", b"".join(compressor.compress(chunk) for _ in range(256)) + compressor.flush()
    compressor = zstandard.ZstdCompressor().compressobj()
    yield "zstd", b"".join(compressor.compress(chunk) for _ in range(256)) + compressor.flush()


def test_a_bomb_costs_no_memory(tmp_path):
    with Receiver(tmp_path) as receiver:
        before = peak_memory(receiver)
        for encoding, bomb in bombs():
            assert len(bomb) < 2 << 20
            headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
            for _ in range(3):
                problem(receiver.post("/v1/transactions", headers=headers, data=bomb), 413, "body_too_large")
        assert peak_memory(receiver) - before < 64 << 20
        assert receiver.answers("/readyz")


# Walking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order, limit", [("asc", 7), ("asc", 1000), ("desc", 50)])
def test_a_walk_over_pages_meets_every_block_once(long, order, limit):
    hashes, path = [], f"/v1/blocks?order={order}&limit={limit}"
    while path:
        answer = long.get(path)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert len(told["blocks"]) <= limit
        hashes += [block["hash"] for block in told["blocks"]]
        path = told.get("next")
        linked = answer.links.get("next", {}).get("url")
        assert linked == path
    expected = [block["hash"] for block in long.chain()]
    assert len(expected) == BLOCKS + 1
    assert hashes == (expected if order == "asc" else expected[::-1])


def test_a_page_tells_transactions_to_those_who_ask(long):
    asked = long.get("/v1/blocks?from=1&limit=3&include=transactions").json()["blocks"]
    assert [block["height"] for block in asked] == [1, 2, 3]
    for block in asked:
        assert block["transactions"] == long.get(f"/v1/blocks/{block['height']}").json()["transactions"]
        assert len(block["transactions"]) == block["transaction_count"] == 2


def test_keys_are_listed_and_shown(long, device):
    [key] = long.get("/v1/keys").json()["keys"]
    assert key["key_id"] == device.key_id.hex()
    assert key["public_key"] == device.pem
    assert key["transactions"] == 2 * BLOCKS
    assert long.get("/v1/keys/" + key["key_id"]).json() == key


def test_status_tells_what_the_chain_is_at(long):
    status = long.get("/v1/status").json()
    assert (status["height"], status["pending"]) == (BLOCKS, 1)
    assert status["tip"] == long.get("/v1/blocks/tip").json()["hash"]
    assert status["genesis"] == long.get("/v1/blocks/0").json()["hash"]


# Events ------------------------------------------------------------------------------------------------------------


class Events:
    """Reads /v1/events as server-sent events are read."""

    def __init__(self, receiver, last_event_id=None, path="/v1/events"):
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self.answer = receiver.get(path, headers=headers, stream=True)
        assert self.answer.status_code == 200, self.answer.text
        assert self.answer.headers["Content-Type"] == "text/event-stream"
        assert "Content-Encoding" not in self.answer.headers
        self.lines = self.answer.iter_lines(chunk_size=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()

    def __iter__(self):
        """Yields (name, id, data) until the stream ends."""
        fields = {}
        for line in self.lines:
            line = line.decode()
            if not line and "data" in fields:
                yield fields["event"], fields.get("id"), json.loads(fields["data"])
            if not line:
                fields = {}
            elif not line.startswith(":"):
                name, value = line.split(": ", 1)
                fields[name] = value

    def blocks(self, until):
        """The next blocks, up to a height."""
        blocks = []
        for name, _, data in self:
            if name == "block":
                blocks.append(data)
                if data["height"] >= until:
                    return blocks
        raise AssertionError("the stream ended")


def event_id(block):
    return f"{block['height']}-{block['hash']}"


def test_a_client_is_told_every_block(tmp_path, device, database_url):
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver, Events(receiver) as events:
        genesis = receiver.get("/v1/blocks/0").json()["hash"]
        [name, identity, data] = next(iter(events))
        assert (name, identity) == ("status", f"0-{genesis}")
        assert data == {"genesis": genesis, "height": 0, "tip": genesis, "pending": 0}
        for _ in range(5):
            send(receiver, device, 41)
        blocks = events.blocks(102)
        assert [block["height"] for block in blocks] == list(range(1, 103))
        assert [block["hash"] for block in blocks] == [block["hash"] for block in receiver.chain()[1:]]
        assert {block["skipped"] for block in blocks} == {0}
        assert {block["transaction_count"] for block in blocks} == {2}
        # 205 transactions: one waits.
        assert next(data for name, _, data in events if name == "pending" and data["pending"] == 1)


def test_a_client_goes_on_where_it_was_after_a_restart(tmp_path, device):
    with Receiver(tmp_path) as receiver:
        with Events(receiver) as events:
            send(receiver, device, 10)
            seen = events.blocks(10)
            assert receiver.terminate() == 0
            # Not cut off: the stream has an end.
            assert [name for name, _, _ in events if name == "block"] == []
        receiver.restart()
        send(receiver, device, 100)
        for options in (
            {"last_event_id": event_id(seen[4])},
            {"path": "/v1/events?last_event_id=" + event_id(seen[4])},
            # The header comes first: a browser that comes back asks the same address.
            {"last_event_id": event_id(seen[4]), "path": "/v1/events?last_event_id=" + event_id(seen[0])},
        ):
            with Events(receiver, **options) as events:
                status = next(iter(events))
                assert status[:2] == ("status", None)
                blocks = events.blocks(110)
            assert [block["height"] for block in blocks] == list(range(6, 111))
            assert blocks[:5] == seen[5:]


def test_a_client_is_told_what_another_receiver_seals_and_goes_on_there(tmp_path, device, cluster):
    url = cluster.new_database()
    first = Receiver(tmp_path, DATABASE_URL=url)
    second = Receiver(tmp_path, DATABASE_URL=url, DATA_DIR=tmp_path / "second")
    with first, second, Events(second) as events:
        send(first, device, 5)
        seen = events.blocks(5)
        assert [block["hash"] for block in seen] == [block["hash"] for block in first.chain()[1:]]
        # A balancer may send a client that comes back to another one.
        with Events(first, last_event_id=event_id(seen[1])) as events:
            assert events.blocks(5) == seen[2:]


def test_a_client_that_does_not_read_is_told_the_newest_block_in_the_end(tmp_path, device):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=1) as receiver:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.settimeout(PATIENCE_S)
        stalled.connect(("127.0.0.1", receiver.port))
        stalled.sendall(f"GET /v1/events HTTP/1.0\r\nHost: {receiver.address}\r\n\r\n".encode())
        # More than all buffers on the way take.
        for _ in range(6):
            send(receiver, device, 5_000)
        # What makes a client a slow one is time.
        time.sleep(3)
        send(receiver, device, 1)
        text = b""
        while f'"height":{30_001},'.encode() not in text:
            read = stalled.recv(1 << 20)
            assert read, "the stream ended"
            text += read
        stalled.close()
        data = [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: ") and line.endswith(b"}")]
        blocks = [event for event in data if "skipped" in event]
        assert sum(block["skipped"] for block in blocks) > 0
        below = 0
        for block in blocks:
            assert block["height"] == below + block["skipped"] + 1
            below = block["height"]
        assert below == 30_001


def test_clients_that_follow_are_counted(tmp_path, device):
    with Receiver(tmp_path) as receiver:
        clients = [Events(receiver) for _ in range(256)]
        refused = receiver.get("/v1/events")
        problem(refused, 503, "too_many_event_clients")
        assert int(refused.headers["Retry-After"]) >= 1
        assert receiver.get("/v1/status").status_code == 200
        for client in clients:
            client.answer.close()

        def follow():
            # Who is gone shows when it is told something.
            send(receiver, device, 1)
            with receiver.get("/v1/events", stream=True) as answer:
                return answer.status_code == 200

        wait_until("a place", follow)


def test_a_browser_follows_over_a_restart(tmp_path, device, page):  # noqa: F811
    with Receiver(tmp_path) as receiver:
        page.goto(receiver.url + "/apidocs/")
        page.evaluate(
            """() => {
                window.told = {connected: 0, heights: []};
                const events = new EventSource("/v1/events");
                events.addEventListener("status", () => window.told.connected++);
                events.addEventListener("block", (event) => window.told.heights.push(JSON.parse(event.data).height));
            }"""
        )

        def told(what, condition):
            return wait_until(what, lambda: condition(page.evaluate("window.told")))

        told("the connection", lambda told: told["connected"] == 1)
        send(receiver, device, 3)
        told("three blocks", lambda told: len(told["heights"]) == 3)
        assert receiver.terminate() == 0
        receiver.restart()
        send(receiver, device, 3)
        told("three more", lambda told: len(told["heights"]) == 6)
        told("the same blocks once", lambda told: told["heights"] == [1, 2, 3, 4, 5, 6] and told["connected"] >= 2)


# Export ------------------------------------------------------------------------------------------------------------


def test_the_export_is_checked_by_another_program_and_imported(tmp_path, long):
    path = tmp_path / "chain.ndjson"
    with long.get("/v1/export", stream=True) as answer, open(path, "wb") as file:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert re.fullmatch(r'attachment; filename="chain-[0-9a-f]{16}\.ndjson"', answer.headers["Content-Disposition"])
        tag = answer.headers["ETag"]
        for chunk in answer.iter_content(None):
            file.write(chunk)
    status = long.get("/v1/status").json()
    assert tag.removeprefix("W/") == f'"{status["tip"]}"'
    *_, last = path.read_bytes().splitlines()
    expected = {"type": "end", "blocks": BLOCKS + 1, "transactions": 2 * BLOCKS + 1, "tip": status["tip"]}
    assert json.loads(last) == expected

    verify = [sys.executable, verifier.PATH, path]
    verdict = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE_S)
    assert verdict.returncode == 0, verdict.stdout
    assert f"valid: {BLOCKS + 1} blocks, {2 * BLOCKS + 1} transactions" in verdict.stdout
    imported = run("chain", "import", path, folder=tmp_path)
    assert imported.returncode == 0, imported.stderr
    again = run("chain", "export", "--out", "-", folder=tmp_path)
    assert again.stdout == path.read_text()

    known = long.get("/v1/export", headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")


# Validation --------------------------------------------------------------------------------------------------------


def test_a_validation_is_started_watched_and_cancelled(long):
    headers = {"Content-Type": "application/json"}
    started = long.post("/v1/validation")
    assert (started.status_code, started.headers["Location"]) == (202, "/v1/validation")
    assert started.json()["running"]["signatures"] is True

    def state():
        state = long.get("/v1/validation").json()
        return None if state["running"] else state["last"]

    last = wait_until("the validation", state)
    assert last["outcome"] == "finished"
    assert last["finished_ms"] >= last["started_ms"]
    assert last["result"] == long.get("/validate").json()
    assert (last["result"]["valid"], last["result"]["blocks"]) == (True, BLOCKS + 1)

    assert long.post("/v1/validation", headers=headers, data='{"signatures": false}').status_code == 202
    assert long.session.delete(long.url + "/v1/validation", timeout=PATIENCE_S).status_code == 204
    last = state()
    # It may have been done before it was cancelled.
    assert (last["signatures"], last["outcome"]) in [(False, "cancelled"), (False, "finished")]


# The description ---------------------------------------------------------------------------------------------------


def test_the_routes_are_what_their_description_says(tmp_path, device):
    """Sends what the description allows, and what it does not, to every route but that of the endless events.

    That all that fits the description is accepted is not asked: no schema can say that a signature is good.
    """
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2, SEAL_WAIT=1) as receiver:
        send(receiver, device, 21)
        program = Path(sys.executable).with_name("schemathesis")
        command = [program, "run", receiver.url + "/openapi.json", "--seed=1", "--max-examples=100", "--no-shrink"]
        command += ["--phases=examples,coverage,fuzzing,stateful", "--exclude-path=/v1/events", "--request-timeout=30"]
        command += ["--exclude-checks=positive_data_acceptance", "--continue-on-failure", "--warnings=off", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-20_000:]
        assert receiver.get("/validate").json()["valid"] is True


def test_the_commands_of_the_documentation_work(tmp_path, device):
    """Runs what docs/api.md shows in a shell, from top to bottom; what would never end is ended."""
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL))
    assert commands.count("curl ") >= 15
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2) as receiver:
        send(receiver, device, 20)
        commands = commands.replace("http://127.0.0.1:5001", receiver.url)
        commands = commands.replace("curl -sSN", "curl --max-time 2 -sSN")
        script = "set -o pipefail -o errexit\n" + commands
        # 28 is curl's code for a time that is over.
        script = re.sub(r"(curl --max-time 2 (?:.*\\\n)*.*)", r"\1 || [[ $? == 28 ]]", script)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("event: status") == 2
        assert done.stdout.count("event: block") >= 10
        assert '"type":"end"' in done.stdout
        assert "304\n" in done.stdout
