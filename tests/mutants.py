"""Chains that break exactly one rule each, and chains that are odd but valid.

Each mutant names the field at which the verifier must find the fault and the words by which
`liotbchain chain import` must name the rule. All of them are made afresh with new keys in every run.
"""

import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

import edwards
import signer as keys
from chain_builder import GENESIS_TIME_MS, ChainBuilder, Transaction
from verifier import verify

MUTANTS = {}
VALID = {}


def mutant(field, words):
    """Registers a function that builds a broken export; its name is the mutant's."""

    def register(build):
        MUTANTS[build.__name__] = (build, field, words)
        return build

    return register


def valid(build):
    VALID[build.__name__] = build
    return build


def reading(number):
    return json.dumps({"device": "Raspberry Pi 1", "distance": 50 + number, "timestamp": 1717979369.25})


class Base(ChainBuilder):
    """A genesis block, two good blocks; then the test adds its own; `end` adds two more good ones and exports."""

    def __init__(self, **rules):
        super().__init__(rules)
        self.signer = keys.new_ed25519()
        self.other = keys.new_ec()
        self.good_block()
        self.good_block()

    def good_block(self, signer=None):
        number = len(self.hashes)
        signer = signer or self.signer
        self.add_block([self.sign(signer, reading(number)), self.sign(self.other, reading(100 + number))])

    def bad_header(self, **changed):
        number = len(self.hashes)
        self.add_block([self.sign(self.signer, reading(number))], **changed)
        return self.end()

    def bad_transaction(self, transaction):
        self.add_block([self.sign(self.other, reading(200)), transaction])
        return self.end()

    def end(self, **first_line):
        self.good_block()
        self.good_block()
        return self.export(**first_line)


def with_signer(signer):
    """A chain whose third block holds a transaction by this signer."""
    chain = Base()
    return chain.bad_transaction(chain.sign(signer, reading(3)))


def with_signature(signer, signature_of):
    """A chain whose third block holds a signature that stands in the place of the signer's own."""
    chain = Base()
    payload = reading(3).encode()
    return chain.bad_transaction(chain.sign(signer, payload, signature=signature_of(payload)))


def genesis_only_broken(rules=None, **header):
    """A chain on a broken genesis block."""
    chain = ChainBuilder(rules, **header)
    signer = keys.new_ed25519()
    for number in range(2):
        chain.add_block([chain.sign(signer, reading(number))])
    return chain.export()


def edited(edit):
    """A good export whose lines are then edited."""
    lines = [json.loads(line) for line in Base().end().splitlines()]
    edited_lines = edit(lines)
    if isinstance(edited_lines, list):
        lines = edited_lines
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def blocks_of(lines):
    return [line for line in lines if line["type"] == "block"]


# Valid, however odd ------------------------------------------------------------------------------------------------


@valid
def ed25519_and_p256():
    return Base().end()


@valid
def genesis_alone():
    return ChainBuilder().export()


@valid
def rsa_with_the_longest_salt():
    return with_signer(keys.rsa_signer(keys.rsa_key()))


@valid
def rsa_with_a_salt_of_32():
    return with_signer(keys.rsa_signer(keys.rsa_key(), keys.pss(32)))


@valid
def rsa_of_3072_bits():
    return with_signer(keys.rsa_signer(keys.rsa_key(3072)))


@valid
def rsa_with_a_large_exponent():
    return with_signer(keys.raw_rsa(2048, 2**32 + 15))


@valid
def rsa_of_8192_bits():
    return with_signer(keys.raw_rsa(8192))


@valid
def p256_with_high_s():
    signer = keys.new_ec()
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def high(payload):
        r, s = utils.decode_dss_signature(signer.sign(payload))
        return utils.encode_dss_signature(r, max(s, order - s))

    return with_signature(signer, high)


@valid
def unsigned_where_the_rules_allow_it():
    chain = Base(unsigned=True)
    chain.add_block([chain.unsigned(reading(3)), chain.unsigned(reading(3)), chain.unsigned("not JSON")])
    return chain.end()


@valid
def harder_bits_for_one_block():
    chain = Base()
    chain.add_block([chain.sign(chain.signer, reading(3))], bits=verify.bits_of(3))
    return chain.end()


@valid
def difficulty_0():
    chain = ChainBuilder({"difficulty": 0})
    chain.add_block([chain.sign(keys.new_ed25519(), reading(1))], bits=verify.bits_of(0))
    return chain.export()


@valid
def time_at_the_median_of_the_last_eleven():
    chain = Base()
    for _ in range(12):
        chain.good_block()
    chain.add_block([chain.sign(chain.signer, reading(99))], timestamp_ms=sorted(chain.timestamps[-11:])[5])
    return chain.end()


@valid
def payload_of_64_kib():
    return with_signer_and_payload(b'"' + b"x" * 65_534 + b'"')


@valid
def payload_of_one_byte():
    return with_signer_and_payload(b"1")


@valid
def payload_that_is_not_json():
    return with_signer_and_payload("temp=21.5 °C\u0000\u2028".encode())


def with_signer_and_payload(payload):
    chain = Base()
    return chain.bad_transaction(chain.sign(chain.signer, payload))


@valid
def many_transactions_in_a_block():
    chain = Base()
    chain.add_block([chain.sign(chain.signer, reading(1000 + number)) for number in range(37)])
    return chain.end()


def with_pruned(line=None, **changed):
    """A chain with one pruned transaction. Apart from the valid ones: it may be checked, though not always kept."""
    chain = Base()
    full = chain.sign(chain.signer, reading(3), **changed)
    pruned = Transaction(full.key_id, full.sequence, b"", b"", full.content_hash, pruned=True)
    chain.add_block([pruned])
    chain.lines[-1]["transactions"][0].update(line or {})
    return chain.end()


# Structure ---------------------------------------------------------------------------------------------------------


@mutant("version", "header version 2")
def header_of_version_2():
    return Base().bad_header(version=2)


@mutant("header", "header: .*118")
def header_too_short():
    return edited(lambda lines: blocks_of(lines)[3].update(header=blocks_of(lines)[3]["header"][:-2]))


@mutant("header", "header: .*left over")
def header_with_a_trailing_byte():
    return edited(lambda lines: blocks_of(lines)[3].update(header=blocks_of(lines)[3]["header"] + "00"))


@mutant("header", "header: ")
def header_not_hexadecimal():
    return edited(lambda lines: blocks_of(lines)[3].update(header="zz" + blocks_of(lines)[3]["header"][2:]))


@mutant("payload", "payload of 0 bytes")
def payload_empty():
    return with_signer_and_payload(b"")


@mutant("payload", "payload of 65537 bytes")
def payload_over_64_kib():
    return with_signer_and_payload(b"x" * 65_537)


@mutant("payload|line", "line 7: .*surrogate")
def payload_not_utf8():
    return with_signer_and_payload(b"temperature \xff")


# Keys --------------------------------------------------------------------------------------------------------------


@mutant("key_id", "line 7: key_id")
def key_that_does_not_hash_to_its_id():
    chain = Base()
    mallory = keys.new_ed25519()
    alice = keys.new_ed25519()
    chain.add_key(mallory, key_id=alice.key_id)
    chain.known_keys.add(alice.key_id)
    payload = reading(3).encode()
    return chain.bad_transaction(chain.sign(alice, payload, signature=mallory.sign(payload)))


@mutant("public_key", "PEM")
def key_that_is_not_pem():
    return edited(lambda lines: lines[2].update(public_key="ssh-ed25519 AAAAC3Nz"))


@mutant("public_key", "DER")
def key_with_a_trailing_byte():
    return with_signer(keys.with_trailing_byte(keys.new_ed25519()))


@mutant("public_key", "DER")
def key_with_a_long_length():
    return with_signer(keys.with_long_length(keys.rsa_signer(keys.rsa_key())))


@mutant("public_key", "DER")
def rsa_key_without_parameters():
    return with_signer(keys.rsa_without_parameters(keys.rsa_signer(keys.rsa_key())))


@mutant("public_key", "modulus of 1024 bits")
def rsa_key_too_short():
    return with_signer(keys.rsa_signer(keys.rsa_key(1024)))


@mutant("public_key", "modulus of 8200 bits")
def rsa_key_too_long():
    return with_signer(keys.raw_rsa(8200))


@mutant("public_key", "modulus of 2052 bits")
def rsa_key_not_a_whole_number_of_bytes():
    return with_signer(keys.raw_rsa(2052))


@mutant("public_key", "exponent")
def rsa_key_with_exponent_3():
    return with_signer(keys.rsa_signer(keys.rsa_key(2048, 3)))


@mutant("public_key", "exponent")
def rsa_key_with_a_huge_exponent():
    return with_signer(keys.raw_rsa(2048, 2**33 + 17))


@mutant("public_key", "uncompressed")
def p256_key_compressed():
    return with_signer(keys.p256_compressed(keys.new_ec()))


@mutant("public_key", "curve")
def p384_key():
    return with_signer(keys.new_ec(ec.SECP384R1()))


@mutant("public_key", "algorithm")
def dsa_key():
    return with_signer(keys.new_dsa())


@mutant("public_key", "small order")
def ed25519_key_that_is_neutral():
    return with_signer(keys.ed25519_neutral(1))


@mutant("public_key", "small order")
def ed25519_key_of_order_8():
    return with_signer(keys.ed25519_of_order_8())


@mutant("public_key", "small order|canonical")
def ed25519_key_not_canonically_encoded():
    return with_signer(keys.ed25519_neutral(edwards.P + 1))


# Signatures --------------------------------------------------------------------------------------------------------


@mutant("signature", "signature does not verify")
def payload_changed_after_signing():
    chain = Base()
    signed = chain.sign(chain.signer, reading(3))
    changed = Transaction(signed.key_id, signed.sequence, reading(4).encode(), signed.signature)
    return chain.bad_transaction(changed)


@mutant("signature", "signature does not verify")
def signature_by_another_key():
    mallory = keys.new_ed25519()
    return with_signature(keys.new_ed25519(), mallory.sign)


@mutant("signature", "signature does not verify")
def signature_missing():
    return with_signature(keys.new_ed25519(), lambda payload: b"")


@mutant("signature", "signature does not verify")
def ed25519_signature_with_a_trailing_byte():
    signer = keys.new_ed25519()
    return with_signature(signer, lambda payload: signer.sign(payload) + b"\x00")


@mutant("signature", "signature does not verify")
def ed25519_signature_with_a_large_s():
    return with_signer(keys.ed25519_with_large_s(keys.new_ed25519()))


@mutant("signature", "signature does not verify")
def ed25519_signature_good_only_with_the_cofactor():
    return with_signer(keys.ed25519_with_torsion(keys.new_ed25519()))


@mutant("signature", "signature does not verify")
def p256_signature_not_in_strict_der():
    signer = keys.new_ec()

    def long_length(payload):
        strict = signer.sign(payload)
        return strict[:1] + b"\x81" + strict[1:]

    return with_signature(signer, long_length)


@mutant("signature", "signature does not verify")
def p256_signature_over_sha512():
    signer = keys.new_ec()
    return with_signature(signer, lambda payload: signer.private.sign(payload, ec.ECDSA(hashes.SHA512())))


@mutant("signature", "signature does not verify")
def rsa_signature_without_salt():
    return with_signer(keys.rsa_signer(keys.rsa_key(), keys.pss(0)))


@mutant("signature", "signature does not verify")
def rsa_signature_with_a_salt_of_33():
    return with_signer(keys.rsa_signer(keys.rsa_key(), keys.pss(33)))


@mutant("signature", "signature does not verify")
def rsa_signature_by_pkcs1():
    return with_signer(keys.rsa_signer(keys.rsa_key(), padding.PKCS1v15()))


@mutant("signature", "signature does not verify")
def rsa_signature_over_sha512():
    scheme = padding.PSS(padding.MGF1(hashes.SHA512()), 64)
    return with_signer(keys.rsa_signer(keys.rsa_key(), scheme, hashes.SHA512()))


@mutant("signature", "signature does not verify")
def rsa_signature_with_a_leading_zero():
    signer = keys.rsa_signer(keys.rsa_key())
    return with_signature(signer, lambda payload: b"\x00" + signer.sign(payload))


@mutant("key_id", "unsigned, which")
def unsigned_where_the_rules_forbid_it():
    chain = Base()
    return chain.bad_transaction(chain.unsigned(reading(3)))


@mutant("signature", "15 bytes")
def unsigned_with_15_random_bytes():
    chain = Base(unsigned=True)
    return chain.bad_transaction(chain.unsigned(reading(3), size=15))


# A block alone -----------------------------------------------------------------------------------------------------


@mutant("transactions", "no transaction")
def block_without_transactions():
    chain = Base()
    chain.add_block([])
    return chain.end()


@mutant("transactions_root", "transactions_root")
def transactions_root_of_other_transactions():
    return Base().bad_header(transactions_root=verify.EMPTY_ROOT)


@mutant("transactions_root", "transactions_root")
def transactions_swapped_in_the_list():
    def swap(lines):
        transactions = blocks_of(lines)[3]["transactions"]
        transactions.reverse()

    return edited(swap)


@mutant("transactions_root", "transactions_root")
def transaction_taken_from_the_list():
    # The last block, and the last transaction of its key: no sequence is missed.
    return edited(lambda lines: blocks_of(lines)[-1]["transactions"].pop())


@mutant("hash", "proof of work")
def hash_above_the_target():
    return Base().bad_header(mined=False)


# A block on its branch ---------------------------------------------------------------------------------------------


@mutant("height", "height 4")
def height_skipped():
    return Base().bad_header(height=4)


@mutant("prev_block_hash", "prev_block_hash")
def link_to_the_block_before_the_last():
    chain = Base()
    return chain.bad_header(prev_block_hash=chain.hashes[-2])


@mutant("history_root", "history_root")
def history_without_the_last_block():
    chain = Base()
    shorter = type(chain.history)()
    for block_hash in chain.hashes[:-1]:
        shorter.add(block_hash)
    return chain.bad_header(history_root=shorter.root())


@mutant("bits", "bits")
def bits_below_the_least():
    return Base(difficulty=1).bad_header(bits=verify.bits_of(0))


@mutant("bits", "bits")
def bits_that_no_difficulty_gives():
    return Base().bad_header(bits=0x1F0FFFFE)


@mutant("bits", "bits")
def bits_negative():
    return Base().bad_header(bits=0x20800001)


@mutant("bits", "bits")
def bits_overflowing():
    return Base().bad_header(bits=0xFF00FFFF)


@mutant("timestamp_ms", "timestamp_ms .*median")
def time_before_the_median():
    chain = Base()
    for _ in range(12):
        chain.good_block()
    return chain.bad_header(timestamp_ms=sorted(chain.timestamps[-11:])[5] - 1)


@mutant("timestamp_ms", "timestamp_ms .*median")
def time_before_the_median_of_two():
    # The median of two is sorted[2/2], the later one.
    chain = ChainBuilder()
    signer = keys.new_ed25519()
    chain.add_block([chain.sign(signer, reading(1))])
    chain.add_block([chain.sign(signer, reading(2))], timestamp_ms=chain.timestamps[1] - 1)
    return chain.export()


@mutant("id", "id .* stands earlier")
def statement_twice_in_one_block():
    chain = Base()
    chain.add_block([chain.sign(chain.signer, reading(7)), chain.sign(chain.signer, reading(7))])
    return chain.end()


@mutant("id", "id .* stands earlier")
def statement_twice_on_the_branch():
    chain = Base()
    return chain.bad_transaction(chain.sign(chain.signer, reading(1)))


@mutant("id", "id .* stands earlier")
def statement_twice_with_two_signatures():
    chain = Base()
    signer = keys.rsa_signer(keys.rsa_key())
    chain.add_block([chain.sign(signer, reading(7)), chain.sign(signer, reading(8))])
    return chain.bad_transaction(chain.sign(signer, reading(7)))


@mutant("id", "id .* stands earlier")
def unsigned_statement_with_the_same_random_bytes():
    chain = Base(unsigned=True)
    first = chain.unsigned(reading(3))
    again = Transaction(first.key_id, first.sequence + 1, first.payload, first.signature)
    chain.add_block([first, again])
    return chain.export()


@mutant("sequence", "sequence")
def sequence_skipped():
    chain = Base()
    chain.next_sequence(chain.signer.key_id)
    return chain.bad_transaction(chain.sign(chain.signer, reading(3)))


@mutant("sequence", "sequence")
def sequence_repeated():
    chain = Base()
    return chain.bad_transaction(chain.sign(chain.signer, reading(3), sequence=1))


@mutant("sequence", "sequence")
def sequence_in_the_wrong_order():
    chain = Base()
    first, second = chain.sign(chain.signer, reading(3)), chain.sign(chain.signer, reading(4))
    chain.add_block([second, first])
    return chain.end()


@mutant("sequence", "sequence")
def first_sequence_is_not_zero():
    chain = Base()
    newcomer = keys.new_ed25519()
    return chain.bad_transaction(chain.sign(newcomer, reading(3), sequence=1))


@mutant("sequence", "sequence")
def unsigned_sequence_forgets_the_genesis_transaction():
    chain = Base(unsigned=True)
    chain.sequences[bytes(32)] = -1
    return chain.bad_transaction(chain.unsigned(reading(3)))


# Genesis -----------------------------------------------------------------------------------------------------------


@mutant("prev_block_hash", "genesis block's prev_block_hash")
def genesis_with_a_block_below():
    return genesis_only_broken(prev_block_hash=verify.EMPTY_ROOT)


@mutant("history_root", "genesis block's history_root")
def genesis_with_a_history():
    return genesis_only_broken(history_root=bytes(32))


@mutant("height", "genesis block's height|height 1")
def genesis_at_height_1():
    return genesis_only_broken(height=1)


@mutant("timestamp_ms", "genesis block's timestamp_ms")
def genesis_at_another_time_than_its_rules_say():
    return genesis_only_broken(timestamp_ms=GENESIS_TIME_MS + 1)


@mutant("bits", "genesis block's bits")
def genesis_with_harder_bits_than_its_rules():
    return genesis_only_broken(bits=verify.bits_of(2))


@mutant("nonce", "genesis block's nonce")
def genesis_with_a_nonce():
    return genesis_only_broken(nonce=1)


@mutant("transactions", "genesis block holds 2 transactions")
def genesis_with_two_transactions():
    first = Transaction(bytes(32), 0, json.dumps(ChainBuilder().rules).encode(), b"")
    second = Transaction(bytes(32), 1, b"{}", b"")
    return genesis_only_broken(transactions=[first, second])


@mutant("signature", "genesis transaction must be unsigned")
def genesis_with_random_bytes():
    return genesis_only_broken(transactions=[ChainBuilder().genesis_transaction(sequence=0, signature=bytes(16))])


@mutant("sequence", "genesis transaction must be .*number 0")
def genesis_with_sequence_1():
    return genesis_only_broken(transactions=[ChainBuilder().genesis_transaction(sequence=1)])


@mutant("signature|key_id", "genesis transaction must be unsigned")
def genesis_signed():
    chain = ChainBuilder()
    signer = keys.new_ed25519()
    payload = json.dumps(chain.rules).encode()
    signed = Transaction(signer.key_id, 0, payload, signer.sign(payload))
    lines = genesis_only_broken(transactions=[signed]).splitlines(keepends=True)
    key = {"type": "key", "key_id": signer.key_id.hex(), "public_key": signer.pem}
    return b"".join([lines[0], json.dumps(key).encode() + b"\n", *lines[1:]])


@mutant("payload", "genesis payload")
def genesis_of_another_kind_of_chain():
    return genesis_only_broken({"genesis": "Genesis"})


@mutant("payload", "genesis payload .*on_moon")
def genesis_with_an_unknown_seal():
    return genesis_only_broken({"seal": "on_moon"})


@mutant("payload", "genesis payload .*difficulty 17")
def genesis_with_difficulty_17():
    return genesis_only_broken({"difficulty": 17})


@mutant("payload", "genesis payload .*boolean")
def genesis_with_unsigned_no_boolean():
    return genesis_only_broken({"unsigned": "no"})


@mutant("payload", "genesis payload")
def genesis_that_is_not_json():
    transaction = ChainBuilder().genesis_transaction(sequence=0, payload=b"Genesis Block")
    return genesis_only_broken(transactions=[transaction])


# Export ------------------------------------------------------------------------------------------------------------


@mutant("export", "no block")
def export_empty():
    return b""


@mutant("line 1", "must come first")
def export_without_its_first_line():
    return edited(lambda lines: lines[1:])


@mutant("version", "export version 2")
def export_of_version_2():
    return Base().end(version=2)


@mutant("genesis", "genesis of the first line")
def export_of_another_genesis():
    return Base().end(genesis="00" * 32)


@mutant("tip", "first line says tip")
def export_of_another_tip():
    return Base().end(tip="00" * 32)


@mutant("height", "first line says tip .*height 7")
def export_of_another_height():
    return Base().end(height=7)


@mutant("height|tip", "first line says tip")
def export_cut_short():
    return edited(lambda lines: lines[:-1])


@mutant("line|tip|height", "line 8: EOF")
def export_cut_in_the_middle_of_a_line():
    return Base().end()[:-100]


@mutant("export|tip|height", "no block")
def export_without_blocks():
    return edited(lambda lines: lines[:1])


@mutant("height|genesis", "block 0: .*genesis")
def export_without_its_genesis_block():
    return edited(lambda lines: [line for line in lines if line.get("height") != 0 or line["type"] != "block"])


@mutant("height|prev_block_hash", "height 3: expected 2")
def export_without_a_block_in_the_middle():
    return edited(lambda lines: [line for line in lines if line.get("height") != 2])


@mutant("height|prev_block_hash|key_id", "height 4: expected 3")
def export_with_two_blocks_swapped():
    def swap(lines):
        lines[-1], lines[-2] = lines[-2], lines[-1]

    return edited(swap)


@mutant("line", "line 9: .*receipt")
def export_with_a_line_of_an_unknown_type():
    return edited(lambda lines: [*lines, {"type": "receipt"}])


@mutant("line", "line 9:")
def export_with_a_line_that_is_not_json():
    return Base().end() + b"the end\n"


@mutant("hash", "hash of the line")
def export_with_a_hash_that_is_not_the_headers():
    return edited(lambda lines: blocks_of(lines)[3].update(hash="00" * 32))


@mutant("height", "height of the line")
def export_with_a_height_that_is_not_the_headers():
    return edited(lambda lines: blocks_of(lines)[3].update(height=9))


@mutant("key_id", "key .* is not known")
def export_without_a_key():
    return edited(lambda lines: [line for line in lines if line != lines[2]])


@mutant("key_id", "key .* is not known")
def export_with_a_key_after_its_first_use():
    return edited(lambda lines: [*lines[:2], *lines[3:], lines[2]])


@mutant("signature", "transaction 0: .*base64")
def export_with_a_signature_that_is_not_base64():
    def junk(lines):
        blocks_of(lines)[3]["transactions"][0]["signature"] += "*"

    return edited(junk)


@mutant("signature", "transaction 0: .*base64")
def export_with_a_signature_that_is_not_ascii():
    def junk(lines):
        blocks_of(lines)[3]["transactions"][0]["signature"] += "é"

    return edited(junk)


@mutant("public_key", "line 3: .*base64")
def export_with_a_key_in_base64_with_loose_bits():
    def loosen(lines):
        assert lines[2]["type"] == "key"
        head, last, tail = lines[2]["public_key"].partition("=\n")
        # An Ed25519 key takes 44 bytes: of the last digit two bits are left over.
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        assert digits.index(head[-1]) % 4 == 0
        lines[2]["public_key"] = head[:-1] + digits[digits.index(head[-1]) + 1] + last + tail

    return edited(loosen)


@mutant("signature", "signature of 65536 bytes|65535")
def signature_longer_than_its_length_field():
    def lengthen(lines):
        blocks_of(lines)[3]["transactions"][0]["signature"] = base64.b64encode(bytes(65_536)).decode()

    return edited(lengthen)


@mutant("payload", "network name|genesis")
def network_without_a_name():
    return genesis_only_broken({"network": ""})


@mutant("payload", "network name|genesis")
def network_with_a_name_of_65_bytes():
    return genesis_only_broken({"network": "é" * 32 + "x"})


@mutant("payload", "network name|genesis")
def network_with_a_line_break_in_its_name():
    return genesis_only_broken({"network": "a\nb"})


@mutant("line", "line 9:")
def export_with_minus_zero_for_a_number():
    ending = b'{"type":"end","blocks":-0,"transactions":9,"tip":"' + b"0" * 64 + b'"}\n'
    return Base().end() + ending


@mutant("key_id", "without a signature|not allow|pruned")
def pruned_transaction_that_nobody_signed():
    chain = Base()
    full = chain.unsigned(reading(3))
    chain.add_block([Transaction(full.key_id, full.sequence, b"", b"", full.content_hash, pruned=True)])
    return chain.end()


@mutant("transactions_root", "transactions_root|pruned")
def pruned_transaction_with_another_content_hash():
    return with_pruned({"content_hash": "00" * 32})


@mutant("sequence", "sequence 5|pruned")
def pruned_transaction_with_another_sequence():
    return with_pruned(sequence=5)


@mutant("payload|key_id", "genesis transaction|pruned")
def pruned_genesis():
    def prune(lines):
        genesis = blocks_of(lines)[0]["transactions"][0]
        content = Transaction(bytes(32), 0, genesis["payload"].encode(), b"").content_hash
        blocks_of(lines)[0]["transactions"][0] = {
            "key_id": genesis["key_id"], "sequence": 0, "content_hash": content.hex(), "pruned": True,
        }

    return edited(prune)
