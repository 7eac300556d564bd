"""The receiver as a client and its operator meet it: answers, limits, refusals to start, and what survives a restart."""

import json
import math
import re
import shutil
import sqlite3
import threading
import time

import psycopg2
import pytest

import cases
import raw_http
import signer as keys
from program import PATIENCE_S, ROOT, Program, Receiver, free_port, run, wait_until
from verifier import verify

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def device():
    return keys.new_ed25519()


def items_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


# Blocks ------------------------------------------------------------------------------------------------------------


def test_fills_blocks_and_keeps_the_rest_pending(tmp_path, device, database_url):
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        [first] = items_of(receiver.send(f"[{device.item(cases.reading())}]"))
        assert first.keys() == {"id", "status"}
        assert first["status"] == "pending"
        assert len(receiver.chain()) == 1

        rest = items_of(receiver.send("[" + ",".join(device.item(cases.reading()) for _ in range(4)) + "]"))
        assert [(item["status"], item.get("height"), item.get("position")) for item in rest] == [
            ("sealed", 1, 1),
            ("sealed", 2, 0),
            ("sealed", 2, 1),
            ("pending", None, None),
        ]
        chain = receiver.chain()
        assert [len(block["data"]) for block in chain[1:]] == [2, 2]
        assert rest[0]["block_hash"] == chain[1]["hash"]
        assert receiver.get("/validate").json()["valid"] is True


def test_a_repeated_statement_is_one_transaction(tmp_path, device, database_url):
    other = keys.rsa_signer(keys.rsa_key())
    text, other_text, late = cases.reading(), cases.reading(), cases.reading()
    with Receiver(tmp_path, DATABASE_URL=database_url) as receiver:
        first = items_of(receiver.send(f"[{device.item(text)}, {other.item(other_text)}]"))
        # RSA-PSS signatures are different each time; the statement is the same.
        again = items_of(receiver.send(f"[{other.item(other_text)}, {device.item(text)}]"))
        assert again == first[::-1]
        height = len(receiver.chain())

        receiver.kill()
        receiver.restart()
        assert items_of(receiver.send(f"[{device.item(text)}, {other.item(other_text)}]")) == first
        assert len(receiver.chain()) == height

        mixed = items_of(receiver.send(f"[{device.item(text)}, {device.item(late)}, {device.item(late)}]"))
        assert mixed[0] == first[0]
        assert mixed[1] == mixed[2]
        assert len(receiver.chain()) == height + 1


def test_pending_transactions_survive_kill_and_stop(tmp_path, device, database_url):
    texts = [cases.reading() for _ in range(5)]
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=5) as receiver:
        ids = [items_of(receiver.send(f"[{device.item(text)}]"))[0]["id"] for text in texts[:2]]
        receiver.kill()
        receiver.restart()
        ids += [items_of(receiver.send(f"[{device.item(text)}]"))[0]["id"] for text in texts[2:4]]
        assert receiver.terminate() == 0
        receiver.restart()
        [last] = items_of(receiver.send(f"[{device.item(texts[4])}]"))
        assert (last["status"], last["height"], last["position"]) == ("sealed", 1, 4)
        assert [json.dumps(value) for value in receiver.chain()[1]["data"]] == texts
        assert ids == [cases.transaction_id(device.key_id, text.encode()) for text in texts[:4]]


def test_seals_a_partial_block_when_it_is_old_enough(tmp_path, device):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=100, BLOCK_MAX_AGE=1) as receiver:
        receiver.send(f"[{device.item(cases.reading())}]")
        wait_until("a partial block", lambda: len(receiver.chain()) == 2)
        assert len(receiver.chain()[1]["data"]) == 1


def test_mining_that_gives_up_loses_nothing(tmp_path, device):
    text = cases.reading()
    hopeless = {"DIFFICULTY": 6, "NONCE_LIMIT": 1, "SEAL_WAIT": 5}
    with Receiver(tmp_path, **hopeless) as receiver:
        answer = receiver.send(f"[{device.item(text)}]").json()
        assert answer["status"] == "success"
        assert [item["status"] for item in answer["items"]] == ["pending"]
        assert answer["mining_failed"]["attempts"] >= 1
        assert len(receiver.chain()) == 1
        receiver.kill()
    # A chain made at difficulty 6 stays at 6 or above; with attempts enough that takes seconds.
    with Receiver(tmp_path, DIFFICULTY=6, NONCE_LIMIT=1 << 32) as receiver:
        wait_until("the block", lambda: len(receiver.chain()) == 2, patience_s=300)
        assert json.dumps(receiver.chain()[1]["data"][0]) == text


def test_a_long_wait_for_a_block_is_answered_with_pending(tmp_path, device):
    with Receiver(tmp_path, DIFFICULTY=16, NONCE_LIMIT=1 << 32, SEAL_WAIT=1) as receiver:
        answer = receiver.send(f"[{device.item(cases.reading())}]").json()
        assert [item["status"] for item in answer["items"]] == ["pending"]
        # Mining takes no turn from those who only add or read.
        assert items_of(receiver.send(f"[{device.item(cases.reading())}]"))[0]["status"] == "pending"
        assert receiver.get("/get_chain").status_code == 200


def test_warns_when_the_nonce_limit_is_too_low(tmp_path):
    with Receiver(tmp_path, DIFFICULTY=6, NONCE_LIMIT=1000) as receiver:
        advised = receiver.wait_for_output(r"set NONCE_LIMIT=(\d+) for 1 %")
        target = verify.target_of(verify.bits_of(6))
        assert int(advised[1]) == pytest.approx(math.log(0.01) / math.log1p(-target / 2**256), rel=0.001)
        assert "100.0 %" in receiver.output


def test_a_difficulty_below_the_chains_least_is_refused(tmp_path):
    with Receiver(tmp_path, DIFFICULTY=3):
        pass
    with Program("receiver", folder=tmp_path, settings={"DIFFICULTY": 2}) as receiver:
        assert receiver.wait() != 0
        assert "DIFFICULTY" in receiver.stderr
    with Receiver(tmp_path, DIFFICULTY=4) as receiver:
        assert items_of(receiver.send(f"[{keys.new_ed25519().item('1')}]"))[0]["block_hash"].startswith("0000")


# Reading -----------------------------------------------------------------------------------------------------------


def test_get_chain_has_the_shape_of_the_original(receiver, device):
    text = '{"v": 1.10, "name": "é"}'
    receiver.send(f"[{device.item(text)}]")
    answer = receiver.get("/get_chain")
    assert answer.headers["Content-Type"].startswith("application/json")
    raw = answer.content.decode()
    chain = json.loads(raw)
    assert text in raw
    keys_of_a_block = {"timestamp", "index", "data", "nonce", "hash", "previous hash"}
    assert all(block.keys() == keys_of_a_block for block in chain)
    genesis, block = chain
    assert genesis["data"] == "Genesis Block"
    assert genesis["previous hash"] == "0"
    assert genesis["index"] == 0
    assert genesis["nonce"] == 0
    assert block["index"] == 1
    assert block["previous hash"] == genesis["hash"]
    assert block["data"] == [json.loads(text)]
    assert type(block["nonce"]) is int
    assert type(block["timestamp"]) is float
    assert abs(block["timestamp"] - time.time()) < 600
    assert block["hash"].startswith("0")


def test_get_chain_of_a_large_chain_is_streamed(tmp_path, device):
    count = 16_000
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=8, DIFFICULTY=0) as receiver:
        signed = [device.item(json.dumps({"n": number, "text": "x" * 500})) for number in range(count)]
        for start in range(0, count, 4000):
            items_of(receiver.send("[" + ",".join(signed[start : start + 4000]) + "]"))
        assert len(receiver.chain()) == 1 + count // 8
        before = peak_memory(receiver.process.pid)
        answer = receiver.get("/get_chain", stream=True)
        assert "Content-Length" not in answer.headers
        size = 0
        tail = b""
        for chunk in answer.iter_content(1 << 16):
            size += len(chunk)
            tail = (tail + chunk)[-3:]
        assert tail.strip().endswith(b"]")
        assert size > count * 500
        # What it sends is not what it holds: the chain has more than 8 MB, the memory grows by less than half of it.
        assert peak_memory(receiver.process.pid) - before < size // 2


def peak_memory(process_id):
    status = open(f"/proc/{process_id}/status").read()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_reports_that_it_lives_and_what_it_does(receiver, device):
    receiver.send(f"[{device.item(cases.reading())}]")
    assert receiver.get("/healthz").status_code == 200
    assert receiver.get("/readyz").status_code == 200
    metrics = receiver.get("/metrics")
    assert metrics.status_code == 200
    assert re.search(r"^liotbchain_\w+(\{.*\})? \d", metrics.text, re.MULTILINE)
    document = receiver.get("/openapi.json").json()
    assert {"/receive_data", "/get_chain", "/validate", "/healthz", "/readyz", "/metrics"} <= document["paths"].keys()
    validity = receiver.get("/validate").json()
    assert validity["valid"] is True


@pytest.fixture(scope="module")
def kept_chain(tmp_path_factory):
    """The folder of a stopped receiver, whose SQLite file holds six blocks of two transactions."""
    folder = tmp_path_factory.mktemp("kept")
    device = keys.new_ed25519()
    with Receiver(folder, TRANSACTIONS_PER_BLOCK=2) as receiver:
        for _ in range(6):
            items_of(receiver.send(f"[{device.item(cases.reading())}, {device.item(cases.reading())}]"))
        assert receiver.terminate() == 0
    return folder


# What somebody does to the file, and where the fault is: block, transaction, field.
TAMPERINGS = {
    "UPDATE transactions SET payload = replace(payload, 'Raspberry', 'Blackberry') WHERE height = 3 AND position = 1":
        (3, 1, "id|signature"),
    "UPDATE transactions SET signature = zeroblob(64) WHERE height = 3 AND position = 0": (3, 0, "signature"),
    "UPDATE transactions SET id = zeroblob(32) WHERE height = 3 AND position = 1": (3, 1, "id"),
    "UPDATE transactions SET sequence = 100 WHERE height = 3 AND position = 1": (3, None, "sequence|transactions_root"),
    "UPDATE transactions SET position = 1 - position + 10 WHERE height = 3": (3, None, "position|transactions_root|row"),
    "DELETE FROM transactions WHERE height = 6 AND position = 1": (6, None, "transactions_root"),
    "DELETE FROM transactions WHERE height = 3": (3, None, "transactions"),
    "DELETE FROM blocks WHERE height = 3": (3, None, "height|prev_block_hash"),
    "UPDATE blocks SET nonce = nonce + 1 WHERE height = 3": (3, None, "nonce|hash"),
    "UPDATE blocks SET hash = zeroblob(32) WHERE height = 3": (3, None, "hash"),
    "UPDATE blocks SET timestamp_ms = 0 WHERE height = 3": (3, None, "timestamp_ms"),
    "UPDATE blocks SET bits = 0x2100ffff WHERE height = 3": (3, None, "bits"),
    "UPDATE blocks SET prev_block_hash = zeroblob(32) WHERE height = 3": (3, None, "prev_block_hash"),
    "UPDATE blocks SET history_root = zeroblob(32) WHERE height = 3": (3, None, "history_root"),
    "UPDATE blocks SET transactions_root = zeroblob(32) WHERE height = 3": (3, None, "nonce|hash|transactions_root"),
    "UPDATE blocks SET total_work = zeroblob(32) WHERE height = 3": (3, None, "total_work|work"),
    "UPDATE blocks SET version = 2 WHERE height = 3": (3, None, "version|row"),
    "UPDATE keys SET spki = zeroblob(44) WHERE key > 0": (None, None, "public_key"),
}  # fmt: skip


@pytest.mark.parametrize("statement", TAMPERINGS)
def test_validation_names_the_first_fault(kept_chain, tmp_path, statement):
    block, transaction, field = TAMPERINGS[statement]
    shutil.copytree(kept_chain / "data", tmp_path / "data")
    connection = sqlite3.connect(tmp_path / "data/liotbchain.db")
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    validated = run("chain", "validate", "--json", folder=tmp_path)
    assert validated.returncode == 3, validated.stdout + validated.stderr
    verdict = json.loads(validated.stdout)
    assert verdict["valid"] is False
    fault = verdict["fault"]
    if block is not None:
        assert fault["block"] == block, fault
    if transaction is not None:
        assert fault["transaction"] == transaction, fault
    assert re.fullmatch(field, fault["field"]), fault
    assert len(fault["reason"]) > 10
    # People read it in words.
    told = run("chain", "validate", folder=tmp_path)
    assert told.returncode == 3
    assert re.search(rf"block {fault['block']}\b", told.stdout + told.stderr, re.IGNORECASE)


def test_a_running_receiver_validates_what_is_on_disk(tmp_path, device):
    """Somebody edits the database under a running receiver: the next look at it says which transaction."""
    with Receiver(tmp_path) as receiver:
        for _ in range(3):
            items_of(receiver.send(f"[{device.item(cases.reading())}]"))
        assert receiver.get("/validate").json()["valid"] is True
        connection = sqlite3.connect(tmp_path / "data/liotbchain.db", timeout=30)
        with connection:
            connection.execute("UPDATE transactions SET signature = zeroblob(64) WHERE height = 2")
        connection.close()
        verdict = receiver.get("/validate").json()
        assert verdict["valid"] is False
        assert (verdict["fault"]["block"], verdict["fault"]["transaction"]) == (2, 0)


# Who may ask -------------------------------------------------------------------------------------------------------


def test_a_token_guards_writes(tmp_path, device):
    token = "a-long-secret-token-0123456789"
    item = device.item(cases.reading())
    with Receiver(tmp_path, API_TOKEN=token) as receiver:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
            answer = receiver.send(f"[{item}]", **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert len(receiver.chain()) == 1
        assert receiver.send(f"[{item}]", Authorization=f"Bearer {token}").status_code == 200
        assert token not in receiver.output


def test_an_unknown_host_is_refused(receiver):
    for host in ("evil.example", "evil.example:5001", "127.0.0.1.evil.example"):
        answer = receiver.get("/get_chain", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")
    for host in (receiver.address, f"localhost:{receiver.port}", f"[::1]:{receiver.port}"):
        assert receiver.get("/get_chain", headers={"Host": host}).status_code == 200


def test_allowed_hosts_are_a_setting(tmp_path):
    with Receiver(tmp_path, ALLOWED_HOSTS="chain.example,127.0.0.1") as receiver:
        assert receiver.get("/get_chain", headers={"Host": "chain.example"}).status_code == 200
        assert receiver.get("/get_chain", headers={"Host": "localhost"}).status_code == 421


def test_a_foreign_origin_is_refused(receiver, device):
    item = device.item(cases.reading())
    for origin in ("https://evil.example", "null"):
        answer = receiver.send(f"[{item}]", Origin=origin)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert len(receiver.chain()) == 1
    assert receiver.send(f"[{item}]", Origin=receiver.url).status_code == 200


# Slow, broken and too large requests -------------------------------------------------------------------------------


def half_a_request(receiver, device):
    body = f"[{device.item(cases.reading())}]".encode()
    head = f"POST /receive_data HTTP/1.1\r\nHost: {receiver.address}\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode(), body


def test_slow_requests_are_given_up(receiver, device):
    """Headers after 10 s, bodies after 30 s; others are served meanwhile, and nothing is stored."""
    head, body = half_a_request(receiver, device)
    with raw_http.connect(receiver.address) as headers, raw_http.connect(receiver.address) as bodies:
        bodies.sendall(head + body[: len(body) // 2])
        headers.sendall(b"GET /get_chain HTTP/1.1\r\nHost: ")
        started = time.monotonic()
        assert receiver.get("/healthz").status_code == 200
        headers.settimeout(PATIENCE_S)
        while headers.recv(4096):
            pass
        # A busy machine may take a little longer.
        assert 5 < time.monotonic() - started < 25
        bodies.settimeout(PATIENCE_S)
        answer = raw_http.read_answer(bodies)
        assert (answer.status, answer.json()["code"]) == (408, "slow_request")
        assert 20 < time.monotonic() - started < 60
    assert len(receiver.chain()) == 1


def test_a_client_that_hangs_up_in_the_middle_stores_nothing(receiver, device):
    head, body = half_a_request(receiver, device)
    for sent in (0, 1, len(body) // 2, len(body) - 1):
        with raw_http.connect(receiver.address) as connection:
            connection.sendall(head + body[:sent])
    assert receiver.get("/healthz").status_code == 200
    assert len(receiver.chain()) == 1


def test_limits_are_settings(tmp_path, device):
    limits = {"PAYLOAD_SIZE_MAX": 100, "LIST_ITEMS_MAX": 3, "BODY_SIZE_MAX": 5000}
    with Receiver(tmp_path, **limits) as receiver:
        exact = json.dumps("x" * 98)
        assert len(items_of(receiver.send(f"[{device.item(exact)}]"))) == 1
        over = receiver.send(f"[{device.item(json.dumps('x' * 99))}]")
        assert (over.status_code, over.json()["code"]) == (413, "payload_too_large")
        three = ",".join(device.item(str(number)) for number in range(3))
        assert len(items_of(receiver.send(f"[{three}]"))) == 3
        four = ",".join(device.item(str(number)) for number in range(4))
        answer = receiver.send(f"[{four}]")
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_items")
        answer = receiver.send("[" + " " * 5000 + "]")
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert len(receiver.chain()) == 5


def test_the_default_limits_hold(receiver, device):
    exact = json.dumps("x" * 65_534)
    assert items_of(receiver.send(f"[{device.item(exact)}]"))[0]["status"] == "sealed"
    answer = receiver.send(f"[{device.item(json.dumps('x' * 65_535))}]")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    answer = receiver.send("[" + "0," * 8000 + "0]")
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_items")


def test_depth_is_limited(receiver, device):
    assert receiver.send(f"[{device.item('[' * 100 + ']' * 100)}]").status_code == 200
    answer = receiver.send(f"[{device.item('[' * 101 + ']' * 101)}]")
    assert (answer.status_code, answer.json()["code"]) == (400, "too_deep")


def test_too_many_connections_do_not_stop_those_that_are_there(tmp_path):
    with Receiver(tmp_path, CONNECTIONS_MAX=8) as receiver:
        first = raw_http.connect(receiver.address)
        try:
            idle = [raw_http.connect(receiver.address) for _ in range(20)]
            first.sendall(f"GET /healthz HTTP/1.1\r\nHost: {receiver.address}\r\n\r\n".encode())
            answer = raw_http.read_answer(first)
            assert answer is not None and answer.status == 200
            for connection in idle:
                connection.close()
        finally:
            first.close()
        wait_until("room for new connections", lambda: receiver.answers("/healthz"))


def test_many_clients_at_once_lose_nothing(tmp_path, database_url):
    """What broke every chain of the original: eight clients at once."""
    clients, each = 8, 25
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        ids, faults = [], []

        def send(device):
            try:
                for _ in range(each):
                    request = cases.items(device.item(cases.reading()))
                    headers = [("Host", receiver.address), *JSON.items(), ("Content-Length", len(request.body))]
                    answer = raw_http.request(receiver.address, "POST", "/receive_data", headers, [request.body])
                    assert answer.status == 200, answer.body
                    ids.extend(item["id"] for item in answer.json()["items"])
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=send, args=[keys.new_ed25519()]) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert len(set(ids)) == clients * each
        wait_until("all blocks", lambda: len(receiver.chain()) == 1 + clients * each // 2)
        assert receiver.get("/validate").json()["valid"] is True


# Starting ----------------------------------------------------------------------------------------------------------


def refused_start(folder, code=None, **settings):
    """Starts a receiver that must give up by itself, and returns what it said."""
    settings = {"RECEIVER_LISTEN": f"127.0.0.1:{free_port()}"} | settings
    with Program("receiver", folder=folder, settings=settings) as receiver:
        ended = receiver.wait()
        assert ended == code if code else ended in (1, 2, 4), receiver.output
        assert "panicked" not in receiver.stderr
        assert receiver.stdout == ""
        return receiver.stderr


def test_a_public_address_needs_a_token(tmp_path):
    address = f"0.0.0.0:{free_port()}"
    assert "API_TOKEN" in refused_start(tmp_path, RECEIVER_LISTEN=address)


def test_a_port_in_use_is_named(tmp_path, receiver):
    told = refused_start(tmp_path, DATA_DIR=tmp_path / "other", RECEIVER_LISTEN=receiver.address)
    assert str(receiver.port) in told
    assert re.search(r"in use|already", told)
    assert str(receiver.process.pid) in told or "liotbchain" in told


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    # A file in the place of the folder stops root, too, whom permissions do not.
    (tmp_path / "occupied").write_text("")
    told = refused_start(tmp_path, DATA_DIR=tmp_path / "occupied" / "data")
    assert "occupied" in told


@pytest.mark.parametrize(
    "name, value",
    [
        ("DIFFICULTY", "17"),
        ("DIFFICULTY", "-1"),
        ("DIFFICULTY", "two"),
        ("DIFFICULTY", ""),
        ("TRANSACTIONS_PER_BLOCK", "0"),
        ("TRANSACTIONS_PER_BLOCK", "8001"),
        ("NONCE_LIMIT", "0"),
        ("NONCE_LIMIT", "4294967297"),
        ("MINING_THREADS", "0"),
        ("SEAL_WAIT", "301"),
        ("PAYLOAD_SIZE_MAX", "65537"),
        ("LIST_ITEMS_MAX", "8001"),
        ("RECEIVER_LISTEN", "127.0.0.1"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_setting_out_of_range_is_refused(tmp_path, name, value):
    told = refused_start(tmp_path, **{name: value})
    assert name in told
    assert not (tmp_path / "data").exists()


def test_an_unknown_setting_is_answered_with_a_guess(tmp_path):
    (tmp_path / "liotbchain.toml").write_text("dificulty = 3\n")
    told = refused_start(tmp_path)
    assert "dificulty" in told
    assert re.search(r"did you mean.*\bdifficulty", told)
    (tmp_path / "liotbchain.toml").unlink()
    # Other programs keep their settings in .env, too.
    (tmp_path / ".env").write_text("NONCE_LIMT=3\nSOMETHING_ELSE=1\n")
    with Receiver(tmp_path) as receiver:
        assert re.search(r"warning: NONCE_LIMT.*\n.*did you mean NONCE_LIMIT", receiver.stderr)
        assert "SOMETHING_ELSE" not in receiver.stderr


def test_an_unreachable_database_is_named(tmp_path):
    port = free_port()
    told = refused_start(tmp_path, code=4, DATABASE_URL=f"postgresql://postgres:very-secret@127.0.0.1:{port}/none")
    assert str(port) in told
    assert "very-secret" not in told


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/liotbchain.db"
    content = b"My diary. Not a database at all.\n" * 200
    path.write_bytes(content)
    assert "liotbchain.db" in refused_start(tmp_path)
    assert path.read_bytes() == content


def test_the_originals_database_is_recognised_and_left_alone(tmp_path, cluster, device):
    url = cluster.new_database()
    load_original(url)
    before = rows_of(url)
    assert len(before) == 31
    with Receiver(tmp_path, DATABASE_URL=url) as receiver:
        assert "the table public.blocks holds a chain of the Python liotbchain; it was left untouched" in receiver.stderr
        items_of(receiver.send(f"[{device.item(cases.reading())}]"))
        assert len(receiver.chain()) == 2
    assert rows_of(url) == before


def test_a_file_with_the_originals_table_is_left_alone(tmp_path):
    """The original keeps its chain in PostgreSQL alone, but somebody may have copied it."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/liotbchain.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute('CREATE TABLE blocks ("index", data, timestamp, previous_hash, nonce, hash)')
    connection.close()
    before = path.read_bytes()
    assert "Python liotbchain" in refused_start(tmp_path)
    assert path.read_bytes() == before


def load_original(url):
    """Loads a chain of the original as its own table, without the parts of the dump that only psql reads."""
    dump = (ROOT / "testdata/original/chain-d2-t1.sql").read_text()
    statements = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE blocks (index SERIAL PRIMARY KEY, data TEXT, timestamp DOUBLE PRECISION,"
            " previous_hash TEXT, nonce INTEGER, hash TEXT)"
        )
        cursor.execute(statements)
    connection.close()


def rows_of(url):
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM public.blocks ORDER BY index")
        rows = cursor.fetchall()
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        rows_and_columns = rows, cursor.fetchall()
    connection.close()
    assert {table for table, _ in rows_and_columns[1]} == {"blocks"}
    return rows_and_columns[0]


def test_a_data_folder_has_one_receiver(tmp_path, receiver):
    told = refused_start(tmp_path)
    assert str(receiver.process.pid) in told
    assert "DATA_DIR" in told


def test_two_receivers_on_one_store_make_one_chain(tmp_path, device, database_url):
    """The original broke its chain when two processes shared a database."""
    if database_url.startswith("sqlite:"):
        database_url = f"sqlite:{tmp_path}/shared.db"
    settings = {"DATABASE_URL": database_url, "SEAL_WAIT": 5}
    first = Receiver(tmp_path, **settings)
    second = Receiver(tmp_path, **settings, DATA_DIR=tmp_path / "second")
    with first, second:
        ids = set()
        for _ in range(10):
            for receiver in (first, second):
                ids.add(items_of(receiver.send(f"[{device.item(cases.reading())}]"))[0]["id"])
        assert len(ids) == 20
        # Whoever holds the right to seal may go: the other takes over.
        first.kill()
        ids.add(items_of(second.send(f"[{device.item(cases.reading())}]"))[0]["id"])
        wait_until("all blocks", lambda: sum(len(block["data"]) for block in second.chain()[1:]) == 21)
        assert second.get("/validate").json()["valid"] is True
