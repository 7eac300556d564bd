"""Requests of the Python original, recorded and remade: accepted or refused as docs/compatibility.md says."""

import base64
import json
from pathlib import Path

import pytest

import cases
import raw_http
from program import ROOT, Receiver

VECTORS = ROOT / "testdata/original"
SENT = json.loads((VECTORS / "sender-payloads.json").read_text())["payloads"]
TAMPERED = json.loads((VECTORS / "tampered-payloads.json").read_text())["payloads"]

# The only recorded requests of the original's sender that ours refuses.
REFUSED_ON_PURPOSE = {
    "0 items (empty list)": "400 empty_list",
    "long string 100 kB": "413 payload_too_large",
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    with Receiver(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


def send(receiver, request):
    body = [request.body] if isinstance(request.body, bytes) else request.body
    length = sum(map(len, body))
    headers = [("Host", receiver.address), ("Connection", "close"), ("Content-Length", length), *request.headers.items()]
    return raw_http.request(receiver.address, request.method, request.path, headers, body)


def stored(receiver):
    """Counts the transactions on the chain: what is stored, not what was answered."""
    # Python reads no integer of 5,000 digits; here they only need counting.
    blocks = json.loads(receiver.get("/get_chain").content, parse_int=float)
    return sum(len(block["data"]) for block in blocks[1:])


def check_accepted(answer, ids):
    assert answer.status == 200, answer.body
    body = answer.json()
    assert body["status"] == "success"
    assert body["message"] == "Data added to blockchain"
    assert [item["id"] for item in body["items"]] == ids
    for item in body["items"]:
        assert item.keys() == {"id", "status", "height", "position", "block_hash"}
        assert item["status"] == "sealed"
        assert item["height"] >= 1
        assert item["position"] == 0
        assert len(bytes.fromhex(item["block_hash"])) == 32


def check_refused(answer, expected):
    """Expected is a status and, where the answer has a body, a code."""
    status, *code = expected.split()
    assert answer.status == int(status), answer.body
    if not code:
        return
    body = answer.json()
    assert body["status"] == "error"
    assert len(body["message"]) > 10
    if code[0] in cases.ITEM_CODES:
        assert body["code"] == "invalid_items"
        assert [item["code"] for item in body["items"]] == code
        assert all(len(item["message"]) > 10 for item in body["items"])
    else:
        assert body["code"] == code[0]


@pytest.mark.parametrize("recorded", SENT, ids=lambda recorded: recorded["name"])
def test_takes_what_the_original_sender_sends(receiver, recorded):
    headers = dict(line.split(": ", 1) for line in recorded["request_headers"])
    request = cases.Request(base64.b64decode(recorded["body_b64"]))
    request.headers = {"Content-Type": headers["Content-Type"], "User-Agent": headers["User-Agent"]}
    answer = send(receiver, request)
    if recorded["name"] in REFUSED_ON_PURPOSE:
        check_refused(answer, REFUSED_ON_PURPOSE[recorded["name"]])
        return
    signed = [base64.b64decode(message) for message in recorded["signed_messages_b64"]]
    key_id = key_id_of(json.loads(request.body)[0]["public_key"])
    check_accepted(answer, [cases.transaction_id(key_id, message) for message in signed])
    chain = receiver.get("/get_chain").content.decode()
    for message in signed:
        assert message.decode() in chain


def key_id_of(pem):
    der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
    return cases.hashlib.sha256(der).digest()


@pytest.mark.parametrize("recorded", TAMPERED, ids=lambda recorded: recorded["name"])
def test_answers_what_the_original_refused(receiver, recorded):
    request = cases.Request(base64.b64decode(recorded["body_b64"]))
    request.headers = {"Content-Type": recorded["content_type"]} if recorded["content_type"] else {}
    before = stored(receiver)
    answer = send(receiver, request)
    expected = cases.TAMPERED[recorded["name"]]
    if expected == "200":
        assert answer.status == 200, answer.body
        assert [item["status"] for item in answer.json()["items"]] == ["sealed"]
    else:
        check_refused(answer, expected)
        assert stored(receiver) == before


def test_every_tampered_request_has_an_expectation():
    assert {recorded["name"] for recorded in TAMPERED} == cases.TAMPERED.keys()


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_answers_the_case_table(receiver, case):
    request = case.request()
    before = stored(receiver)
    answer = send(receiver, request)
    new = stored(receiver) - before
    if case.ours.startswith("200") and request.statements:
        check_accepted(answer, request.ids)
        expected = {"200": len(request.ids), "200 once": 1, "200 again": 0}[case.ours]
        assert new == expected
        chain = receiver.get("/get_chain").content.decode()
        for _, text in request.statements:
            assert text in chain
    else:
        check_refused(answer, case.ours)
        assert new == 0


def test_names_the_items_at_fault(receiver):
    good, other = cases.device().item(cases.reading()), cases.device().item(cases.reading(), signed="other")
    answer = send(receiver, cases.items(good, other, good, "7", '{"data": 1}'))
    assert answer.status == 400
    assert [(item["index"], item["code"]) for item in answer.json()["items"]] == [
        (1, "invalid_signature"),
        (3, "not_an_object"),
        (4, "missing_key"),
    ]


def test_compatibility_page_is_what_the_table_says():
    page = Path(ROOT / "docs/compatibility.md").read_text()
    assert page == cases.page(len(SENT)), "run: python3 tests/cases.py > docs/compatibility.md"
