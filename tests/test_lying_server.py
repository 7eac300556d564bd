"""Who gives a proof may lie in any part of it: what `liotbchain verify` refuses, and what it cannot see and says so.

Every file is forged by hand (forge.py), over chains whose blocks have as much work as their rules ask for.
"""

import base64
import copy
import json

import pytest

import signer as keys
from chain_builder import Transaction
from forge import COSIGNER, Forger, NoteSigner, log_of, note, policy
from proofs import findings, must_hold, must_refuse, verify

BLOCKS = 11


class Chain(Forger):
    """A genesis block and blocks with two readings of a device and one of another."""

    def __init__(self, difficulty=1, blocks=BLOCKS, by=None, **rules):
        super().__init__(difficulty, **rules)
        self.device = by.device if by else keys.new_ed25519()
        self.other = by.other if by else keys.new_ed25519()
        self.log = by.log if by else log_of(self.genesis)
        self.grow(blocks)

    def grow(self, count):
        for _ in range(count):
            number = self.size
            self.add_block(
                [
                    self.sign(self.device, f'{{"n": {number}}}'),
                    self.sign(self.other, f'{{"of another": {number}}}'),
                    self.sign(self.device, f'{{"n": {number}, "more": true}}'),
                ]
            )

    def text(self):
        """The export, written as compactly as the program writes it."""
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [self.first_line(), *self.lines])

    def signed(self, size):
        return self.checkpoint(size, self.log)

    def device_receipt(self, height=3, size=BLOCKS):
        return self.receipt(height, 0, size, self.device, self.signed(size))

    def device_history(self, first, last, keep=lambda place: True, size=BLOCKS):
        """The device's history with all that belongs to it: the last below, all within, the first above."""
        # The checkpoint vouches for the blocks below `size` alone.
        places = [place for place in self.places(self.device) if place[0] < size]
        below = [place for place in places if place[0] < first][-1:]
        within = [place for place in places if first <= place[0] <= last]
        above = [place for place in places if place[0] > last][:1]
        shown = [place for place in below + within + above if keep(place)]
        return self.key_history(self.device, first, last, shown, size, self.signed(size))


@pytest.fixture(scope="module")
def chain():
    """A chain that no test changes."""
    return Chain()


@pytest.fixture(scope="module")
def forked(chain):
    """Another history of the chain from its block 6 on, by the same operator."""
    forked = Chain(blocks=5, by=chain)
    for number in range(6, BLOCKS + 1):
        forked.add_block([forked.sign(forked.device, f'{{"another": {number}}}')])
    return forked


@pytest.fixture
def witnesses():
    return [NoteSigner(f"witness.example/{name}", COSIGNER) for name in ("anna", "bert", "carla")]


def changed(document, *path, to):
    """A copy of a file in which the value at a path is another. A function makes it from what was there."""
    document = copy.deepcopy(document)
    *way, last = path
    place = document
    for step in way:
        place = place[step]
    place[last] = to(place[last]) if callable(to) else to
    return document


def without(document, *path):
    document = copy.deepcopy(document)
    *way, last = path
    place = document
    for step in way:
        place = place[step]
    del place[last]
    return document


# The truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difficulty", [0, 1, 2])
def test_the_forger_can_tell_the_truth(tmp_path, difficulty):
    """What is refused below is refused for its lie, not for its form."""
    chain = Chain(difficulty)
    names_log = policy([chain.log])
    assert "holds" in must_hold(tmp_path, chain.text())
    documents = [
        chain.receipt(height, position, size, signer, chain.signed(size))
        for size in (BLOCKS, BLOCKS + 1)
        for height in (1, 6, BLOCKS - 1)
        for position, signer in enumerate([chain.device, chain.other, chain.device])
    ]
    documents += [chain.receipt(0, 0, BLOCKS, None, chain.signed(BLOCKS))]
    documents += [chain.block_proof(height, BLOCKS, chain.signed(BLOCKS)) for height in range(BLOCKS)]
    documents += [chain.device_history(*ends) for ends in [(0, BLOCKS), (0, 4), (3, 5), (10, BLOCKS)]]
    must_hold(tmp_path, *documents, genesis=chain.genesis, policy=names_log)
    must_hold(
        tmp_path,
        *(chain.consistency(first, last) for first in range(BLOCKS + 1) for last in range(first, BLOCKS + 1)),
        genesis=chain.genesis,
    )


# Another history ---------------------------------------------------------------------------------------------------


def test_a_fork_is_called_one(tmp_path, chain, forked):
    assert forked.hashes[:6] == chain.hashes[:6] and forked.hashes[6] != chain.hashes[6]
    told, shown = chain.signed(BLOCKS), forked.signed(BLOCKS)
    names_log = policy([chain.log])
    must_hold(tmp_path, told, shown, policy=names_log)
    must_refuse(tmp_path, "FORK", shown, policy=names_log, checkpoint=told)
    files = [
        forked.receipt(7, 0, BLOCKS, chain.device, shown),
        forked.block_proof(2, BLOCKS, shown),
        forked.key_history(chain.device, 7, 7, [(6, 0), (7, 0), (8, 0)], BLOCKS, shown),
    ]
    must_hold(tmp_path, *files, policy=names_log)
    for file in files:
        assert "two histories" in must_refuse(tmp_path, "FORK", file, policy=names_log, checkpoint=told)


def test_a_fork_of_another_size_is_not_taken_for_the_same_history(tmp_path, chain, forked):
    told = chain.signed(9)
    file = forked.receipt(7, 0, BLOCKS, chain.device, forked.signed(BLOCKS))
    must_refuse(tmp_path, "consistency?from=9&to=11", file, checkpoint=told)
    # The fork goes on from its own past, not from the checkpoint's.
    links = [forked.consistency(9, BLOCKS), forked.consistency(6, 9), chain.consistency(6, 9)]
    must_refuse(tmp_path, "nothing proves", file, *links, checkpoint=told)
    # Both go on from what they have in common. That they do joins them not.
    links = [chain.consistency(6, BLOCKS), forked.consistency(6, BLOCKS), chain.consistency(6, 9)]
    must_refuse(tmp_path, "nothing proves", file, *links, checkpoint=told)
    must_hold(tmp_path, file, forked.consistency(6, BLOCKS), checkpoint=chain.signed(6))


def test_a_whole_chain_that_is_a_fork_is_called_one(tmp_path, chain, forked):
    assert forked.size == chain.size
    must_hold(tmp_path, chain.text(), checkpoint=chain.signed(chain.size))
    must_refuse(tmp_path, "FORK", forked.text(), checkpoint=chain.signed(chain.size))


@pytest.mark.parametrize("first,last", [(7, BLOCKS), (BLOCKS, BLOCKS)])
def test_a_consistency_file_of_a_fork_is_called_one(tmp_path, chain, forked, first, last):
    must_hold(tmp_path, chain.consistency(first, last), checkpoint=chain.signed(BLOCKS))
    must_refuse(tmp_path, "FORK", forked.consistency(first, last), checkpoint=chain.signed(BLOCKS))


def test_unrelated_trees_do_not_go_on_from_one_another(tmp_path, chain, forked):
    for first, last in [(8, 11), (7, 8), (1, 11), (8, 8)]:
        honest = chain.consistency(first, last)
        lie = honest | {"to": forked.anchor(last)}
        must_refuse(tmp_path, "does not begin with", lie)
        if first > 6:
            must_refuse(tmp_path, "does not begin with", honest | {"from": forked.anchor(first)})
        if first < last:
            other_path = {"path": forked.consistency(first, last)["path"]}
            must_refuse(tmp_path, "does not begin with", honest | other_path)


def test_a_consistency_file_proves_the_whole_of_it(tmp_path, chain):
    honest = chain.consistency(5, 9)
    for lie in [
        changed(honest, "path", to=lambda path: path[:-1]),
        changed(honest, "path", to=lambda path: path + path[:1]),
        changed(honest, "path", to=lambda path: [path[1], path[0], *path[2:]]),
        changed(honest, "path", to=[]),
    ]:
        must_refuse(tmp_path, "does not begin with", lie)
    must_refuse(tmp_path, "is not in the history", changed(honest, "header_path", to=lambda path: path[::-1]))
    must_refuse(tmp_path, "does not go on", changed(chain.consistency(9, 9), "to", to=chain.anchor(5)))


def test_another_chain_is_not_the_one_that_was_asked_for(tmp_path, chain):
    other = Chain(network="another")
    asked = {"genesis": chain.genesis}
    size = BLOCKS
    for file in [
        other.device_receipt(),
        other.block_proof(3, size, other.signed(size)),
        other.device_history(2, 4),
        other.consistency(3, size),
        other.signed(size),
        other.text(),
    ]:
        must_hold(tmp_path, file)
        must_refuse(tmp_path, "you asked for " + chain.genesis, file, **asked)
    # It says that it is of the chain, and is not.
    for file in [other.device_receipt(), other.block_proof(3, size, other.signed(size)), other.device_history(2, 4)]:
        renamed = file | {"genesis": chain.genesis}
        must_refuse(tmp_path, f"expected liotbchain/{chain.genesis}", renamed, **asked)
        bare = without(renamed, "anchor", "checkpoint")
        must_refuse(tmp_path, "does not begin with the genesis block", bare, **asked)
        relabelled = note(other.checkpoint_text(size).replace(other.genesis, chain.genesis), chain.log)
        lie = changed(renamed, "anchor", "checkpoint", to=relabelled)
        must_refuse(tmp_path, "does not begin with the genesis block", lie, **asked)
    must_refuse(tmp_path, "of another chain", other.device_receipt(), checkpoint=chain.signed(size))
    must_refuse(tmp_path, "of another chain", other.signed(size), checkpoint=chain.signed(size))


# Old history -------------------------------------------------------------------------------------------------------


def test_an_old_history_is_refused_until_it_is_proven_to_be_the_beginning(tmp_path, chain):
    newest = chain.signed(BLOCKS)
    for file in [chain.device_receipt(size=7), chain.device_history(0, 7, size=7), chain.signed(7)]:
        said = must_refuse(tmp_path, "older", file, checkpoint=newest)
        assert f"/v1/proofs/consistency?from=7&to={BLOCKS}" in said
        for links in [
            [chain.consistency(7, BLOCKS)],
            [chain.consistency(7, 9), chain.consistency(9, BLOCKS)],
            [chain.consistency(9, BLOCKS), chain.consistency(8, 9), chain.consistency(7, 8)],
        ]:
            said = must_hold(tmp_path, file, *links, checkpoint=newest)
            assert "which is the history of your checkpoint" in said or file == chain.signed(7)
        for ends in [[(6, BLOCKS)], [(7, 10)], [(7, 9), (10, BLOCKS)]]:
            links = [chain.consistency(*pair) for pair in ends]
            must_refuse(tmp_path, "nothing proves", file, *links, checkpoint=newest)


def test_a_newer_history_is_refused_until_it_is_proven_to_go_on(tmp_path, chain):
    must_refuse(tmp_path, "newer", chain.device_receipt(), checkpoint=chain.signed(7))
    must_hold(tmp_path, chain.device_receipt(), chain.consistency(7, BLOCKS), checkpoint=chain.signed(7))
    # A link that proves nothing joins nothing.
    broken = changed(chain.consistency(7, BLOCKS), "path", to=lambda path: path[::-1])
    said = must_refuse(tmp_path, "newer", chain.device_receipt(), broken, checkpoint=chain.signed(7))
    assert said.count("REFUSED") == 2


# Broken paths ------------------------------------------------------------------------------------------------------


def damages(path):
    """A path that is too short, too long, in another order, or holds another hash."""
    other = base64.b64encode(bytes(32)).decode()
    yield path[:-1]
    yield path[1:]
    yield [*path, other]
    yield [*path[:-1], other]
    if len(path) > 1:
        yield path[::-1]
    yield []


@pytest.mark.parametrize(
    "place,word",
    [
        (("block", "history_path"), "is not in the history"),
        (("block", "entries", 0, "path"), "is not in block 3"),
        (("anchor", "genesis_path"), "does not begin with the genesis block"),
    ],
)
def test_a_damaged_path_leads_nowhere(tmp_path, chain, place, word):
    honest = chain.device_receipt()
    path = honest
    for step in place:
        path = path[step]
    for damaged in damages(path):
        must_refuse(tmp_path, word, changed(honest, *place, to=damaged))


def test_a_block_without_a_path_must_be_the_one_at_the_end(tmp_path, chain):
    must_refuse(tmp_path, "has no path", without(chain.device_receipt(), "block", "history_path"))
    # The block whose header commits to the history needs none.
    must_hold(tmp_path, chain.receipt(BLOCKS, 0, BLOCKS, chain.device))
    beside = changed(chain.receipt(BLOCKS, 0, BLOCKS, chain.device), "anchor", to=chain.anchor(BLOCKS - 1))
    must_refuse(tmp_path, "has no path", beside)


def test_the_end_is_one_tree(tmp_path, chain, forked):
    honest = chain.device_receipt()
    must_refuse(tmp_path, "neither", without(without(honest, "anchor", "header"), "anchor", "checkpoint"))
    must_refuse(tmp_path, "different trees", changed(honest, "anchor", "checkpoint", to=forked.signed(BLOCKS)))
    must_refuse(tmp_path, "the checkpoint is of 10", changed(honest, "anchor", "checkpoint", to=chain.signed(10)))
    must_refuse(tmp_path, "has height 10", changed(honest, "anchor", "header", to=chain.blocks[10][0]))
    must_refuse(tmp_path, "has height 11", changed(honest, "anchor", "size", to=10))


# What was said, and by whom ----------------------------------------------------------------------------------------


def test_a_changed_reading_is_not_in_its_block(tmp_path, chain):
    honest = chain.device_receipt()
    entry = ("block", "entries", 0, "transaction")
    for lie in [
        changed(honest, *entry, "payload", to='{"n": 4}'),
        changed(honest, *entry, "sequence", to=7),
        changed(honest, *entry, "signature", to=lambda text: "AAAA" + text[4:]),
        changed(honest, *entry, "key_id", to=chain.other.key_id.hex()),
        # A true signature of what the block does not hold.
        changed(
            changed(honest, *entry, "payload", to='{"n": 99}'),
            *entry,
            "signature",
            to=base64.b64encode(chain.device.sign(b'{"n": 99}')).decode(),
        ),
    ]:
        must_refuse(tmp_path, "is not in block 3", lie)


def test_a_swapped_key_is_noticed(tmp_path, chain):
    honest = chain.device_receipt()
    for lie in [
        honest | {"public_key": chain.other.pem},
        without(honest, "public_key"),
        chain.receipt(3, 1, BLOCKS, chain.device),
    ]:
        must_refuse(tmp_path, "the public key of", lie)
    history = chain.device_history(2, 4)
    must_refuse(tmp_path, "the public key of", history | {"public_key": chain.other.pem})
    must_refuse(tmp_path, "is of key", history | {"key_id": chain.other.key_id.hex()})


def test_a_bad_signature_in_a_block_is_no_reading(tmp_path):
    """Who seals can put anything into a block, but not in the name of a key."""
    chain = Chain()
    for signature in (bytes(64), chain.other.sign(b'"never said"')):
        chain.add_block([chain.sign(chain.device, '"never said"', signature=signature)])
        file = chain.receipt(chain.size - 1, 0, chain.size, chain.device, chain.signed(chain.size))
        must_refuse(tmp_path, "signature", file)


def test_what_is_pruned_cannot_be_presented_as_whole(tmp_path):
    chain = Chain()
    gone = chain.sign(chain.device, '"what nobody knows any more"')
    gone.pruned = True
    chain.add_block([gone])
    chain.grow(1)
    file = chain.receipt(BLOCKS + 1, 0, chain.size, chain.device, chain.signed(chain.size))
    said = must_hold(tmp_path, file)
    assert "were pruned" in said and "signature good" not in said
    [finding] = findings(tmp_path, file)
    assert "transaction" not in finding
    invented = '"what suits us"'
    entry = ("block", "entries", 0, "transaction")
    whole = Transaction(chain.device.key_id, gone.sequence, invented.encode(), chain.device.sign(invented.encode()))
    must_refuse(tmp_path, "is not in block", changed(file, *entry, to=whole.record()))
    # Neither both in one, nor a bit of both.
    must_refuse(tmp_path, "payload and signature", changed(file, *entry, to=lambda it: it | whole.record()))
    must_refuse(tmp_path, "payload and signature", changed(file, *entry, "pruned", to=False))
    must_refuse(tmp_path, "payload and signature", without(file, *entry, "pruned"))
    must_refuse(tmp_path, "is not in block", changed(file, *entry, "content_hash", to="00" * 32))


def test_what_is_whole_and_shown_as_pruned_says_nothing(tmp_path, chain):
    """A server can keep the reading back. Nobody is told then that anything was said or signed."""
    honest = chain.device_receipt()
    whole = chain.blocks[3][1][0]
    withheld = {"key_id": whole.key_id.hex(), "sequence": whole.sequence}
    withheld |= {"content_hash": whole.content_hash.hex(), "pruned": True}
    file = changed(honest, "block", "entries", 0, "transaction", to=withheld)
    said = must_hold(tmp_path, file)
    assert "nothing any more" in said and "signature is gone" in said and "signature good" not in said
    other_hash = changed(file, "block", "entries", 0, "transaction", "content_hash", to="ab" * 32)
    must_refuse(tmp_path, "is not in block 3", other_hash)
    history = chain.device_history(2, 4)
    for block in history["blocks"]:
        for entry in block["entries"]:
            if entry["transaction"]["sequence"] == whole.sequence:
                entry["transaction"] = withheld
    assert "1 of them, whose signatures are gone" in must_hold(tmp_path, history)


def test_a_receipt_is_of_one_transaction(tmp_path, chain):
    honest = chain.device_receipt()
    must_refuse(tmp_path, "0 transactions are shown", changed(honest, "block", "entries", to=[]))
    must_refuse(tmp_path, "2 transactions are shown", changed(honest, "block", to=chain.block(3, [0, 2], BLOCKS)))
    smuggled = changed(chain.block_proof(3, BLOCKS), "block", to=chain.block(3, [0], BLOCKS))
    must_refuse(tmp_path, "1 transactions are shown", smuggled)


# Work --------------------------------------------------------------------------------------------------------------


def test_a_header_without_its_work_proves_nothing(tmp_path):
    chain = Chain(difficulty=2)
    chain.add_block([chain.sign(chain.device, '"cheap"')], mined=False)
    chain.grow(1)
    idle = BLOCKS + 1
    for file in [
        chain.receipt(idle, 0, idle, chain.device),
        chain.receipt(idle, 0, chain.size, chain.device, chain.signed(chain.size)),
        chain.receipt(3, 0, idle, chain.device),
        chain.block_proof(idle, chain.size, chain.signed(chain.size)),
        chain.block_proof(1, idle),
        chain.key_history(chain.device, idle, idle, [(BLOCKS, 2), (idle, 0)], chain.size, chain.signed(chain.size)),
        chain.consistency(3, idle),
    ]:
        must_refuse(tmp_path, "no proof of work", file)


def test_a_target_that_is_none_is_refused(tmp_path, chain):
    header = bytearray.fromhex(chain.blocks[3][0])
    for bits in (0, 0x04923456, 0xFF123456):
        header[110:114] = bits.to_bytes(4, "big")
        must_refuse(tmp_path, "block 3: ", changed(chain.device_receipt(), "block", "header", to=header.hex()))


def test_a_chain_that_anybody_can_make_needs_more_than_its_work(tmp_path, chain):
    """At a low difficulty headers are cheap, so that who knows the operator asks for the signature."""
    bare = chain.receipt(3, 0, BLOCKS, chain.device)
    said = must_hold(tmp_path, bare)
    assert "no witness vouches for it" in said
    must_refuse(tmp_path, "nobody signed", bare, policy=policy([chain.log]))


# Signatures under checkpoints --------------------------------------------------------------------------------------


def test_a_checkpoint_must_be_signed_by_a_key_that_the_policy_names(tmp_path, chain):
    names_log = policy([chain.log])
    must_hold(tmp_path, chain.device_receipt(), chain.signed(BLOCKS), policy=names_log)
    impostor = log_of(chain.genesis)
    renamed = NoteSigner("liotbchain.example/another", chain.log.kind)
    text = chain.checkpoint_text(BLOCKS)
    for checkpoint in [note(text, impostor), note(text, renamed), note(text, impostor, renamed)]:
        file = changed(chain.device_receipt(), "anchor", "checkpoint", to=checkpoint)
        must_hold(tmp_path, file)
        for lie in (file, checkpoint):
            must_refuse(tmp_path, "no log of the policy signed", lie, policy=names_log)
    # In the name and with the hash of the operator's key.
    line = impostor.sign(text)
    raw = base64.b64decode(line.split(" ")[2])
    line = f"— {chain.log.name} {base64.b64encode(chain.log.key_hash + raw[4:]).decode()}\n"
    for lines in (line, chain.log.sign(text) + line, line + chain.log.sign(text)):
        must_refuse(tmp_path, "does not verify", text + "\n" + lines, policy=names_log)
    # What was signed is another checkpoint.
    moved = chain.signed(BLOCKS).replace(f"\n{BLOCKS}\n", f"\n{BLOCKS + 1}\n")
    must_refuse(tmp_path, "does not verify", moved, policy=names_log)


def test_a_cosigner_is_no_log(tmp_path, chain):
    """The operator's key in a witness's form signs another message."""
    as_witness = NoteSigner(chain.log.name, COSIGNER)
    as_witness.private = chain.log.private
    must_refuse(tmp_path, "no log", chain.checkpoint(BLOCKS, as_witness), policy=policy([chain.log]))
    must_refuse(
        tmp_path, "quorum", chain.checkpoint(BLOCKS, chain.log), policy=policy([chain.log], [as_witness], quorum=1)
    )


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_a_quorum_is_reached_by_so_many_and_not_by_fewer(tmp_path, chain, witnesses, needed):
    asked = policy([chain.log], witnesses, quorum=needed)
    for count in range(4):
        checkpoint = chain.checkpoint(BLOCKS, chain.log, *witnesses[:count])
        file = chain.receipt(3, 0, BLOCKS, chain.device, checkpoint)
        if count >= needed:
            for finding in findings(tmp_path, file, checkpoint, policy=asked):
                assert finding["signed_by_log"] is True
                assert [it["name"] for it in finding["cosigned_by"]] == [it.name for it in witnesses[:count]]
        else:
            must_refuse(tmp_path, f"{count} of its witnesses cosigned", file, policy=asked)
            must_refuse(tmp_path, "quorum", checkpoint, policy=asked)


def test_a_witness_does_not_vouch_for_who_did_not_sign(tmp_path, chain, witnesses):
    asked = policy([chain.log], witnesses, quorum=2)
    must_refuse(tmp_path, "no log", chain.checkpoint(BLOCKS, *witnesses), policy=asked)


def test_a_cosignature_is_of_one_checkpoint(tmp_path, chain, forked, witnesses):
    asked = policy([chain.log], witnesses, quorum=1)
    for elsewhere in (chain.checkpoint_text(BLOCKS - 1), forked.checkpoint_text(BLOCKS)):
        moved = chain.signed(BLOCKS) + witnesses[0].sign(elsewhere)
        must_refuse(tmp_path, "does not verify", moved, policy=asked)
    # A time that was changed afterwards.
    line = witnesses[0].sign(chain.checkpoint_text(BLOCKS), time_s=1_800_000_000)
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    raw[4:12] = (1_700_000_000).to_bytes(8, "big")
    older = f"— {witnesses[0].name} {base64.b64encode(raw).decode()}\n"
    must_refuse(tmp_path, "does not verify", chain.signed(BLOCKS) + older, policy=asked)


def test_a_witness_counts_once(tmp_path, chain, witnesses):
    asked = policy([chain.log], witnesses, quorum=2)
    text = chain.checkpoint_text(BLOCKS)
    for again in (1_800_000_000, 1_800_000_060):
        twice = chain.checkpoint(BLOCKS, chain.log, witnesses[0]) + witnesses[0].sign(text, time_s=again)
        must_refuse(tmp_path, "1 of its witnesses", twice, policy=asked)
    # Under two names: the policy itself is refused.
    alias = NoteSigner("witness.example/alias", COSIGNER)
    alias.private = witnesses[0].private
    both = chain.checkpoint(BLOCKS, chain.log, witnesses[0], alias)
    refused = verify(tmp_path, both, policy=policy([chain.log], [witnesses[0], alias], quorum=2))
    assert refused.returncode == 1 and "twice" in refused.stderr
    listed_twice = policy([chain.log], witnesses, quorum=2).replace("enough 2 w0 w1 w2", "enough 2 w0 w0 w2")
    refused = verify(tmp_path, both, policy=listed_twice)
    assert refused.returncode == 1 and "twice" in refused.stderr


def test_signatures_of_strangers_neither_help_nor_harm(tmp_path, chain, witnesses):
    stranger = NoteSigner("stranger.example", COSIGNER)
    checkpoint = chain.checkpoint(BLOCKS, stranger, chain.log, witnesses[0], log_of(chain.genesis))
    must_hold(tmp_path, checkpoint, policy=policy([chain.log], witnesses, quorum=1))
    must_refuse(tmp_path, "quorum", checkpoint, policy=policy([chain.log], witnesses, quorum=2))


def test_a_checkpoint_of_ones_own_must_satisfy_the_policy_too(tmp_path, chain):
    unsigned = chain.checkpoint(BLOCKS, log_of(chain.genesis))
    refused = verify(tmp_path, chain.device_receipt(), policy=policy([chain.log]), checkpoint=unsigned)
    assert refused.returncode == 1 and "no log of the policy signed" in refused.stderr


# Histories of a key ------------------------------------------------------------------------------------------------


def test_a_reading_withheld_from_the_middle_is_missed(tmp_path, chain):
    honest = chain.device_history(3, 8)
    assert "complete" in must_hold(tmp_path, honest)
    for place in [place for place in chain.places(chain.device) if (3, 0) < place < (8, 2)]:
        lie = chain.device_history(3, 8, keep=lambda it, gone=place: it != gone)
        must_refuse(tmp_path, "is missing", lie)
    must_refuse(tmp_path, "is missing", chain.device_history(3, 8, keep=lambda it: it[0] not in (5, 6)))


def test_a_reading_withheld_from_the_beginning_is_missed(tmp_path, chain):
    must_refuse(tmp_path, "must be shown too", chain.device_history(0, 8, keep=lambda it: it > (1, 0)))
    must_refuse(tmp_path, "must be shown too", chain.device_history(3, 8, keep=lambda it: it[0] >= 3))
    must_refuse(tmp_path, "must be shown too", chain.device_history(3, 8, keep=lambda it: it > (3, 0)))
    must_refuse(tmp_path, "is missing", chain.device_history(3, 8, keep=lambda it: it != (3, 0)))
    # One that lies further below does not close the gap.
    places = [(1, 2), *((height, position) for height in range(3, 9) for position in (0, 2)), (9, 0)]
    must_refuse(tmp_path, "is missing", chain.key_history(chain.device, 3, 8, places, BLOCKS, chain.signed(BLOCKS)))


def test_a_reading_withheld_from_the_end_is_missed_where_more_follows(tmp_path, chain):
    must_refuse(tmp_path, "is missing", chain.device_history(3, 8, keep=lambda it: it != (8, 2)))
    must_refuse(tmp_path, "is missing", chain.device_history(3, 8, keep=lambda it: it[0] != 8))


def test_a_history_says_how_far_it_is_complete(tmp_path, chain):
    """Without one behind it, nothing shows that none was withheld; and no more is claimed."""
    said = must_hold(tmp_path, chain.device_history(3, 8))
    assert "no sealed one is missing up to block 8" in said and "12, numbers 4 to 15" in said
    said = must_hold(tmp_path, chain.device_history(3, 8, keep=lambda it: it < (7, 0)))
    assert "up to block 8" not in said and "8, numbers 4 to 11" in said
    said = must_hold(tmp_path, chain.device_history(3, 8, keep=lambda it: it[0] < 3))
    assert "not shown" in said and "none" in said
    assert "not shown" in must_hold(tmp_path, chain.device_history(0, 8, keep=lambda it: False))
    # That nothing stands there is proven by what does on both sides.
    quiet = Chain(by=chain)
    for _ in range(3):
        quiet.add_block([quiet.sign(quiet.other, '"alone"')])
    quiet.grow(1)
    places = [(BLOCKS, 2), (BLOCKS + 4, 0)]
    file = quiet.key_history(quiet.device, BLOCKS + 1, BLOCKS + 3, places, quiet.size, quiet.signed(quiet.size))
    said = must_hold(tmp_path, file)
    assert "none" in said and f"no sealed one is missing up to block {BLOCKS + 3}" in said


def test_a_history_does_not_claim_that_the_last_block_shown_is_whole(tmp_path, chain):
    """The device's last reading of block 8 is withheld, and nothing behind it is shown that would tell."""
    lie = chain.device_history(3, 8, keep=lambda it: it < (8, 2))
    assert "no sealed one is missing up to block 8" not in must_hold(tmp_path, lie)


def test_a_number_that_was_left_out_when_it_was_sealed_is_missed(tmp_path):
    chain = Chain()
    numbers = chain.sequences
    numbers[chain.device.key_id] += 1
    chain.grow(1)
    end = chain.size
    places = chain.places(chain.device)
    file = chain.key_history(chain.device, 0, end, places, end, chain.signed(end))
    must_refuse(tmp_path, "is missing", file)


def test_a_number_that_was_given_twice_cannot_be_seen_and_that_is_said(tmp_path):
    chain = Chain()
    chain.sequences[chain.device.key_id] -= 1
    chain.grow(1)
    end = chain.size
    both = chain.places(chain.device)
    must_refuse(tmp_path, "is missing", chain.key_history(chain.device, 0, end, both, end, chain.signed(end)))
    one = [place for place in both if place != (BLOCKS, 2)]
    said = must_hold(tmp_path, chain.key_history(chain.device, 0, end, one, end, chain.signed(end)))
    assert "that no two were given one number" in said


def test_a_history_stands_in_the_order_of_the_chain(tmp_path, chain):
    honest = chain.device_history(3, 8)
    must_refuse(tmp_path, "must be shown too", changed(honest, "blocks", to=lambda blocks: blocks[::-1]))
    must_refuse(tmp_path, "not in chain order", changed(honest, "blocks", to=lambda it: [*it[:2], it[1], *it[2:]]))
    swapped = changed(honest, "blocks", 2, "entries", to=lambda entries: entries[::-1])
    must_refuse(tmp_path, "is missing", swapped)
    wide = changed(chain.device_history(2, 8), "from", to=4)
    must_refuse(tmp_path, "lies outside", wide)
    must_refuse(tmp_path, "lies outside", changed(chain.device_history(2, 8), "to", to=6))
    must_refuse(tmp_path, "from height 9 to 8", changed(honest, "from", to=9))


# The other form ----------------------------------------------------------------------------------------------------


def tlog_proof(receipt, **replaced):
    rest = without(without(receipt, "block", "history_path"), "anchor", "checkpoint")
    parts = {"extra": rest, "index": 3, "path": receipt["block"]["history_path"]}
    parts |= {"checkpoint": receipt["anchor"]["checkpoint"]} | replaced
    extra = base64.b64encode(json.dumps(parts["extra"]).encode()).decode()
    lines = ["c2sp.org/tlog-proof@v1", f"extra {extra}", f"index {parts['index']}", *parts["path"], ""]
    return "\n".join(lines) + "\n" + parts["checkpoint"]


def test_a_tlog_proof_lies_no_better(tmp_path, chain, forked):
    honest = chain.device_receipt()
    path = honest["block"]["history_path"]
    must_hold(tmp_path, tlog_proof(honest), genesis=chain.genesis, policy=policy([chain.log]))
    must_refuse(tmp_path, "index is 4", tlog_proof(honest, index=4))
    must_refuse(tmp_path, "index", tlog_proof(honest, index="03"))
    for damaged in damages(path):
        must_refuse(tmp_path, "is not in the history", tlog_proof(honest, path=damaged))
    must_refuse(tmp_path, "a hash in base64", tlog_proof(honest, path=[path[0]] * 65))
    must_refuse(tmp_path, "different trees", tlog_proof(honest, checkpoint=forked.signed(BLOCKS)))
    unsigned = tlog_proof(honest, checkpoint=chain.checkpoint(BLOCKS, log_of(chain.genesis)))
    must_refuse(tmp_path, "no log", unsigned, policy=policy([chain.log]))
    must_refuse(tmp_path, "without history_path", tlog_proof(honest, extra=honest))
    must_refuse(tmp_path, "expected a receipt", tlog_proof(honest, extra=chain.device_history(2, 4)))
    lie = changed(honest, "block", "entries", 0, "transaction", "payload", to="1")
    must_refuse(tmp_path, "is not in block 3", tlog_proof(lie))


# Not even files ----------------------------------------------------------------------------------------------------


def test_what_is_no_proof_file_is_refused(tmp_path, chain):
    honest = chain.device_receipt()
    for word, lie in [
        ("version 2", honest | {"version": 2}),
        ("unknown", honest | {"type": "promise"}),
        ("unknown field", honest | {"trust": "me"}),
        ("unknown field", changed(honest, "anchor", "trust", to="me")),
        ("header", changed(honest, "block", "header", to="00" * 118)),
        ("32 bytes in base64", changed(honest, "block", "history_path", 0, to="AAAA")),
        ("public_key", honest | {"public_key": chain.device.pem.replace("\n", "\r\n")}),
        ("checkpoint", changed(honest, "anchor", "checkpoint", to="signed: me\n")),
        ("neither a proof file", "anything else"),
        ("not a proof file", "{"),
        ("not a proof file", "{}"),
        ("not a proof file", json.dumps(honest)[:-1] + ', "type": "receipt"}'),
        ("not a proof file", json.dumps(honest) + "{}"),
    ]:
        must_refuse(tmp_path, word, lie)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    must_refuse(tmp_path, "not UTF-8", binary)
    absent = verify(tmp_path, tmp_path / "absent")
    assert absent.returncode == 1 and "cannot be opened" in absent.stderr


def test_an_export_by_another_program_is_one(tmp_path, chain):
    must_hold(tmp_path, chain.export().decode())


def test_one_lie_among_many_files_is_found(tmp_path, chain):
    honest = [chain.device_receipt(height) for height in range(1, 6)]
    lie = changed(honest[2], "block", "entries", 0, "transaction", "payload", to='"changed"')
    said = must_refuse(tmp_path, "is not in block", *honest[:3], lie, *honest[3:])
    assert (said.count(": holds\n"), said.count("REFUSED")) == (5, 1)
    verdict = verify(tmp_path, *honest, lie, json=True)
    assert verdict.returncode == 3
    assert [finding["holds"] for finding in json.loads(verdict.stdout)] == [True] * 5 + [False]


def test_what_is_shown_of_a_file_cannot_drive_a_terminal(tmp_path, chain):
    sly = Chain(by=chain)
    sly.add_block([sly.sign(sly.device, "\x1b[2J\x07red\x9b1m\r\nanother.json: holds")])
    said = must_hold(tmp_path, sly.receipt(sly.size - 1, 0, sly.size, sly.device, sly.signed(sly.size)))
    assert not set(said) & {"\x1b", "\x07", "\x9b", "\r"}


def test_what_is_shown_of_a_file_reads_in_one_direction(tmp_path, chain):
    sly = Chain(by=chain)
    sly.add_block([sly.sign(sly.device, "\u202edoog ton\u2066")])
    said = must_hold(tmp_path, sly.receipt(sly.size - 1, 0, sly.size, sly.device, sly.signed(sly.size)))
    assert not set(said) & {"\u202e", "\u2066"}
