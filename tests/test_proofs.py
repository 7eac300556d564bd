"""Proof files over HTTP, on every store: whatever a receiver hands out, `liotbchain verify` takes, alone."""

import base64
import gzip
import json

import pytest
import zstandard

import forge
import signer as keys
from program import PATIENCE_S, Receiver, run
from proofs import consistency, findings, got, must_hold, pages, receipt, send, size_of, status, write

PER_BLOCK = 3
TIP = 16
ABSENT = "ab" * 32
ZERO = "00" * 32
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def receiver(request, tmp_path_factory):
    """A receiver with 16 blocks of readings by every kind of key, and one that waits. No test changes it."""
    settings = {"TRANSACTIONS_PER_BLOCK": PER_BLOCK}
    if request.param == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("cluster").new_database()
    devices = [keys.new_ed25519(), keys.new_ec(), keys.rsa_signer(keys.rsa_key())]
    with Receiver(tmp_path_factory.mktemp(request.param), **settings) as receiver:
        # Two of the devices speak twice as often, so that no block is like the one before.
        receiver.sent = send(receiver, [*devices, devices[0], devices[1]], TIP * PER_BLOCK)
        receiver.devices = devices
        waiting = json.loads(devices[0].item("0", signed='"waits"'))
        del waiting["data"]
        answer = receiver.post("/v1/transactions", json=[waiting | {"payload": '"waits"'}])
        assert answer.status_code == 201, answer.text
        [waiting] = answer.json()["items"]
        assert waiting["status"] == "pending"
        receiver.waiting = waiting["id"]
        assert status(receiver)["height"] == TIP
        yield receiver


@pytest.fixture(scope="module")
def hashes(receiver):
    return [receiver.get(f"/v1/blocks/{height}").json()["hash"] for height in range(TIP + 1)]


@pytest.fixture
def trust(receiver):
    """What whoever verifies knows from elsewhere: the chain, and the operator's key."""
    told = status(receiver)
    return {"genesis": told["genesis"], "policy": f"log {told['log_key']}\nquorum none\n"}


def ids_of(receiver, height):
    return [transaction["id"] for transaction in receiver.get(f"/v1/blocks/{height}").json()["transactions"]]


def refusal(answer, code, status=400):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    told = answer.json()
    assert (told["status"], told["code"]) == (status, code) and len(told["detail"]) > 10, told


# Receipts ----------------------------------------------------------------------------------------------------------


def test_every_reading_has_a_receipt(receiver, trust, tmp_path):
    files = [receipt(receiver, transaction) for transaction in receiver.sent]
    found = findings(tmp_path, *files, **trust)
    assert [it["transaction"] for it in found] == receiver.sent
    for finding in found:
        assert (finding["kind"], finding["holds"], finding["signed_by_log"]) == ("receipt", True, True)
        assert finding["genesis"] == trust["genesis"] and finding["cosigned_by"] == []
    kinds = [line for line in must_hold(tmp_path, *files, **trust).splitlines() if "signature good" in line]
    assert len(kinds) == len(files)
    assert all(any(f"({kind}" in line for line in kinds) for kind in ("Ed25519", "P-256", "RSA-2048")), kinds[:3]


def test_receipts_of_the_oldest_the_middle_and_the_newest_block(receiver, trust, tmp_path, hashes):
    for height, size in [(0, TIP), (1, TIP), (TIP // 2, TIP), (TIP - 1, TIP), (TIP, TIP + 1)]:
        for transaction in ids_of(receiver, height):
            file = receipt(receiver, transaction)
            told = json.loads(file)
            header = bytes.fromhex(told["block"]["header"])
            assert forge.verify.sha256(header).hex() == hashes[height]
            # The newest block has none above it that commits to it: the operator's signature alone vouches for it.
            assert told["anchor"]["size"] == size and ("header" in told["anchor"]) == (size <= TIP)
            assert told["anchor"]["checkpoint"].startswith(f"liotbchain/{hashes[0]}\n{size}\n")
            said = must_hold(tmp_path, file, **trust)
            assert f"{height} ({hashes[height]})" in said


def test_the_genesis_block_is_signed_by_nobody(receiver, trust, tmp_path):
    [transaction] = ids_of(receiver, 0)
    file = receipt(receiver, transaction)
    assert "public_key" not in json.loads(file)
    assert "nobody" in must_hold(tmp_path, file, **trust)


def test_a_receipt_is_checked_from_standard_input(receiver, tmp_path):
    file = receipt(receiver, receiver.sent[5])
    done = run("verify", "-", folder=tmp_path, input=file)
    assert done.returncode == 0 and done.stdout.startswith("- (receipt): holds\n"), done.stderr
    lie = run("verify", "-", folder=tmp_path, input=file.replace('"version":1', '"version":2'))
    assert lie.returncode == 3
    beside = run("verify", write(tmp_path, file), "-", "--json", folder=tmp_path, input=got(receiver, "/checkpoint"))
    assert [it["kind"] for it in json.loads(beside.stdout)] == ["receipt", "checkpoint"]


def test_a_receipt_needs_neither_settings_nor_a_store(receiver, tmp_path):
    """`verify` reads no settings, not even those that nothing else would start with."""
    file = write(tmp_path, receipt(receiver, receiver.sent[0]))
    nowhere = {"DATA_DIR": tmp_path / "absent", "DATABASE_URL": "none:", "DIFFICULTY": "none", "UNKNOWN": "1"}
    assert run("verify", file, folder=tmp_path, settings=nowhere).returncode == 0
    assert not (tmp_path / "absent").exists()


def test_a_tlog_proof_holds_what_the_receipt_holds(receiver, trust, tmp_path):
    for transaction in [receiver.sent[0], receiver.sent[-1], *ids_of(receiver, 0)]:
        answer = receiver.get(f"/v1/transactions/{transaction}/tlog-proof")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        [finding] = findings(tmp_path, answer.text, **trust)
        assert (finding["kind"], finding["transaction"]) == ("receipt", transaction)
        told = json.loads(receipt(receiver, transaction))
        lines = answer.text.split("\n\n")[0].split("\n")
        assert lines[3:] == told["block"]["history_path"]
        extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
        del told["block"]["history_path"], told["anchor"]["checkpoint"]
        assert extra == told


@pytest.mark.parametrize("form", ["receipt", "tlog-proof"])
def test_what_has_no_receipt_is_told_why(receiver, form):
    refusal(receiver.get(f"/v1/transactions/{receiver.waiting}/{form}"), "still_pending", 409)
    refusal(receiver.get(f"/v1/transactions/{ABSENT}/{form}"), "transaction_not_found", 404)
    for bad in ("x", ABSENT[1:], ABSENT + "0", "zz" * 32, "%20"):
        refusal(receiver.get(f"/v1/transactions/{bad}/{form}"), "bad_transaction_id")


# Histories of keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5, 1000, None])
def test_a_key_history_is_read_page_by_page(receiver, trust, tmp_path, limit):
    query = {"limit": limit} if limit else {}
    for key_id in [*(device.key_id.hex() for device in receiver.devices), ZERO]:
        files = list(pages(receiver, key_id, **query))
        must_hold(tmp_path, *files, **trust)
        told = [json.loads(file) for file in files]
        # Each page goes on where the one before ended, to the end of the chain.
        assert told[0]["from"] == 0 and told[-1]["to"] == TIP
        assert all(page["from"] == before["to"] + 1 for before, page in zip(told, told[1:]))
        numbers = [number for page in told for number, _ in shown(page)]
        assert numbers == list(range(len(numbers)))
        heights = [height for page in told for _, height in shown(page)]
        assert heights == expected_heights(receiver, key_id)
        if limit == 1:
            assert all(len({height for _, height in shown(page)}) <= 1 for page in told)
        if limit in (1000, None):
            assert len(told) == 1


def shown(page):
    """Numbers and heights of the transactions that a page is asked for: what proves its ends stands around them."""
    for block in page["blocks"]:
        height = int.from_bytes(bytes.fromhex(block["header"])[98:102], "big")
        if page["from"] <= height <= page["to"]:
            for entry in block["entries"]:
                yield entry["transaction"]["sequence"], height


def expected_heights(receiver, key_id):
    return [
        height
        for height in range(TIP + 1)
        for transaction in receiver.get(f"/v1/blocks/{height}").json()["transactions"]
        if transaction.get("key_id", ZERO) == key_id
    ]


def test_a_part_of_a_history_shows_what_stands_around_it(receiver, trust, tmp_path):
    key_id = receiver.devices[2].key_id.hex()
    path = f"/v1/keys/{key_id}/transactions"
    heights, files = expected_heights(receiver, key_id), []
    for first in range(TIP + 1):
        for last in range(first, TIP + 1, 3):
            file = got(receiver, path, **{"from": first, "to": last})
            page = json.loads(file)
            assert (page["from"], page["to"]) == (first, last)
            assert [height for _, height in shown(page)] == [it for it in heights if first <= it <= last]
            around = [int(block["header"][196:204], 16) for block in page["blocks"]]
            assert (min(around) < first) == any(it < first for it in heights)
            assert (max(around) > last) == any(it > last for it in heights)
            files.append(file)
    must_hold(tmp_path, *files, **trust)
    said = must_hold(tmp_path, got(receiver, path, **{"from": 3, "to": 9}), **trust)
    assert "no sealed one is missing up to block 9" in said
    # Beyond the end there is nothing yet, and no more is claimed than there is.
    assert json.loads(got(receiver, path, to=4294967295))["to"] == TIP


def test_links_keep_what_was_asked_for(receiver):
    key_id = receiver.devices[0].key_id.hex()
    files = [json.loads(file) for file in pages(receiver, key_id, **{"from": 2, "to": 11, "limit": 2})]
    assert len(files) > 2 and files[0]["from"] == 2 and files[-1]["to"] == 11
    numbers = [number for page in files for number, _ in shown(page)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_histories_that_cannot_be_are_refused(receiver):
    path = f"/v1/keys/{receiver.devices[0].key_id.hex()}/transactions"
    for query in [
        {"limit": 0},
        {"limit": 1001},
        {"limit": -1},
        {"limit": "x"},
        {"from": -1},
        {"to": 4294967296},
        {"from": 5, "to": 4},
        {"form": 1},
        {"from": ""},
    ]:
        refusal(receiver.get(path, params=query), "bad_query")
    refusal(receiver.get(path, params={"from": TIP + 1}), "block_not_found", 404)
    refusal(receiver.get(f"/v1/keys/{ABSENT}/transactions"), "key_not_found", 404)
    refusal(receiver.get("/v1/keys/x/transactions"), "bad_key_id")


# Consistency and inclusion -----------------------------------------------------------------------------------------


def test_every_history_goes_on_from_every_earlier_one(receiver, trust, tmp_path, hashes):
    leaves = [forge.leaf(bytes.fromhex(block)) for block in hashes]
    files = []
    for first in range(TIP + 2):
        for last in range(first, TIP + 2):
            files.append(consistency(receiver, **{"from": first, "to": last}))
            path = forge.consistency(first, leaves[:last]) if first else []
            assert json.loads(files[-1])["path"] == [forge.b64(it) for it in path]
            # A block stands for the history below it.
            if last <= TIP:
                assert consistency(receiver, **{"from": hashes[first], "to": hashes[last]}) == files[-1]
                assert consistency(receiver, **{"from": hashes[first].upper(), "to": last}) == files[-1]
        assert consistency(receiver, **{"from": first}) == files[-1]
    found = findings(tmp_path, *files, genesis=trust["genesis"])
    assert {it["kind"] for it in found} == {"consistency"} and len(found) == (TIP + 2) * (TIP + 3) // 2


def test_every_block_is_in_every_later_history(receiver, trust, tmp_path, hashes):
    leaves = [forge.leaf(bytes.fromhex(block)) for block in hashes]
    files = []
    for height in range(TIP + 1):
        for size in range(height + 1, TIP + 2):
            files.append(got(receiver, "/v1/proofs/inclusion", height=height, to=size))
            path = json.loads(files[-1])["block"]["history_path"]
            assert path == [forge.b64(it) for it in forge.inclusion(height, leaves[:size])]
            if size <= TIP:
                assert got(receiver, "/v1/proofs/inclusion", height=height, to=hashes[size]) == files[-1]
        files.append(got(receiver, "/v1/proofs/inclusion", height=height))
    must_hold(tmp_path, *files, **trust)


def test_old_receipts_are_joined_to_a_newer_checkpoint(receiver, trust, tmp_path):
    """What a device keeps: receipts from whenever, and the newest checkpoint from wherever."""
    note = got(receiver, "/checkpoint")
    file = receipt(receiver, receiver.sent[0])
    size = json.loads(file)["anchor"]["size"]
    assert size < size_of(note)
    link = consistency(receiver, **{"from": size, "to": size_of(note)})
    must_hold(tmp_path, file, link, checkpoint=note, **trust)


@pytest.mark.parametrize(
    "path,query,code,status",
    [
        ("consistency", {}, "bad_query", 400),
        ("consistency", {"from": "x"}, "bad_query", 400),
        ("consistency", {"from": -1}, "bad_query", 400),
        ("consistency", {"from": 1.5}, "bad_query", 400),
        ("consistency", {"from": 1 << 64}, "bad_query", 400),
        ("consistency", {"from": 1, "too": 2}, "bad_query", 400),
        ("consistency", {"from": 5, "to": 4}, "bad_query", 400),
        ("consistency", {"from": 1, "to": TIP + 2}, "block_not_found", 404),
        ("consistency", {"from": TIP + 2}, "bad_query", 400),
        ("consistency", {"from": 1, "to": (1 << 64) - 1}, "block_not_found", 404),
        ("consistency", {"from": ABSENT}, "block_not_found", 404),
        ("consistency", {"from": 1, "to": ABSENT}, "block_not_found", 404),
        ("inclusion", {}, "bad_query", 400),
        ("inclusion", {"height": "x"}, "bad_query", 400),
        ("inclusion", {"height": 1 << 32}, "bad_query", 400),
        ("inclusion", {"height": 3, "to": 3}, "bad_query", 400),
        ("inclusion", {"height": 3, "to": 0}, "bad_query", 400),
        ("inclusion", {"height": TIP + 1}, "block_not_found", 404),
        ("inclusion", {"height": 3, "to": TIP + 2}, "block_not_found", 404),
        ("inclusion", {"height": 3, "to": ABSENT}, "block_not_found", 404),
    ],
)
def test_proofs_that_cannot_be_are_refused(receiver, path, query, code, status):
    refusal(receiver.get("/v1/proofs/" + path, params=query), code, status)


# As answers of HTTP ------------------------------------------------------------------------------------------------


def routes(receiver):
    """A path of each kind, its type, and what it says of its keeping."""
    sent, key = receiver.sent[0], receiver.devices[0].key_id.hex()
    text, data = "text/plain; charset=utf-8", "application/octet-stream"
    yield f"/v1/transactions/{sent}/receipt", "application/json", "no-cache"
    yield f"/v1/transactions/{sent}/tlog-proof", text, "no-cache"
    yield f"/v1/keys/{key}/transactions?limit=3", "application/json", "no-cache"
    yield "/v1/proofs/consistency?from=1", "application/json", "no-cache"
    yield "/v1/proofs/inclusion?height=1", "application/json", "no-cache"
    yield "/checkpoint", text, "no-cache"
    yield f"/tile/0/000.p/{TIP + 1}", data, "immutable"
    yield "/tile/entries/000.p/5", data, "immutable"


def test_answers_say_what_they_are_and_how_long_they_are_so(receiver):
    for path, kind, keeping in routes(receiver):
        answer = receiver.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["Content-Type"] == kind, path
        assert keeping in answer.headers["Cache-Control"], path
        if kind == "application/json":
            assert answer.headers["Content-Disposition"].startswith('inline; filename="'), path


def test_head_is_get_without_a_body(receiver):
    for path, *_ in routes(receiver):
        asked = {"Accept-Encoding": "identity"}
        plain = receiver.get(path, headers=asked)
        shown = receiver.session.head(receiver.url + path, headers=asked, timeout=PATIENCE_S)
        assert (shown.status_code, shown.content) == (200, b""), path
        for name in ("Content-Type", "Content-Length", "Cache-Control", "Content-Disposition", "Link"):
            assert shown.headers.get(name) == plain.headers.get(name), (path, name)


def test_other_methods_are_told_which_there_are(receiver):
    for path, *_ in routes(receiver):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = receiver.session.request(method, receiver.url + path, timeout=PATIENCE_S)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}, path
            assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_long_answers_are_compressed(receiver, encoding):
    decode = {"gzip": gzip.decompress, "zstd": lambda raw: zstandard.ZstdDecompressor().decompressobj().decompress(raw)}
    for path, *_ in routes(receiver):
        if not path.startswith("/v1/"):
            continue
        plain = receiver.get(path, headers={"Accept-Encoding": "identity"}).content
        answer = receiver.get(path, headers={"Accept-Encoding": encoding}, stream=True)
        raw = answer.raw.read(decode_content=False)
        if len(plain) > 1024:
            assert answer.headers["Content-Encoding"] == encoding, path
            assert "accept-encoding" in answer.headers["Vary"].lower()
            raw = decode[encoding](raw)
        else:
            assert "Content-Encoding" not in answer.headers
        assert raw == plain, path


# The log -----------------------------------------------------------------------------------------------------------


def test_the_checkpoint_is_a_signed_note_over_the_whole_chain(receiver, trust, tmp_path, hashes):
    note = got(receiver, "/checkpoint")
    root = forge.root([forge.leaf(bytes.fromhex(block)) for block in hashes])
    text, signature = note.split("\n\n")
    assert text == f"liotbchain/{hashes[0]}\n{TIP + 1}\n{forge.b64(root)}"
    assert signature.startswith(f"— liotbchain/{hashes[0]} ") and signature.count("\n") == 1
    [finding] = findings(tmp_path, note, **trust)
    assert (finding["kind"], finding["size"], finding["signed_by_log"]) == ("checkpoint", TIP + 1, True)


def test_tiles_are_the_hashes_of_the_tree(receiver, hashes):
    blocks = [bytes.fromhex(block) for block in hashes]
    for width in range(1, TIP + 2):
        tile = receiver.get(f"/tile/0/000.p/{width}").content
        assert tile == b"".join(forge.leaf(block) for block in blocks[:width])
        bundle = receiver.get(f"/tile/entries/000.p/{width}").content
        assert bundle == b"".join(b"\x00\x20" + block for block in blocks[:width])


@pytest.mark.parametrize(
    "path",
    [
        f"0/000.p/{TIP + 2}", "0/000", "0/001.p/1", "1/000.p/1", "entries/000", f"entries/000.p/{TIP + 2}",
        "0/0", "0/0000", "0/x000/000.p/1", "0/000.p/0", "0/000.p/01", "0/000.p/256", "0/000.p/", "0/000.p",
        "00/000.p/1", "64/000.p/1", "-1/000.p/1", "x/000.p/1", "Entries/000.p/1", "0/000.p/1/", "0/000.q/1",
        "63/x999/x999/x999/x999/x999/999", "0/x018/x446/x744/x073/x709/551/616", "0/%30%30%30.p/+1",
    ],
)  # fmt: skip
def test_what_is_no_tile_is_not_found(receiver, path):
    answer = receiver.get("/tile/" + path)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_tile"), answer.text


@pytest.mark.parametrize("path,status", [("/tile/{level}/{index}", "404"), ("/checkpoint", "503")])
def test_refusals_have_the_type_that_is_documented(receiver, path, status):
    documented = receiver.get("/openapi.json").json()["paths"][path]["get"]["responses"][status]["content"]
    assert list(documented) == [receiver.get("/tile/0/0").headers["Content-Type"]]
