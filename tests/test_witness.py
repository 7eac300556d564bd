"""`liotbchain witness`: what it cosigns, what it refuses, what it keeps, and that no kill makes it cosign a fork."""

import itertools
import json
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import threading
import time

import pytest
import requests
from aics_tlog import MerkleTree, parse_note, parse_vkey, verify_checkpoint
from aics_witness.feeder import BadWitnessResponse, WitnessClient, WitnessRejected, merge_cosignatures

import raw_http
import strace
from program import PATIENCE_S, Program, Receiver, Server, run, wait_until
from transparency_log import Key, Log, b64, body, consistency, root_of, verify_cosignature

ROUNDS = 60 if os.environ.get("LIOTBCHAIN_LONG") == "1" else 15
SIZE_TYPE = "text/x.tlog.size"


class Witness(Server):
    """`liotbchain witness` on a free port, which follows these logs."""

    def __init__(self, folder, *logs, urls=None, **settings):
        self.policy = folder / "policy.txt"
        urls = urls or {}
        lines = [f"log {log.key.vkey} {urls.get(log.name, '')}".strip() for log in logs]
        self.policy.write_text("\n".join([*lines, "quorum none", ""]))
        super().__init__("witness", "WITNESS_LISTEN", folder, {"WITNESS_POLICY": self.policy} | settings)

    @property
    def data_dir(self):
        return self.folder / "data"

    @property
    def name_of_key(self):
        return self.vkey.split("+")[0]

    def __enter__(self):
        super().__enter__()
        try:
            return self.ready()
        except BaseException:
            self.kill()
            raise

    def ready(self):
        wait_until("the witness to be up", lambda: self.answers("/healthz"))
        self.vkey = self.get("/").json()["verifier_key"]
        return self

    def restart(self):
        self.kill()
        self.start()
        return self.ready()

    def add(self, text):
        return self.post("/add-checkpoint", data=text.encode() if isinstance(text, str) else text)

    def cosigns(self, log, old, size=None, **checkpoint):
        """Submits the truth, and verifies the answer."""
        note = log.checkpoint(size, **checkpoint)
        answer = self.add(body(old, log.proof(old, size), note))
        assert answer.status_code == 200, answer.text
        answer.encoding = "utf-8"
        return verify_cosignature(self.vkey, note, answer.text)

    def evidence(self):
        return self.get("/evidence").json()["evidence"]

    def log(self, place=0):
        return self.get("/v1/logs").json()["logs"][place]


@pytest.fixture
def log():
    return Log().grow(8)


@pytest.fixture
def witness(tmp_path, log):
    with Witness(tmp_path, log) as witness:
        yield witness


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code
    return answer.json()["detail"]


def conflict(answer, size):
    assert (answer.status_code, answer.headers["Content-Type"], answer.text) == (409, SIZE_TYPE, f"{size}\n")


def test_cosigns_what_grows_and_says_from_where_to_go_on(witness, log):
    before = int(time.time())
    sizes = [1, 2, 3, 7, 8, 8]
    times = [witness.cosigns(log, old, size) for old, size in zip([0, *sizes], sizes)]
    assert before <= times[0] and times == sorted(times) and times[-1] <= int(time.time()) + 1
    for old in [0, 1, 5, 7]:
        conflict(witness.add(log.submission(old)), 8)
    log.grow(30)
    conflict(witness.add(log.submission(37)), 8)
    witness.cosigns(log, 8)
    shown = witness.log()
    assert (shown["origin"], shown["size"], shown["evidence"]) == (log.name, 38, 0)
    assert shown["root"] == root_of(log.leaves).hex() and shown["checkpoint"].startswith(log.name)
    assert witness.evidence() == []
    metrics = witness.get("/metrics").text
    assert "liotbchain_witness_cosignatures_total 7" in metrics
    assert f'liotbchain_witness_log_size{{origin="{log.name}"}} 38' in metrics


def test_an_empty_log_and_lines_that_the_log_adds(tmp_path):
    log = Log()
    with Witness(tmp_path, log) as witness:
        witness.cosigns(log, 0, 0)
        problem(witness.add(body(0, [], log.checkpoint(0, root=b"x" * 32))), 422, "bad_proof")
        log.grow(3)
        witness.cosigns(log, 0, 3, extra="an extension\n")
        problem(witness.add(body(3, [b"y" * 32], log.checkpoint(3))), 422, "bad_proof")
        assert witness.evidence() == []


def test_the_line_for_other_peoples_policies(tmp_path, log):
    name = "witness.example/anna"
    with Witness(tmp_path, log, WITNESS_NAME=name) as witness:
        line = f"witness {name} {witness.vkey} {witness.url}"
        assert line in witness.stderr.splitlines()
        key = witness.data_dir / "witness_key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert "PRIVATE" in key.read_text() and "PRIVATE" not in witness.output
        witness.cosigns(log, 0)
        assert witness.terminate() == 0


def test_refuses_strangers_and_what_is_not_signed(witness, log):
    stranger = Log("log.example/other", log.leaves)
    detail = problem(witness.add(stranger.submission(0)), 404, "unknown_log")
    assert stranger.name in detail and "WITNESS_POLICY" in detail
    thief = Log(log.name, log.leaves)
    problem(witness.add(thief.submission(0)), 403, "not_signed")
    # The log's name and key id under a signature that is another's.
    changed = log.submission(0).replace("\n8\n", "\n9\n")
    problem(witness.add(changed), 403, "not_signed")
    # Signatures by unknown keys are passed over, and are not kept.
    note = log.checkpoint()
    other = Key("someone.example").line(note[: note.rindex("\n\n") + 1])
    answer = witness.add(body(0, [], note + other))
    assert answer.status_code == 200
    assert "someone" not in witness.log()["checkpoint"]


def test_refuses_to_go_back(witness, log):
    witness.cosigns(log, 0)
    problem(witness.add(body(8, [], log.checkpoint(5))), 400, "backwards")
    conflict(witness.add(log.submission(5, 5)), 8)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"old 0",
        b"old 0\n",
        b"old 0\n\n",
        b"old -1\n\nNOTE",
        b"old 00\n\nNOTE",
        b"old 0 \n\nNOTE",
        b"old 0\nNOTE",
        b"old 0\n\n\nNOTE",
        b"old 0\nAAAA\n\nNOTE",
        b"old 0\r\n\r\nNOTE",
        b"old 99999999999999999999\n\nNOTE",
        b"old 0\n" + b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n" * 64 + b"\nNOTE",
        b"old 0\n\n\xff\xfe\n1\nx\n\n- y z\n",
        b"\0" * 1000,
        b'{"old": 0}',
    ],
)
def test_garbage_is_answered_400(module_witness, text):
    witness, log = module_witness
    answer = witness.add(text.replace(b"NOTE", log.checkpoint().encode()))
    problem(answer, 400, "bad_submission")


@pytest.fixture(scope="module")
def module_witness(tmp_path_factory):
    log = Log().grow(8)
    with Witness(tmp_path_factory.mktemp("witness"), log) as witness:
        yield witness, log


def test_random_damage_never_gets_a_cosignature(module_witness):
    witness, log = module_witness
    random.seed(7)
    whole = log.submission(0).encode()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        if bytes(damaged) != whole:
            assert witness.add(bytes(damaged)).status_code in (400, 403, 404, 409)
    assert "size" not in witness.log()


def test_oversize_and_other_methods_are_refused(module_witness):
    witness, _ = module_witness
    problem(witness.add(b"old 0\n" + b"a" * 200_000), 413, "body_too_large")
    answer = raw_http.request(
        witness.address, "POST", "/add-checkpoint", [("Host", witness.address), ("Content-Length", "999999999")]
    )
    assert answer.status == 413
    assert witness.get("/add-checkpoint").status_code == 405
    assert witness.post("/add-checkpoint", headers={"Host": "evil.example"}).status_code == 421
    assert witness.post("/add-checkpoint", headers={"Origin": "http://evil.example"}).status_code == 403
    for path in ["/evidence/1", "/evidence/-1", "/evidence/99999999999999999999", "/evidence/x"]:
        problem(witness.get(path), 404, "evidence_not_found")
    assert witness.get("/apidocs/").status_code == 200


def test_a_fork_is_kept_as_evidence(witness, log):
    witness.cosigns(log, 0)
    first = witness.log()["checkpoint"]
    forked = log.checkpoint(8, root=b"f" * 32)
    detail = problem(witness.add(body(8, [], forked)), 409, "fork")
    assert "two histories" in detail
    (piece,) = witness.evidence()
    assert (piece["kind"], piece["origin"]) == ("fork", log.name)
    file = witness.data_dir / "evidence" / piece["file"]
    kept = json.loads(file.read_text())
    assert kept == {"type": "fork", "version": 1, "first": first, "second": forked, "proof": [], "old": 8}
    assert witness.get(f"/evidence/{piece['number']}").json() == kept
    witness.wait_for_output("ERROR.*a fork is proven")
    # Once is enough, whatever proof and strange signatures come with it.
    stranger = Key("x").line("y")
    conflict(witness.add(body(3, [b"p" * 32], forked + stranger)), 8)
    problem(witness.add(body(8, [b"q" * 32], forked)), 409, "fork")
    assert len(witness.evidence()) == 1
    # A fork is found too where the submission goes on from another size.
    conflict(witness.add(body(0, [], log.checkpoint(8, root=b"g" * 32))), 8)
    assert [piece["number"] for piece in witness.evidence()] == [2, 1]
    assert f'liotbchain_witness_forks{{origin="{log.name}"}} 2' in witness.get("/metrics").text
    # The log may go on with the history that was cosigned.
    witness.cosigns(log.grow(1), 8)
    file.unlink()
    witness.restart()
    assert json.loads(file.read_text()) == kept, "the database has it, and writes it again"
    assert len(witness.evidence()) == 2


def test_a_wrong_proof_is_a_doubt_and_never_pushes_a_fork_out(witness, log):
    witness.cosigns(log, 0, 4)
    for proof in [[], [b"x" * 32], [*log.proof(4), b"x" * 32], log.proof(3, 7)]:
        problem(witness.add(body(4, proof, log.checkpoint(7))), 422, "bad_proof")
    (piece,) = witness.evidence()
    assert piece["kind"] == "doubt", "one pair of checkpoints is kept once"
    kept = json.loads((witness.data_dir / "evidence" / piece["file"]).read_text())
    assert (kept["old"], kept["proof"]) == (4, [])
    problem(witness.add(body(4, [], log.checkpoint(4, root=b"f" * 32))), 409, "fork")
    for number in range(120):
        root = number.to_bytes(32, "big")
        problem(witness.add(body(4, [b"x" * 32], log.checkpoint(9, root=root))), 422, "bad_proof")
    pieces = witness.evidence()
    assert [piece["kind"] for piece in pieces].count("doubt") == 100
    assert [piece["kind"] for piece in pieces].count("fork") == 1
    assert len(list((witness.data_dir / "evidence").iterdir())) == 101
    witness.cosigns(log, 4)


def test_keeps_its_state_and_its_key_over_a_restart(witness, log):
    witness.cosigns(log, 0, 5)
    vkey = witness.vkey
    witness.restart()
    assert witness.vkey == vkey
    conflict(witness.add(log.submission(0)), 5)
    witness.cosigns(log, 5)


def test_a_clock_that_was_put_back_makes_no_earlier_statement(witness, log):
    witness.cosigns(log, 0, 5)
    assert witness.terminate() == 0
    later = int(time.time()) + 1_000
    with sqlite3.connect(witness.data_dir / "witness.db") as database:
        database.execute("UPDATE logs SET cosigned_s = ?", [later])
    database.close()
    witness.start()
    witness.ready()
    assert witness.cosigns(log, 5, 5) == later
    assert witness.cosigns(log, 5, 8) == later


class Traced:
    """Watches all threads of a witness, those too that it starts meanwhile."""

    def __init__(self, witness, *options):
        self.log_path = witness.folder / "strace"
        self.command = ["strace", "-f", "-y", "-s", "64", "-o", self.log_path, "-p", str(witness.process.pid), *options]

    def __enter__(self):
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError:
            raise AssertionError(strace.NOT_FOUND) from None
        told = self.process.stderr.readline()
        assert "attached" in told, f"{told}{strace.NOT_PERMITTED}"
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE_S)

    def lines(self):
        return self.log_path.read_text(errors="replace").splitlines()


def test_what_is_cosigned_is_on_the_disk_before_the_answer_leaves(witness, log):
    witness.cosigns(log, 0, 3)
    with Traced(witness, "-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg") as traced:
        witness.cosigns(log, 3, 5)
    lines = traced.lines()
    synced = [place for place, line in enumerate(lines) if "sync(" in line and "witness.db-wal" in line]
    answered = [place for place, line in enumerate(lines) if "HTTP/1.1 200" in line]
    assert len(synced) == 1 and len(answered) == 1 and synced[0] < answered[0], lines


def test_a_disk_that_fails_to_sync_stops_it_from_cosigning(witness, log):
    witness.cosigns(log, 0, 3)
    note = log.checkpoint(5)
    with Traced(witness, "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"):
        answer = witness.add(body(3, log.proof(3, 5), note))
        problem(answer, 503, "state_unavailable")
        assert witness.name_of_key not in answer.text and "witness.db" not in answer.text
    # The disk is well again; what is in memory may still not be on it.
    for old, size in [(3, 5), (3, 3)]:
        problem(witness.add(log.submission(old, size)), 503, "state_unavailable")
    assert witness.get("/healthz").status_code == 200
    witness.restart()
    known = witness.log()["size"]
    assert known in (3, 5)
    witness.cosigns(log, known, 8)


def test_a_key_without_its_state_does_not_sign(witness, log):
    witness.cosigns(log, 0)
    witness.kill()
    for file in witness.data_dir.glob("witness.db*"):
        file.unlink()
    refused = run("witness", folder=witness.folder, settings=witness.settings)
    assert refused.returncode == 1 and "could cosign a fork" in refused.stderr and "hint: " in refused.stderr


def test_two_witnesses_cannot_share_a_folder(witness):
    second = run("witness", "--witness-listen", "127.0.0.1:0", folder=witness.folder, settings=witness.settings)
    assert second.returncode == 1 and "is in use by process" in second.stderr and "a witness" in second.stderr


@pytest.mark.parametrize(
    "policy, told",
    [
        (None, "WITNESS_POLICY is not set"),
        ("", "quorum"),
        ("quorum none\n", "names no log"),
        ("log nonsense\nquorum none\n", "line 1"),
        ("log KEY ftp://x\nquorum none\n", "no http:// or https:// address"),
        ("log KEY\nlog KEY\nquorum none\n", "twice"),
    ],
)
def test_a_policy_that_is_none_is_told(tmp_path, policy, told):
    settings = {"WITNESS_LISTEN": "127.0.0.1:0"}
    if policy is not None:
        (tmp_path / "p").write_text(policy.replace("KEY", Key("a").vkey))
        settings["WITNESS_POLICY"] = tmp_path / "p"
    refused = run("witness", folder=tmp_path, settings=settings)
    assert refused.returncode == 2 and told in refused.stderr and "hint: " in refused.stderr, refused.stderr
    assert not (tmp_path / "data/witness_key.pem").exists()


def test_validation_needs_a_chain_with_an_address(tmp_path):
    log = Log().grow(1)
    (tmp_path / "p").write_text(f"log {log.key.vkey}\nquorum none\n")
    settings = {"WITNESS_POLICY": tmp_path / "p", "WITNESS_LISTEN": "127.0.0.1:0"}
    refused = run("witness", "--validate", folder=tmp_path, settings=settings)
    assert refused.returncode == 2 and "cannot be checked" in refused.stderr


def test_a_public_address_needs_no_token(tmp_path, log):
    with Witness(tmp_path, log, API_TOKEN="0123456789abcdef") as witness:
        witness.cosigns(log, 0)
    public = {"WITNESS_LISTEN": f"0.0.0.0:{witness.port}", "WITNESS_POLICY": witness.policy}
    with Program("witness", folder=tmp_path, settings=public) as program:
        program.wait_for_output("witness listens")


def test_a_log_may_have_two_keys(tmp_path):
    old, new = Log(leaves=[b"a"]), Log(leaves=[b"a", b"b"])
    with Witness(tmp_path, old, new) as witness:
        witness.cosigns(old, 0)
        witness.cosigns(new, 1)
        assert len(witness.get("/v1/logs").json()["logs"]) == 1


def test_clients_and_verifiers_of_others_get_on_with_it(witness):
    """The feeder and the checkpoint verifier of the packages aics-witness and aics-tlog."""
    log = Log().grow(5)
    log.key, log.name = Key("log.example/test"), "log.example/test"
    tree = MerkleTree()
    witness.kill()
    with Witness(witness.folder, log) as witness:
        client = WitnessClient(witness.url, witness.vkey, max_attempts=1)
        for size in [1, 2, 5, 9, 40]:
            log.grow(max(0, size - len(log.leaves)))
            tree.extend(log.leaves[len(tree) : size])
            note = log.checkpoint(size)
            cosigned = merge_cosignatures(note, client.submit(note, tree.consistency_proof))
            verified = verify_checkpoint(
                parse_note(cosigned),
                parse_vkey(log.key.vkey),
                [parse_vkey(witness.vkey)],
                quorum=1,
                expected_origin=log.name,
                max_age_seconds=60,
            )
            assert verified.ok and verified.size == size, verified
        # A client that knows nothing asks first.
        fresh = WitnessClient(witness.url, witness.vkey, max_attempts=1)
        fresh.submit(log.grow(2).checkpoint(), lambda old, new: consistency(old, log.leaves[:new]))
        # 409 without a size: there is none to go on from. (With one, some clients would ask for ever.)
        with pytest.raises(BadWitnessResponse, match="409"):
            fresh.submit(log.checkpoint(root=b"f" * 32), tree.consistency_proof)
        with pytest.raises(WitnessRejected) as refused:
            fresh.submit(log.grow(1).checkpoint(root=b"f" * 32), lambda old, new: consistency(old, log.leaves[:new]))
        assert refused.value.status == 422


class Branch:
    """One history of a log that forks: branches share the first entry and nothing more."""

    def __init__(self, log, name):
        self.log, self.name = log, name
        self.leaves = [b"common", *(f"{name} {place}".encode() for place in range(200))]

    def submission(self, old, size):
        leaves = self.leaves[:size]
        return body(old, consistency(old, leaves), self.log.checkpoint(size, root=root_of(leaves)))


def test_no_kill_makes_it_cosign_two_histories(tmp_path):
    """Clients submit conflicting histories at once, and SIGKILL comes in between. All that was ever cosigned is one
    history, and no size that was cosigned is forgotten.
    """
    log = Log(leaves=[b"common"])
    branches = [Branch(log, name) for name in "abcd"]
    cosigned = {}  # size: root, of every answer 200 that arrived
    lock = threading.Lock()
    faults = []

    def client(witness, branch, stop, seed):
        chance = random.Random(seed)
        session = requests.Session()
        session.trust_env = False
        known = 0
        try:
            while not stop.is_set():
                size = min(known + chance.randint(0 if known else 1, 3), 200)
                text = branch.submission(known, size)
                try:
                    answer = session.post(witness.url + "/add-checkpoint", data=text.encode(), timeout=30)
                except requests.RequestException:
                    time.sleep(0.005)
                    continue
                if answer.status_code == 200:
                    with lock:
                        # Whoever cosigned two roots of one size has cosigned two histories.
                        root = root_of(branch.leaves[:size])
                        if cosigned.setdefault(size, root) != root:
                            faults.append(f"two roots of size {size}")
                    known = size
                elif answer.headers.get("Content-Type") == SIZE_TYPE:
                    known = int(answer.text)
                elif answer.status_code not in (409, 422):
                    faults.append(f"{answer.status_code} {answer.text}")
                    return
                # Those that lost wait a little, so that the log does not fill with their tries.
                if answer.status_code != 200:
                    time.sleep(chance.random() / 50)
        except Exception as fault:
            faults.append(repr(fault))

    chance = random.Random(11)
    with Witness(tmp_path, log) as witness:
        for number in range(ROUNDS):
            stop = threading.Event()
            seeds = itertools.count(100 * number)
            clients = [
                threading.Thread(target=client, args=(witness, branch, stop, next(seeds)), daemon=True)
                for branch in branches
                for _ in range(2)
            ]
            for thread in clients:
                thread.start()
            time.sleep(chance.random() / 3)
            witness.kill()
            stop.set()
            for thread in clients:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
            witness.restart()
            assert faults == []
            # One branch must hold all of it, and the state must not be behind what was answered.
            one = [b for b in branches if all(root_of(b.leaves[:size]) == root for size, root in cosigned.items())]
            assert one, f"round {number}: no history holds all that was cosigned"
            last = witness.log().get("size", 0)
            assert last >= max(cosigned, default=0), f"round {number}: a size that was cosigned is forgotten"
            if last:
                # From what is kept, only the one history goes on.
                root = witness.log()["root"]
                kept = [b for b in branches if root_of(b.leaves[:last]).hex() == root]
                assert set(map(id, kept)) & set(map(id, one))
                if last > 1:
                    other = next(b for b in branches if b not in kept)
                    problem(witness.add(other.submission(last, last)), 409, "fork")
                    problem(witness.add(other.submission(last, last + 1)), 422, "bad_proof")
    assert len(cosigned) >= 3, "the rounds were too short to show anything"


# A chain behind the log ---------------------------------------------------------------------------------------------


def blocks_of(receiver):
    lines = [json.loads(line) for line in receiver.get("/v1/export").text.splitlines()]
    return [line for line in lines if line["type"] == "block"]


def log_of(receiver):
    """A log whose key the test made over the chain of a receiver."""
    blocks = blocks_of(receiver)
    return Log(f"liotbchain/{blocks[0]['hash']}", [bytes.fromhex(block["hash"]) for block in blocks])


def fill(receiver, count, text="x"):
    import signer

    device = signer.new_ed25519()
    for number in range(count):
        answer = receiver.send(device.item(json.dumps({"device": text, "n": number})))
        assert answer.status_code == 200, answer.text


def test_a_root_over_block_hashes_is_the_history_root(receiver):
    fill(receiver, 5)
    blocks = blocks_of(receiver)
    log = log_of(receiver)
    # The header's history_root begins behind version, prev_block_hash and transactions_root.
    for height in range(1, len(blocks)):
        assert bytes.fromhex(blocks[height]["header"])[66:98] == root_of(log.leaves[:height])


def test_checks_every_block_before_it_cosigns(tmp_path, receiver):
    fill(receiver, 5)
    log = log_of(receiver)
    folder = tmp_path / "w"
    folder.mkdir()
    with Witness(folder, log, urls={log.name: receiver.url}, WITNESS_VALIDATE="true") as witness:
        assert witness.get("/").json()["validating"] is True
        witness.cosigns(log, 0, 1)
        witness.cosigns(log, 1, 4)
        witness.cosigns(log, 4, 4)
        witness.cosigns(log, 4, 6)
        copy = witness.data_dir / f"witness-{log.name.removeprefix('liotbchain/')}.db"
        assert copy.exists()
        # Later blocks are fetched from where the copy ends, also after a kill.
        fill(receiver, 400, "more")
        log.leaves = log_of(receiver).leaves
        witness.restart()
        witness.cosigns(log, 6, 300)
        witness.cosigns(log, 300)
        # A root that is not the chain's.
        detail = problem(witness.add(body(406, [b"x" * 32], log.checkpoint(500, root=b"f" * 32))), 422, "bad_proof")
        assert "bad_proof" not in detail
        witness.wait_for_output("witness listens")
        # Blocks that the receiver does not have yet.
        longer = Log(log.name, [*log.leaves, b"z" * 32])
        longer.key = log.key
        problem(witness.add(longer.submission(406)), 503, "chain_unchecked")
        receiver.kill()
        problem(witness.add(longer.submission(406)), 503, "chain_unchecked")
        # What it has checked it goes on cosigning.
        witness.cosigns(log, 406)
        assert witness.terminate() == 0
    # The copy is a chain like any other.
    checked = run("chain", "validate", folder=folder, settings={"DATABASE_URL": f"sqlite:{copy}"})
    assert checked.stdout.startswith("valid: 406 blocks"), checked.stdout


def test_another_root_than_the_chain_has_is_refused(tmp_path, receiver):
    fill(receiver, 3)
    log = log_of(receiver)
    lies = Log(log.name, [*log.leaves[:3], b"l" * 32])
    lies.key = log.key
    with Witness(tmp_path, log, urls={log.name: receiver.url}, WITNESS_VALIDATE="true") as witness:
        witness.cosigns(log, 0, 2)
        # Consistent with what was cosigned, and yet not what the receiver serves.
        detail = problem(witness.add(lies.submission(2)), 422, "bad_chain")
        assert "root" in detail
        (piece,) = witness.evidence()
        assert piece["kind"] == "invalid"
        kept = json.loads((witness.data_dir / "evidence" / piece["file"]).read_text())
        assert kept["checkpoint"] == lies.checkpoint()
        witness.wait_for_output("ERROR.*its chain is refused")
        # The copy is not spoilt.
        witness.cosigns(log, 2, 4)


class Liar:
    """Stands before a receiver, and changes what it answers."""

    def __init__(self, receiver, change):
        import http.server

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = requests.get(receiver.url + self.path, timeout=30)
                status, content = answer.status_code, answer.content
                if self.path.startswith("/v1/blocks"):
                    page = answer.json()
                    change(page["blocks"])
                    content = json.dumps(page).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_block_that_breaks_a_rule_is_named_and_kept(tmp_path, receiver):
    fill(receiver, 5)
    log = log_of(receiver)
    lying = threading.Event()
    lying.set()

    def change(blocks):
        for block in blocks:
            if lying.is_set() and block["height"] == 3:
                block["transactions"][0]["payload"] += " "

    with (
        Liar(receiver, change) as liar,
        Witness(tmp_path, log, urls={log.name: liar.url}, WITNESS_VALIDATE="true") as witness,
    ):
        witness.cosigns(log, 0, 3)
        detail = problem(witness.add(log.submission(3)), 422, "bad_chain")
        assert re.search(r"block 3: transaction 0: .*signature", detail), detail
        (piece,) = witness.evidence()
        kept = json.loads((witness.data_dir / "evidence" / piece["file"]).read_text())
        assert kept["type"] == "invalid" and json.loads(kept["block"])["height"] == 3
        problem(witness.add(log.submission(3)), 422, "bad_chain")
        assert len(witness.evidence()) == 1
        lying.clear()
        witness.cosigns(log, 3)


def test_a_redirect_is_not_followed(tmp_path, receiver):
    import http.server

    fill(receiver, 1)
    log = log_of(receiver)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(307)
            self.send_header("Location", receiver.url + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = {log.name: f"http://127.0.0.1:{server.server_address[1]}"}
    try:
        with Witness(tmp_path, log, urls=urls, WITNESS_VALIDATE="true") as witness:
            assert "307" in problem(witness.add(log.submission(0)), 503, "chain_unchecked")
    finally:
        server.shutdown()
        server.server_close()


def consistency_file(old, new, path):
    anchor = {"genesis_path": []}
    file = {"type": "consistency", "version": 1, "genesis": "00" * 32, "path": [b64(part) for part in path]}
    return json.dumps(file | {"from": anchor | {"size": old}, "to": anchor | {"size": new}})


def test_what_a_log_shows_to_all_is_compared_with_what_was_cosigned(tmp_path):
    import http.server

    log = Log().grow(6)
    shown = {"/checkpoint": log.checkpoint(4)}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = shown.get(self.path, "").encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = {log.name: f"http://127.0.0.1:{server.server_address[1]}"}
    try:
        with Witness(tmp_path, log, urls=urls, WITNESS_POLL=1) as witness:
            witness.cosigns(log, 0, 6)
            time.sleep(2.5)
            assert witness.evidence() == [], "another size without a proof shows nothing"
            shown["/checkpoint"] = log.checkpoint(6, root=b"s" * 32)
            wait_until("the evidence", witness.evidence)
            (piece,) = witness.evidence()
            assert piece["kind"] == "fork"
            kept = json.loads(witness.get(f"/evidence/{piece['number']}").text)
            assert kept["second"] == shown["/checkpoint"] and b64(root_of(log.leaves)) in kept["first"]
            # Where the receiver proves, other sizes are compared too.
            longer = Log(log.name, [*log.leaves, b"seven"])
            longer.key = log.key
            shown["/v1/proofs/consistency?from=6&to=7"] = consistency_file(6, 7, longer.proof(6))
            shown["/checkpoint"] = longer.checkpoint()
            time.sleep(2.5)
            assert len(witness.evidence()) == 1
            shown["/checkpoint"] = longer.checkpoint(root=b"t" * 32)
            wait_until("the doubt", lambda: len(witness.evidence()) == 2)
            assert witness.evidence()[0]["kind"] == "doubt"
            shown["/checkpoint"] = "nonsense"
            witness.wait_for_output("cannot look at what the log shows")
    finally:
        server.shutdown()
        server.server_close()
