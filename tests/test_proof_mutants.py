"""Proof files that were changed in one place: the program and the second, independent checker must agree on each, and both
must refuse it, but for changes that take nothing but a claim away or touch what no proof can hold (see HARMLESS)."""

import base64
import json
import re

import pytest

from program import ROOT, run
from verifier import verify

FOLDER = ROOT / "testdata/proofs"
GENESIS = verify.parse_json((FOLDER / "block.json").read_text())["genesis"]
# Those that the policy of the golden files is satisfied by.
FILES = [
    "receipt-ed25519.json",
    "receipt-rsa.json",
    "receipt-p256.json",
    "receipt-newest.json",
    "block.json",
    "key-history.json",
    "consistency.json",
    "receipt.tlog-proof",
    "checkpoint.txt",
]
OTHER_RECEIPT = json.loads((FOLDER / "receipt-newest.json").read_text())

# Changes that both must take, by the file and the change, and why that does no harm.
HARMLESS = [
    (
        r"(receipt|key-history|block)\S*: .*\btransactions [+-]1",
        "how many transactions a block has is not in its header: the path alone decides, and other numbers can have the same",
    ),
    (
        r"(receipt|key-history)\S*: .*\bposition [+-]1",
        "likewise the place in the block, where the path cannot tell it from another",
    ),
    (r"\S+: (extra: )?(anchor|from|to)\.header dropped", "a claim less: the checkpoint names the tree too"),
    (r"consistency\S*: header_path dropped", "a claim less: that the block above the earlier tree is in the later one"),
    (r"consistency\S*: (from|to)\.checkpoint dropped", "a claim less: the header names the tree too"),
    (
        r"consistency\S*: (from|to)\.checkpoint: (signature .*|a line more)",
        "a consistency file is arithmetic; who signed is asked where its ends meet a receipt or a checkpoint",
    ),
    (r"key-history\S*: (from|to) [+-]1", "another part of the history, of which the same transactions are as good a proof"),
    (r"key-history\S*: blocks\[-1\] dropped", "a claim less: how far the history is complete"),
    (r"\S+: .*checkpoint: signature of .* twice", "the same signature again says nothing new"),
    (r"\S+: .*checkpoint: signatures swapped", "their order says nothing"),
    (r"\S+: .*checkpoint: unknown signature added", "signatures of keys that the policy does not name are passed over"),
    (r"\S+: (extra: )?spaces", "white space between the parts of JSON says nothing"),
]


def flip(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 128 >> bit % 8
    return bytes(data)


def mutants_of_hex(text):
    size = len(text) // 2
    bits = [*range(0, size * 8, 29), size * 8 - 1]
    if size == verify.HEADER_SIZE:
        # A bit of each field, at both of its ends.
        starts = [0, 2, 34, 66, 98, 102, 110, 114, 118]
        bits = sorted({bit for start in starts for bit in (start * 8, start * 8 - 1) if 0 <= bit < size * 8})
    for bit in bits:
        yield f"bit {bit}", flip(bytes.fromhex(text), bit).hex()
        other = OTHER_RECEIPT["block"]["header"]
        yield "of another block", other if other != text else json.loads((FOLDER / "block.json").read_text())["block"]["header"]
    yield "in capitals", text.upper()
    yield "a digit less", text[:-1]
    yield "a byte less", text[:-2]
    yield "a byte more", text + "00"


def mutants_of_base64(text):
    data = base64.b64decode(text)
    for bit in [*range(0, len(data) * 8, 61), len(data) * 8 - 1]:
        yield f"bit {bit}", base64.b64encode(flip(data, bit)).decode()
    yield "a byte less", base64.b64encode(data[:-1]).decode()
    yield "a byte more", base64.b64encode(data + b"\0").decode()
    yield "padding less", text.rstrip("=") if text.endswith("=") else text + "="
    yield "a line end more", text + "\n"
    yield "another alphabet", text.replace("+", "-").replace("/", "_") if re.search("[+/]", text) else text[:-4] + "_AA="
    if text.endswith("="):
        # The last digit holds bits that no byte has.
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        body, padding = text.rstrip("="), text[len(text.rstrip("=")) :]
        yield "loose bits", body[:-1] + digits[digits.index(body[-1]) ^ 1] + padding


def mutants_of_note(note):
    body, signatures = note[: note.rindex("\n\n") + 1], note[note.rindex("\n\n") + 2 :].splitlines()
    origin, size, root = body.splitlines()[:3]

    def make(lines=(origin, size, root), signed=signatures):
        return "\n".join(lines) + "\n\n" + "".join(line + "\n" for line in signed)

    for name, changed in mutants_of_hex(origin.split("/")[1]):
        yield f"origin, {name}", make(("liotbchain/" + changed, size, root))
    for change in (1, -1):
        yield f"size {change:+}", make((origin, str(int(size) + change), root))
    yield "size with a zero", make((origin, "0" + size, root))
    yield "size with a sign", make((origin, "+" + size, root))
    for name, changed in mutants_of_base64(root):
        yield f"root, {name}", make((origin, size, changed))
    yield "a line more", make((origin, size, root, "more"))
    yield "an empty line more", make((origin, size, root, ""))
    yield "a line less", make((origin, size))
    yield "line ends of another system", note.replace("\n", "\r\n")
    yield "no line end", note[:-1]
    yield "no signatures", make(signed=[])
    yield "signatures swapped", make(signed=signatures[::-1])
    yield "unknown signature added", make(signed=[*signatures, "— somebody.example AAAAAAA="])
    yield "a dash of another kind", note.replace("— ", "- ")
    for place, line in enumerate(signatures):
        dash, name, signature = line.split(" ")
        named = f"signature of {name.split('/')[0]}"
        yield f"{named} dropped", make(signed=signatures[:place] + signatures[place + 1 :])
        yield f"{named} twice", make(signed=[*signatures, line])
        yield f"{named} under another name", make(signed=[*signatures[:place], f"{dash} x{name} {signature}"])
        for change, changed in mutants_of_base64(signature):
            changed = [*signatures[:place], f"{dash} {name} {changed}", *signatures[place + 1 :]]
            yield f"{named}, {change}", make(signed=changed)


def mutants_of_text(text, key):
    if key == "checkpoint":
        yield from mutants_of_note(text)
    elif re.fullmatch("(?:[0-9a-f]{2}){32,}", text):
        yield from mutants_of_hex(text)
    elif key == "public_key":
        lines = text.split("\n")
        yield "in one line", "\n".join([lines[0], "".join(lines[1:-2]), lines[-2], ""]) if len(lines) > 4 else text[:-1]
        yield "no line end", text[:-1]
        yield "text around it", text + "\n"
        for other in ("ed25519", "p256"):
            yield f"that of receipt-{other}.json", json.loads((FOLDER / f"receipt-{other}.json").read_text())["public_key"]
        for place in (30, len(text) // 2):
            yield f"character {place}", text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    elif key == "payload":
        yield "a character more", text + " "
        yield "a character less", text[:-1]
        yield "another character", text.replace("device", "Device", 1)
        yield "empty", ""
    elif re.fullmatch("[A-Za-z0-9+/]+=*", text) and key != "type":
        yield from mutants_of_base64(text)
    else:
        yield "another word", text + "s"
        yield "of another kind", {"receipt": "block", "block": "receipt"}.get(text, "receipt")


def mutants_of_value(value, key, where):
    """Yields what stands in a value's place in each mutant, under a name."""
    if isinstance(value, str):
        for name, changed in mutants_of_text(value, key):
            yield f"{where}: {name}", changed
        yield f"{where} is a list", [value]
    elif isinstance(value, int):
        for change in (1, -1):
            yield f"{where} {change:+}", value + change
        for changed in (bool(value), float(value), str(value), None, 1 << 64, value + 2**32):
            yield f"{where} is {changed!r}", changed
    elif isinstance(value, list):
        for place in range(len(value)):
            named = f"{where}[{place if place < len(value) - 1 else -1}]"
            yield f"{named} dropped", value[:place] + value[place + 1 :]
            yield f"{named} twice", value[: place + 1] + value[place:]
            if place + 1 < len(value):
                yield f"{named} swapped", value[:place] + [value[place + 1], value[place]] + value[place + 2 :]
            for name, changed in mutants_of_value(value[place], key, named):
                yield name, value[:place] + [changed] + value[place + 1 :]
        yield f"{where} is an object", dict(enumerate(value))
        yield f"{where} is null", None
    elif isinstance(value, dict):
        for name in value:
            at = f"{where}.{name}".lstrip(".")
            yield f"{at} dropped", {key: it for key, it in value.items() if key != name}
            yield f"{at} is null", {**value, name: None}
            for mutant, changed in mutants_of_value(value[name], name, at):
                yield mutant, {**value, name: changed}
        yield f"{where} has an unknown key", {**value, "more": 1}
        for name in ("public_key", "history_path", "header_path", "header", "checkpoint"):
            if name not in value:
                yield f"{where} has {name}", {**value, name: found(name)}


def found(name):
    """A value of this name that is well-formed and belongs to another file."""
    places = {"public_key": OTHER_RECEIPT, "history_path": OTHER_RECEIPT["block"], "header": OTHER_RECEIPT["block"]}
    places["checkpoint"] = OTHER_RECEIPT["anchor"]
    return places[name][name] if name in places else []


def mutants_of_json(text):
    value = json.loads(text)
    for name, changed in mutants_of_value(value, None, ""):
        # A key or a header of another file may be the one that stands there.
        if json.dumps(changed) != json.dumps(value):
            yield name, json.dumps(changed)
    for key in ("type", "version", "genesis"):
        yield f"{key} twice", text.replace("{", "{" + f'"{key}":{json.dumps(value[key])},', 1)
    yield "spaces", json.dumps(value, indent=1)
    for size in (1, len(text) // 3, len(text) - 1):
        yield f"cut at {size}", text[:size]
    for more in ("x", "{}", "\0"):
        yield f"{more!r} behind it", text + more
    yield "a byte order mark", "\ufeff" + text


def mutants_of_tlog_proof(text):
    head, note = text.split("\n\n", 1)
    first, extra, index, *path = head.split("\n")

    def make(*lines):
        return "\n".join(lines) + "\n\n" + note

    for change in (1, -1):
        yield f"index {change:+}", make(first, extra, f"index {int(index.split()[1]) + change}", *path)
    yield "index with a zero", make(first, extra, index.replace(" ", " 0"), *path)
    yield "no extra", make(first, index, *path)
    yield "no index", make(first, extra, *path)
    yield "another version", make(first.replace("v1", "v2"), extra, index, *path)
    yield "a line more", make(first, extra, index, *path, "more")
    yield "index before extra", make(first, index, extra, *path)
    yield "nothing but a head", head + "\n"
    for name, changed in mutants_of_value(path, None, "path"):
        if isinstance(changed, list) and all(isinstance(line, str) for line in changed):
            yield name, make(first, extra, index, *changed)
    for name, changed in mutants_of_json(base64.b64decode(extra.split()[1]).decode()):
        encoded = base64.b64encode(changed.encode()).decode()
        yield f"extra: {name}", make(first, f"extra {encoded}", index, *path)
    for name, changed in mutants_of_base64(extra.split()[1]):
        yield f"extra in base64, {name}", make(first, f"extra {changed}", index, *path)
    for name, changed in mutants_of_note(note):
        yield f"checkpoint: {name}", head + "\n\n" + changed


def mutants_of(file):
    text = (FOLDER / file).read_text()
    if file.endswith(".json"):
        mutants = mutants_of_json(text)
    elif file.endswith(".txt"):
        mutants = ((f"checkpoint: {name}", changed) for name, changed in mutants_of_note(text))
    else:
        mutants = mutants_of_tlog_proof(text)
    # What a change makes of the file as it was is no mutant.
    return [(name, changed) for name, changed in mutants if changed != text]


@pytest.fixture(scope="module")
def known():
    policy = verify.Policy((FOLDER / "policy.txt").read_text())
    return verify.Known(genesis=bytes.fromhex(GENESIS), policy=policy)


def refusal(data, known):
    try:
        known.check(verify.verify_proof(data))
    except verify.Fault as fault:
        return str(fault)
    return None


def findings(folder, texts):
    """What the program says of each text."""
    names = []
    for number, text in enumerate(texts):
        names.append(f"{number}")
        (folder / names[-1]).write_bytes(text.encode("utf-8", "surrogatepass"))
    told = run("verify", "--json", "--policy", FOLDER / "policy.txt", "--genesis", GENESIS, *names, folder=folder)
    assert told.returncode in (0, 3), told.stderr
    assert "panicked" not in told.stderr
    found = json.loads(told.stdout)
    assert [it["file"] for it in found] == names
    return found


@pytest.mark.parametrize("file", FILES)
def test_both_take_the_golden_file(file, known, tmp_path):
    text = (FOLDER / file).read_text()
    assert refusal(text.encode(), known) is None
    [finding] = findings(tmp_path, [text])
    assert finding["holds"], finding


@pytest.mark.parametrize("file", FILES)
def test_both_refuse_every_mutant(file, known, tmp_path):
    mutants = mutants_of(file)
    assert len(mutants) > 50
    wrong = []
    for (name, text), finding in zip(mutants, findings(tmp_path, [text for _, text in mutants])):
        ours = refusal(text.encode("utf-8", "surrogatepass"), known)
        if finding["holds"] != (ours is None):
            wrong.append(f"{file}: {name}: the program says {finding.get('refused')!r}, the verifier {ours!r}")
        elif finding["holds"] and not any(re.fullmatch(pattern, f"{file}: {name}") for pattern, _ in HARMLESS):
            wrong.append(f"{file}: {name}: both take it")
    assert not wrong, "\n".join(wrong)
