"""Witnesses that others wrote (aics-witness) cosign the chain's checkpoints, and refuse what contradicts them."""

import json
import shutil

import aics_tlog as others
import pytest

import signer as keys
from forge import COSIGNER, NoteSigner, policy
from program import Receiver, wait_until
from proofs import consistency, findings, got, must_hold, must_refuse, receipt, send, size_of, status
from witness import Witness


class Witnessed:
    """A receiver whose checkpoints are cosigned, and who does it."""

    def __init__(self, folder, names, quorum, **settings):
        self.folder = folder
        self.device = keys.new_ed25519()
        self.witnesses = [Witness(folder, name) for name in names]
        names = [f"w{number}" for number in range(len(names))]
        lines = [f"witness {name} {it.vkey} {it.url}" for name, it in zip(names, self.witnesses)]
        lines += [f"group enough {quorum} {' '.join(names)}", "quorum enough", ""]
        self.asked = "\n".join(lines)
        (folder / "witnesses.txt").write_text(self.asked)
        self.receiver = Receiver(folder, WITNESS_POLICY=folder / "witnesses.txt", **settings)

    def __enter__(self):
        self.receiver.__enter__()
        for witness in self.witnesses:
            witness.trust(self.log_key)
        return self

    def __exit__(self, *_):
        self.receiver.kill()
        for witness in self.witnesses:
            witness.__exit__()

    @property
    def log_key(self):
        return status(self.receiver)["log_key"]

    @property
    def policy(self):
        """What whoever verifies asks for: the same witnesses, and the log."""
        return f"log {self.log_key}\n{self.asked}"

    def checkpoint(self):
        return self.receiver.get("/checkpoint")

    def shows_checkpoint(self):
        return self.checkpoint().status_code == 200

    def cosigned_by(self, note):
        """Who cosigned, told by others: each cosignature that stands there must be good."""
        witnesses = [others.parse_vkey(witness.vkey) for witness in self.witnesses]
        verdict = others.verify_checkpoint(others.parse_note(note), others.parse_vkey(self.log_key), witnesses)
        assert verdict.ok, verdict.error
        return sorted(verdict.witnesses)

    def wait_for(self, size, *names):
        """Waits until a checkpoint of so many blocks is shown that these cosigned, and returns it."""

        def look():
            answer = self.checkpoint()
            if answer.status_code == 200 and size_of(answer.text) >= size:
                return self.cosigned_by(answer.text) == sorted(names) and answer.text

        return wait_until(f"{size} blocks that {names} cosigned; {self.receiver.stderr}", look)


ANNA, BERT = "witness.example/anna", "witness.example/bert"


def test_a_witness_by_others_cosigns_what_it_is_fed(tmp_path):
    with Witnessed(tmp_path, [ANNA], quorum=1) as log:
        [witness] = log.witnesses
        # Nobody has cosigned yet, and nothing less is shown.
        assert not log.shows_checkpoint()
        witness.start()
        log.wait_for(1, ANNA)
        sent = send(log.receiver, [log.device], 5)
        note = log.wait_for(6, ANNA)
        assert witness.log["size"] == 6 and witness.log["evidence"] == 0
        must_hold(tmp_path, note, policy=log.policy)
        # Receipts of what it cosigned end in the same checkpoint.
        for transaction in sent:
            file = receipt(log.receiver, transaction)
            assert json.loads(file)["anchor"]["checkpoint"] == note
            [finding] = findings(tmp_path, file, policy=log.policy)
            assert finding["signed_by_log"] and [it["name"] for it in finding["cosigned_by"]] == [ANNA]
            proof = got(log.receiver, f"/v1/transactions/{transaction}/tlog-proof")
            must_hold(tmp_path, proof, policy=log.policy)
        history = got(log.receiver, f"/v1/keys/{log.device.key_id.hex()}/transactions")
        must_hold(tmp_path, history, policy=log.policy, checkpoint=note)
        # The chain as the witness shows it.
        shown = witness.log
        assert (shown["origin"], str(shown["size"]), shown["root"]) == tuple(note.split("\n")[:3])


def test_a_witness_that_is_down_holds_back_what_is_newer(tmp_path):
    with Witnessed(tmp_path, [ANNA], quorum=1) as log:
        [witness] = log.witnesses
        witness.start()
        send(log.receiver, [log.device], 2)
        before = log.wait_for(3, ANNA)
        witness.stop()
        [late] = send(log.receiver, [log.device])
        # It stays with what was cosigned; a receipt of what is newer has the operator's signature alone, and says so.
        wait_until("a witness that cannot be reached", lambda: "cannot be reached" in log.receiver.output)
        assert log.checkpoint().text == before
        file = receipt(log.receiver, late)
        must_hold(tmp_path, file)
        must_refuse(tmp_path, "quorum", file, policy=log.policy)
        witness.start()
        after = log.wait_for(4, ANNA)
        must_hold(tmp_path, receipt(log.receiver, late), policy=log.policy, checkpoint=after)
        # What was got before goes on to what was got after.
        link = consistency(log.receiver, **{"from": 3, "to": 4})
        must_hold(tmp_path, before, link, checkpoint=after, policy=log.policy)


def test_a_restarted_receiver_asks_again_and_a_restarted_witness_knows(tmp_path):
    with Witnessed(tmp_path, [ANNA], quorum=1) as log:
        [witness] = log.witnesses
        witness.start()
        send(log.receiver, [log.device], 3)
        before = log.wait_for(4, ANNA)
        # Without its witness a receiver has nothing to show after a restart.
        witness.stop()
        log.receiver.kill()
        log.receiver.restart()
        assert not log.shows_checkpoint()
        witness.start()
        again = log.wait_for(4, ANNA)
        assert size_of(again) == 4 and again.split("\n\n")[0] == before.split("\n\n")[0]
        send(log.receiver, [log.device], 2)
        log.wait_for(6, ANNA)
        # Both at once, in the middle of the work.
        send(log.receiver, [log.device], 2)
        witness.stop(9)
        log.receiver.kill()
        witness.start()
        log.receiver.restart()
        log.wait_for(8, ANNA)
        assert witness.log["evidence"] == 0


def test_two_of_two_must_cosign(tmp_path):
    with Witnessed(tmp_path, [ANNA, BERT], quorum=2) as log:
        anna, bert = log.witnesses
        anna.start()
        wait_until("a quorum that is not reached", lambda: "is not shown" in log.receiver.output)
        assert not log.shows_checkpoint()
        bert.start()
        log.wait_for(1, ANNA, BERT)
        [transaction] = send(log.receiver, [log.device])
        note = log.wait_for(2, ANNA, BERT)
        [finding] = findings(tmp_path, receipt(log.receiver, transaction), policy=log.policy)
        assert [it["name"] for it in finding["cosigned_by"]] == [ANNA, BERT]
        anna.stop()
        send(log.receiver, [log.device])
        wait_until("a witness that cannot be reached", lambda: log.receiver.output.count("is not shown") >= 2)
        assert log.checkpoint().text == note


def test_one_of_two_is_enough(tmp_path):
    with Witnessed(tmp_path, [ANNA, BERT], quorum=1) as log:
        anna, bert = log.witnesses
        anna.start()
        bert.start()
        log.wait_for(1, ANNA, BERT)
        anna.stop()
        [transaction] = send(log.receiver, [log.device])
        log.wait_for(2, BERT)
        [finding] = findings(tmp_path, receipt(log.receiver, transaction), policy=log.policy)
        assert [it["name"] for it in finding["cosigned_by"]] == [BERT]
        # Who was away is asked again.
        anna.start()
        log.wait_for(2, ANNA, BERT)


def test_a_witness_refuses_the_other_history_of_a_restored_copy(tmp_path):
    """The operator puts an old copy in the place of the chain and goes on from there: the witness has seen more."""
    with Witnessed(tmp_path, [ANNA], quorum=1) as log:
        [witness] = log.witnesses
        witness.start()
        send(log.receiver, [log.device], 2)
        log.wait_for(3, ANNA)
        assert log.receiver.terminate() == 0
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        log.receiver.restart()
        send(log.receiver, [log.device], 2)
        told = log.wait_for(5, ANNA)
        log.receiver.kill()
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "copy", tmp_path / "data")
        log.receiver.restart()
        wait_until("the witness to be ahead", lambda: "knows 5 blocks" in log.receiver.output)
        assert not log.shows_checkpoint()

        # Longer than the history that the witness knows, and not a continuation of it.
        sent = send(log.receiver, [log.device], 4)
        wait_until("a conflict", lambda: "not the one it cosigned before" in log.receiver.output)
        assert not log.shows_checkpoint()
        must_refuse(tmp_path, "quorum", receipt(log.receiver, sent[-1]), policy=log.policy)
        assert witness.log["size"] == 5 and witness.log["evidence"] >= 1
        fork = got(log.receiver, "/v1/proofs/inclusion", height=1, to=5)
        must_refuse(tmp_path, "FORK", fork, checkpoint=told)


def test_a_cosigner_that_nobody_runs_is_no_witness(tmp_path):
    """A key without an address is not asked; whoever started the receiver is told."""
    with Receiver(tmp_path, WITNESS_POLICY=asking_an_absent_one(tmp_path)) as receiver:
        receiver.wait_for_output("no URLs")
        assert receiver.get("/checkpoint").status_code != 200


def test_who_asks_before_a_witness_cosigned_is_told_to_come_back(tmp_path):
    with Receiver(tmp_path, WITNESS_POLICY=asking_an_absent_one(tmp_path)) as receiver:
        refused = receiver.get("/checkpoint")
        assert (refused.status_code, refused.json()["code"]) == (503, "not_cosigned_yet")
        assert int(refused.headers["Retry-After"]) >= 1
        assert "panicked" not in receiver.output


def asking_an_absent_one(folder):
    path = folder / "witnesses.txt"
    path.write_text(policy([], [NoteSigner("witness.example/absent", COSIGNER)], quorum=1))
    return path
