"""Proofs outlive what made them: power cuts, restarts, and a chain that grows in the meantime."""

import json
import random
import time

import signer as keys
from program import Receiver, run, wait_until
from proofs import consistency, got, must_hold, pages, receipt, send, size_of, status
from test_crash import Load

PER_BLOCK = 3


def test_what_was_acknowledged_under_load_is_proven_after_power_cuts(tmp_path, database_url):
    randomness = random.Random()
    settings = {"TRANSACTIONS_PER_BLOCK": PER_BLOCK, "SEAL_WAIT": 2, "DATABASE_URL": database_url}
    kept = []  # receipts, and the checkpoint of the moment
    with Receiver(tmp_path, **settings) as receiver:
        with Load(receiver.url, strict=False) as load:
            for _ in range(3):
                load.wait_for_answers(randomness.randint(5, 30))
                # While others write: a proof that is handed out holds.
                known = [one for client in load.clients for one in list(client.acknowledged)[:2]]
                answers = [receiver.get(f"/v1/transactions/{one}/receipt") for one in known]
                assert {answer.status_code for answer in answers} <= {200, 409}
                kept += [answer.text for answer in answers if answer.status_code == 200]
                note = got(receiver, "/checkpoint")
                time.sleep(randomness.random() / 20)
                receiver.kill()
                receiver.restart()
                # The tree that was signed before is the beginning of today's.
                now = got(receiver, "/checkpoint")
                link = consistency(receiver, **{"from": size_of(note), "to": size_of(now)})
                must_hold(tmp_path, note, link, checkpoint=now)
            load.wait_for_answers(20)
        trust = {"policy": f"log {status(receiver)['log_key']}\nquorum none\n", "genesis": status(receiver)["genesis"]}
        receiver.kill()
        receiver.restart()
        sealed = [one for one in load.acknowledged if place(receiver, one)["status"] == "sealed"]
        assert len(sealed) >= len(load.acknowledged) - PER_BLOCK
        files = [receipt(receiver, one) for one in randomness.sample(sorted(sealed), min(len(sealed), 150))]
        must_hold(tmp_path, *files, **trust)
        # What was got before the cuts still holds, and is joined to what is signed now.
        now = got(receiver, "/checkpoint")
        sizes = {json.loads(file)["anchor"]["size"] for file in kept}
        links = [consistency(receiver, **{"from": size, "to": size_of(now)}) for size in sorted(sizes)]
        assert kept
        must_hold(tmp_path, *kept, *links, checkpoint=now, **trust)


def place(receiver, transaction):
    return receiver.get(f"/v1/transactions/{transaction}").json()


def test_the_operators_key_and_the_chain_outlive_a_restart(tmp_path):
    device = keys.new_ed25519()
    with Receiver(tmp_path) as receiver:
        sent = send(receiver, [device], 4)
        before = [receipt(receiver, one) for one in sent]
        told, note = status(receiver), got(receiver, "/checkpoint")
        receiver.kill()
        receiver.restart()
        assert status(receiver)["log_key"] == told["log_key"] and got(receiver, "/checkpoint") == note
        assert [receipt(receiver, one) for one in sent] == before
        send(receiver, [device], 3)
        now = got(receiver, "/checkpoint")
        links = [consistency(receiver, **{"from": size, "to": size_of(now)}) for size in (4, 5)]
        must_hold(tmp_path, *before, *links, checkpoint=now, policy=f"log {told['log_key']}\nquorum none\n")


def test_receivers_with_one_store_and_one_key_prove_the_same(tmp_path, cluster):
    """Receivers that share a database need the same key; then no client sees which of them answered."""
    settings = {"DATABASE_URL": cluster.new_database()}
    device = keys.new_ed25519()
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        (folder / "data").mkdir(parents=True)
    with Receiver(folders[0], **settings) as one:
        key = folders[1] / "data/operator_key.pem"
        key.write_bytes((folders[0] / "data/operator_key.pem").read_bytes())
        key.chmod(0o600)
        with Receiver(folders[1], **settings) as other:
            sent = send(one, [device], 3) + send(other, [device], 3)
            wait_until("both to know the newest block", lambda: got(one, "/checkpoint") == got(other, "/checkpoint"))
            for transaction in sent:
                assert receipt(one, transaction) == receipt(other, transaction)


def test_the_histories_of_all_keys_are_the_export(tmp_path, database_url):
    """300 readings by three keys, in blocks of many sizes, over restarts: each stands in its key's history, once."""
    randomness = random.Random(300)
    devices = [keys.new_ed25519(), keys.new_ec(), keys.new_ed25519()]
    sent = 0
    for per_block in (1, 13, 4, 40):
        with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=per_block) as receiver:
            for _ in range(80 // per_block):
                # Some blocks are of one key alone.
                sent += len(send(receiver, randomness.sample(devices, randomness.randint(1, 3)), per_block))
            assert receiver.terminate() == 0
    assert sent >= 300
    exported = {}
    path = tmp_path / "chain.ndjson"
    done = run("chain", "export", "--out", path, folder=tmp_path, settings={"DATABASE_URL": database_url})
    assert done.returncode == 0, done.stderr
    for line in map(json.loads, path.read_text().splitlines()):
        if line["type"] == "block":
            for position, transaction in enumerate(line["transactions"]):
                exported[line["height"], position] = transaction
    found = []
    with Receiver(tmp_path, DATABASE_URL=database_url) as receiver:
        for key_id in [*(device.key_id.hex() for device in devices), "00" * 32]:
            files = list(pages(receiver, key_id, limit=randomness.randint(1, 60)))
            must_hold(tmp_path, *files)
            for page in map(json.loads, files):
                for block in page["blocks"]:
                    height = int(block["header"][196:204], 16)
                    if page["from"] <= height <= page["to"]:
                        found += [((height, entry["position"]), entry["transaction"]) for entry in block["entries"]]
    assert dict(found) == exported and len(found) == sent + 1
