"""A client for transparency logs that others wrote (aics-tlog) follows the chain as one."""

import base64
import json
import random

import aics_tlog as others
import pytest

import signer as keys
from program import Receiver
from proofs import consistency, got, send, size_of, status

BLOCKS = 1000


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A receiver with more blocks than three tiles hold, and a checkpoint from each stage of its growth."""
    device = keys.new_ed25519()
    with Receiver(tmp_path_factory.mktemp("log"), DIFFICULTY=0) as receiver:
        receiver.notes = [receiver.get("/checkpoint").text]
        for size in (255, 256, 257, 600, BLOCKS):
            send(receiver, [device], size - size_of(receiver.notes[-1]))
            receiver.notes.append(receiver.get("/checkpoint").text)
        receiver.sent = send(receiver, [device], 3)
        yield receiver


@pytest.fixture(scope="module")
def log_key(long):
    return others.parse_vkey(status(long)["log_key"])


@pytest.fixture(scope="module")
def tiles(long):
    return others.HttpTileReader(long.url, proxies={})


def verified(note, log_key):
    """The checkpoint of a note that the log signed."""
    verdict = others.verify_checkpoint(others.parse_note(note), log_key, expected_origin=log_key.name)
    assert verdict.ok, verdict.error
    return others.parse_checkpoint(others.parse_note(note).text)


def test_every_checkpoint_is_one_to_others(long, log_key, tiles):
    sizes = [verified(note, log_key).size for note in long.notes]
    assert sizes == [1, 255, 256, 257, 600, BLOCKS]
    newest = verified(tiles.read_checkpoint().decode(), log_key)
    assert newest.size == BLOCKS + 3
    assert newest.origin == "liotbchain/" + status(long)["genesis"]


def test_others_audit_every_tile_at_every_size(long, log_key, tiles):
    for note in [*long.notes, tiles.read_checkpoint().decode()]:
        checkpoint = verified(note, log_key)
        report = others.audit_tiles(tiles, checkpoint.size, checkpoint.root)
        level_0 = -(-checkpoint.size // 256)
        assert (report.tiles, report.bundles) == (level_0 + (checkpoint.size >= 256), level_0)
    assert tiles.stats["errors"] == 0, tiles.last_errors


def test_entries_are_the_hashes_of_the_blocks(long, log_key, tiles):
    checkpoint = verified(long.notes[-1], log_key)
    reader = others.VerifiedTileReader(tiles, checkpoint.size, checkpoint.root)
    for height in [0, 1, 254, 255, 256, 257, 511, 512, BLOCKS - 1, *random.Random(1).sample(range(BLOCKS), 20)]:
        entry = reader.entry(height)
        assert entry.hex() == long.get(f"/v1/blocks/{height}").json()["hash"]
        proof = others.inclusion_proof_from_tiles(reader, height, checkpoint.size)
        assert others.verify_leaf_inclusion(entry, height, checkpoint.size, proof, checkpoint.root)
        # Our own proof is theirs, hash by hash.
        ours = json.loads(got(long, "/v1/proofs/inclusion", height=height, to=checkpoint.size))
        assert ours["block"]["history_path"] == [base64.b64encode(it).decode() for it in proof]
        assert not others.verify_leaf_inclusion(entry, height ^ 1, checkpoint.size, proof, checkpoint.root)


def test_checkpoints_go_on_from_one_another(long, log_key, tiles):
    checkpoints = [verified(note, log_key) for note in long.notes]
    for earlier in checkpoints:
        for later in checkpoints[checkpoints.index(earlier) :]:
            proof = others.consistency_proof_from_tiles(tiles, earlier.size, later.size)
            assert others.verify_consistency(earlier.size, later.size, earlier.root, later.root, proof)
            ours = json.loads(consistency(long, **{"from": earlier.size, "to": later.size}))["path"]
            assert ours == [base64.b64encode(it).decode() for it in proof]


def test_others_put_an_entry_into_a_bundle_of_their_own(long, log_key, tiles):
    note = long.notes[-1]
    checkpoint = verified(note, log_key)
    reader = others.VerifiedTileReader(tiles, checkpoint.size, checkpoint.root)
    for height in (0, 300, BLOCKS - 1):
        bundle = others.bundle_from_tiles(reader, height, note).to_json()
        verdict = others.verify_bundle(bundle, log_key, expected_origin=log_key.name)
        assert verdict.ok, verdict.error


def test_others_check_a_tlog_proof_as_far_as_the_block(long, log_key):
    """Read by the specification's words: others' packages for Python do not read this form yet."""
    for transaction in long.sent:
        head, note = got(long, f"/v1/transactions/{transaction}/tlog-proof").split("\n\n", 1)
        first, extra, index, *path = head.split("\n")
        assert (first, extra.split(" ")[0], index.split(" ")[0]) == ("c2sp.org/tlog-proof@v1", "extra", "index")
        checkpoint = verified(note, log_key)
        height = int(index.removeprefix("index "))
        entry = bytes.fromhex(long.get(f"/v1/blocks/{height}").json()["hash"])
        path = [base64.b64decode(line, validate=True) for line in path]
        assert others.verify_leaf_inclusion(entry, height, checkpoint.size, path, checkpoint.root)
