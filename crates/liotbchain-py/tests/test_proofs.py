"""The verifier and the golden proof files: what was handed out once holds for ever, and what lies is refused."""

from pathlib import Path

import pytest

from liotbchain import verify

FOLDER = Path(__file__).resolve().parents[3] / "testdata/proofs"
GENESIS = "8f77a9352d26f9de825f45cffbb659d1e04556902372d14fb490ac6c86727de9"
KEPT = FOLDER / "checkpoint-kept.txt"
GOOD = sorted(
    path.name for path in FOLDER.iterdir() if path.is_file() and path.name not in ("policy.txt", "receipt-unwitnessed.json")
)
REFUSED = sorted(path.name for path in (FOLDER / "refused").iterdir())
# What a published key signed (the example of Go's module checksum database).
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


def main(*arguments):
    return verify.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", GOOD)
def test_takes_a_golden_file(name, capsys):
    assert main(FOLDER / name, "--policy", FOLDER / "policy.txt", "--genesis", GENESIS) == 0
    out = capsys.readouterr().out
    assert out.startswith("valid: ")
    if name != "consistency.json":
        assert "signed by the log" in out and "cosigned by witness.example/anna at 2026-12-01T02:35:4" in out


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_lies(name, capsys):
    assert main(FOLDER / "refused" / name) == 3
    assert capsys.readouterr().out.startswith("invalid: ")


def test_a_receipt_names_its_transaction():
    proof = verify.verify_proof(FOLDER / "receipt-rsa.json")
    assert proof.kind == "receipt" and proof.genesis.hex() == GENESIS and proof.tree.size == 10
    assert proof.transaction.hex() == "7c39b9ef54c666b136698f4dab7ba1cd655cef74602ea7bfad0a1669263ff251"


def test_a_policy_asks_for_witnesses(capsys):
    assert main(FOLDER / "receipt-unwitnessed.json") == 0
    assert "no signature under the checkpoint was looked at" in capsys.readouterr().out
    assert main(FOLDER / "receipt-unwitnessed.json", "--policy", FOLDER / "policy.txt") == 3
    assert "too few witnesses" in capsys.readouterr().out


def test_another_chain_is_refused(capsys):
    for name in GOOD:
        assert main(FOLDER / name, "--genesis", "0" * 64) == 3, name
    assert "not of the chain" in capsys.readouterr().out


def test_a_kept_checkpoint_needs_a_file_that_links_it(capsys):
    newest, consistency = FOLDER / "receipt-newest.json", FOLDER / "consistency.json"
    assert main(FOLDER / "receipt-rsa.json", "--checkpoint", KEPT) == 0
    assert main(newest, "--checkpoint", KEPT) == 3
    assert "/v1/proofs/consistency?from=10&to=13" in capsys.readouterr().out
    assert main(newest, consistency, "--checkpoint", KEPT) == 0


def test_a_fork_is_called_one(tmp_path, capsys):
    kept = tmp_path / "kept.txt"
    origin, size, root, *rest = KEPT.read_text().split("\n")
    kept.write_text("\n".join([origin, size, "A" * 43 + "=", *rest]))
    assert main(FOLDER / "receipt-rsa.json", "--checkpoint", kept) == 3
    assert "A FORK" in capsys.readouterr().out
    # With a policy, a checkpoint that nobody signed is not taken for one that was kept.
    assert main(FOLDER / "receipt-rsa.json", "--checkpoint", kept, "--policy", FOLDER / "policy.txt") == 1


def test_an_end_that_is_not_shown_is_not_claimed(capsys):
    # Block 1 holds two transactions of the key, and the file shows one.
    assert main(FOLDER / "key-history-open.json") == 0
    assert "whether one follows, in block 1 or above, is not proven" in capsys.readouterr().out
    assert main(FOLDER / "key-history.json") == 0
    assert "none of the key that was sealed there is missing" in capsys.readouterr().out


def test_verifies_a_published_note():
    key = verify.NoteKey(GO_KEY)
    assert verify.Note(GO_NOTE).is_signed_by_log(key)
    with pytest.raises(ValueError, match="not its own"):
        verify.Note(GO_NOTE.replace("answer", "Answer")).is_signed_by_log(key)
    assert not verify.Note(GO_NOTE.replace("— Peter", "— Paul")).is_signed_by_log(key)
    for text in (GO_KEY.replace("c74f", "c84f"), GO_KEY[:-4], "+" + GO_KEY, GO_KEY.replace("ARpc", "Bhpc")):
        with pytest.raises(ValueError):
            verify.NoteKey(text)


@pytest.mark.parametrize(
    "old, new",
    [
        ("quorum either\n", ""),
        ("quorum either", "quorum nobody"),
        ("quorum either", "quorum either\nquorum none"),
        ("any anna bert", "3 anna bert"),
        ("any anna bert", "0 anna bert"),
        ("any anna bert", "any anna anna"),
        ("any anna bert", "any"),
        ("quorum either", "quorum anna"),
        ("witness bert", "witness anna"),
        ("witness bert", "witness none"),
        ("log ", "witness charly "),
        ("witness anna", "log"),
        ("group", "groups"),
        ("#", "\r#"),
    ],
)
def test_refuses_a_policy_at_fault(old, new):
    policy = (FOLDER / "policy.txt").read_text()
    verify.Policy(policy)
    assert old in policy
    with pytest.raises(ValueError):
        verify.Policy(policy.replace(old, new))


def test_groups_count():
    policy = (FOLDER / "policy.txt").read_text()
    note = verify.Note(KEPT.read_text())
    assert verify.Policy(policy).check(note)[0]
    for threshold in ("all", "2"):
        with pytest.raises(ValueError, match="too few"):
            verify.Policy(policy.replace("any", threshold)).check(note)
    by_log, cosigned = verify.Policy(policy.replace("quorum either", "quorum none")).check(note)
    assert by_log and [name for name, _ in cosigned] == ["witness.example/anna"]


def test_inclusion_and_consistency_of_every_small_tree():
    """Against trees that are built whole, by the definition in RFC 6962."""

    def root(leaves):
        tree = verify.Tree()
        for leaf in leaves:
            tree.add(leaf)
        return tree.root()

    def split(size):
        return 1 << (size - 1).bit_length() - 1

    def inclusion(index, leaves):
        if len(leaves) == 1:
            return []
        k = split(len(leaves))
        if index < k:
            return inclusion(index, leaves[:k]) + [root(leaves[k:])]
        return inclusion(index - k, leaves[k:]) + [root(leaves[:k])]

    def consistency(old, leaves, is_whole=True):
        if old == len(leaves):
            return [] if is_whole else [root(leaves)]
        k = split(len(leaves))
        if old <= k:
            return consistency(old, leaves[:k], is_whole) + [root(leaves[k:])]
        return consistency(old - k, leaves[k:], False) + [root(leaves[:k])]

    leaves = [bytes([number]) for number in range(20)]
    for size in range(1, 21):
        tree = leaves[:size]
        for index in range(size):
            path = inclusion(index, tree)
            verify.check_inclusion(leaves[index], index, size, path, root(tree))
            for wrong in (path + [bytes(32)], path[:-1] if path else [bytes(32)]):
                with pytest.raises(ValueError):
                    verify.check_inclusion(leaves[index], index, size, wrong, root(tree))
            with pytest.raises(ValueError):
                verify.check_inclusion(leaves[index], index + size, size, path, root(tree))
            old = index + 1
            path = consistency(old, tree)
            verify.check_consistency(old, root(leaves[:old]), size, root(tree), path)
            for wrong in (path + [bytes(32)], path[:-1] if path else [bytes(32)]):
                with pytest.raises(ValueError):
                    verify.check_consistency(old, root(leaves[:old]), size, root(tree), wrong)
