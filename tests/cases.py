"""What the receiver of the Python original answered, and what ours answers: a table for tests and for readers.

test_original_vectors.py sends each case to a running receiver. Run as a program, this file writes the table for
readers: python3 tests/cases.py > docs/compatibility.md
"""

import base64
import functools
import gzip
import hashlib
import itertools
import json
import textwrap
from dataclasses import dataclass, field
from typing import Callable

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

import signer as keys

MEBIBYTE = 1 << 20


@dataclass
class Request:
    """A request, and the transactions that must be on the chain once it was accepted, as (key, signed text)."""

    body: object  # bytes, or a list of chunks where it is large
    statements: list = field(default_factory=list)
    method: str = "POST"
    path: str = "/receive_data"
    headers: dict = field(default_factory=lambda: {"Content-Type": "application/json"})

    @property
    def ids(self):
        return [transaction_id(signer.key_id, text.encode()) for signer, text in self.statements]


@dataclass
class Case:
    name: str
    original: str  # class of the answer in the original's documentation, and how many blocks were added
    ours: str  # status, and the code where it is refused
    request: Callable[[], Request]
    why: str = ""


def transaction_id(key_id, payload):
    return hashlib.sha256(b"liotbchain/tx/1" + key_id + payload).hexdigest()


# The codes that an item may have. Others are codes of the whole request.
ITEM_CODES = {
    "invalid_signature", "not_an_object", "missing_key", "unknown_key", "duplicate_key", "bad_base64",
    "bad_public_key", "private_key_sent", "bad_signature_type", "bad_public_key_type", "bad_data",
}  # fmt: skip

# Making requests ---------------------------------------------------------------------------------------------------

numbers = itertools.count(1)


def reading():
    """A reading as the original's sender makes it, different each time, as Python writes JSON."""
    return json.dumps({"device": "Raspberry Pi 1", "distance": next(numbers), "timestamp": 1717979369.243414})


@functools.cache
def device():
    return keys.rsa_signer(keys.rsa_key())


@functools.cache
def python_device():
    """Signs what Python writes for a value; a key of its own, so that no statement is made twice."""
    return keys.rsa_signer(keys.rsa.generate_private_key(65537, 2048))


def items(*texts, statements=(), **options):
    return Request(("[" + ", ".join(texts) + "]").encode(), list(statements), **options)


def one(data=None, signed=None, signer=None, accepted=True, **replaced):
    """A list of one item."""
    signer = signer or device()
    data = data or reading()
    statement = (signer, data if signed is None else signed)
    return items(signer.item(data, signed, **replaced), statements=[statement] if accepted else [])


def refused(*arguments, **options):
    return one(*arguments, accepted=False, **options)


def several(count):
    texts = [reading() for _ in range(count)]
    return items(*[device().item(text) for text in texts], statements=[(device(), text) for text in texts])


def with_type(content_type):
    request = one()
    request.headers = {"Content-Type": content_type} if content_type else {}
    return request


def with_body(change):
    request = one()
    request.body = change(request.body)
    return request


def plain(body, statements=()):
    return Request(body if isinstance(body, bytes) else body.encode(), list(statements))


def without(key):
    item = json.loads(device().item(reading()))
    del item[key]
    return items(json.dumps(item))


def with_good(*others, first=True):
    good = device().item(reading())
    return items(*([good, *others] if first else [*others, good]))


def twice():
    text = reading()
    item = device().item(text)
    return items(item, item, statements=[(device(), text)] * 2)


@functools.cache
def replayed():
    return one()


def signature_text(signer, text, change=lambda raw: raw, encode=base64.b64encode):
    return change(encode(signer.sign(text.encode())).decode())


def resigned(change=lambda text: text, encode=base64.b64encode, accepted=False):
    """An item whose signature is true, but written in another way."""
    text = reading()
    return one(text, accepted=accepted, signature=json.dumps(signature_text(device(), text, change, encode)))


def url_safe():
    while True:
        text = reading()
        signature = signature_text(device(), text, encode=base64.urlsafe_b64encode)
        if "-" in signature or "_" in signature:
            return refused(text, signature=json.dumps(signature))


def foreign_signature():
    return refused(signature=json.dumps(signature_text(device(), reading())))


def with_key(pem_change, accepted=True):
    return one(accepted=accepted, public_key=json.dumps(pem_change(device().pem)))


def pkcs1_pem():
    formats = serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
    return json.dumps(keys.rsa_key().public_key().public_bytes(*formats).decode())


def private_pem():
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return json.dumps(keys.rsa_key().private_bytes(*formats).decode())


def by(signer, accepted=True):
    return one(signer=signer, accepted=accepted)


def second_data_wins():
    text = reading()
    return plain("[" + device().item(text).replace('{"data"', '{"data": 1, "data"', 1) + "]")


def nested(depth):
    return "[" * depth + "]" * depth


def large_string():
    text = json.dumps("x" * (50 * MEBIBYTE))
    item = "[" + device().item(text) + "]"
    return Request([item.encode()])


def without_body(method, path):
    return Request(b"", method=method, path=path, headers={})


def numbers_of_50_mb():
    return Request([b"[", *[b"1, " * (MEBIBYTE // 3)] * 50, b"1]"])


def not_json_of_50_mb():
    return Request([b"x" * MEBIBYTE] * 50)


# The table ---------------------------------------------------------------------------------------------------------

NOT_500 = "bad input is the client's to mend: 400 says which item and why"
JSON_ERROR = "the same answer as JSON with a code, not an HTML page"
ONCE = "the same signed statement is one transaction; each time it is answered with the first one's acknowledgement"
AS_SIGNED = "the signature is good over the text as it was sent, and that text is stored"
STANDARD_JSON = "NaN and Infinity are not JSON, and no strict reader could read the chain"
STRICT_BASE64 = "base64 is checked; only white space may stand between its characters"
WHOLE = "a list is taken whole or not at all"
MODERN_KEY = "Ed25519 and P-256 keys are allowed"
SHORT_KEY = "RSA keys need 2048 to 8192 bits"
SIZE = "a request may have 8 MiB, a payload 64 KiB, by default"

# name, JSON text of the data, what we answer to the text as it was signed, and to what Python writes for it
LITERALS = [
    ("NaN", '{"v": NaN}', "400 not_json"),
    ("Infinity", '{"v": Infinity}', "400 not_json"),
    ("-Infinity", '{"v": -Infinity}', "400 not_json"),
    ("1e16", '{"v": 1e16}', "200", "200"),
    ("1e400", '{"v": 1e400}', "200", "400 invalid_signature"),
    ("1.10", '{"v": 1.10}', "200", "200"),
    ("-0.0", '{"v": -0.0}', "200"),
    ("-0", '{"v": -0}', "200", "200"),
    ("1E5", '{"v": 1E5}', "200", "200"),
    ("1.0", '{"v": 1.0}', "200"),
    ("1e-7", '{"v": 1e-7}', "200", "200"),
    ("0.1+0.2", '{"v": 0.30000000000000004}', "200"),
    ("1e22", '{"v": 1e22}', "200", "200"),
    ("123456789012345680000", '{"v": 123456789012345680000.0}', "200", "200"),
    ("5e-324", '{"v": 5e-324}', "200"),
    ("2**63", '{"v": 9223372036854775808}', "200"),
    ("2**53+1", '{"v": 9007199254740993}', "200"),
    ("10**400 int", '{"v": 1' + "0" * 400 + "}", "200"),
    ("unicode raw UTF-8 é€😀", '{"v": "é€😀"}', "200", "200"),
    ("unicode escaped", r'{"v": "\u00e9\u20ac\ud83d\ude00"}', "200"),
    ("uppercase hex escapes", r'{"v": "\u00E9"}', "200", "200"),
    ("lone surrogate", r'{"v": "\ud800"}', "200"),
    ("NUL", r'{"v": "\u0000"}', "200"),
    ("escaped slash", r'{"v": "a\/b"}', "200", "200"),
    ("DEL 0x7f", '{"v": "a\x7fb"}', "200", "200"),
    ("U+2028", '{"v": "\u2028"}', "200", "200"),
    ("dup keys", '{"a": 1, "a": 2}', "400 bad_data", "200"),
    ("no spaces (JSON.stringify style)", '{"a":1,"b":2}', "200", "200"),
    ("key order b,a", '{"b": 1, "a": 2}', "200"),
    ("extra whitespace", '{ "a" :  1 }', "200", "200"),
    ("key unicode", '{"é": 1}', "200", "200"),
    ("empty key", '{"": 1}', "200"),
    ("tab in string escaped", r'{"v": "a\tb"}', "200"),
    ("deep 50", '{"v": ' + nested(50) + "}", "200"),
    ("1e2", '{"v": 1e2}', "200", "200"),
    ("0.0001", '{"v": 0.0001}', "200"),
    ("0.00001", '{"v": 0.00001}', "200", "200"),
    ("1717979369.243414", '{"v": 1717979369.243414}', "200"),
    ("long decimals", '{"v": 0.1234567890123456789}', "200", "200"),
]

LITERAL_REASONS = {
    "NaN": STANDARD_JSON,
    "Infinity": STANDARD_JSON,
    "-Infinity": STANDARD_JSON,
    "dup keys": "two readers of such a text may read two different values, so it is not stored as it stands",
}


def literal_cases():
    for label, text, ours, *python_ours in LITERALS:
        python_text = json.dumps(json.loads(text))
        assert (text == python_text) == (not python_ours), label
        if text == python_text:
            name = f"[{label}] signed over client literal (== python form)"
            yield Case(name, "A +1", ours, functools.partial(one, text), LITERAL_REASONS.get(label, ""))
            continue
        why = LITERAL_REASONS.get(label, AS_SIGNED)
        yield Case(f"[{label}] signed over client literal", "D +0", ours, functools.partial(one, text), why)
        why = STANDARD_JSON if label == "1e400" else ""
        request = functools.partial(one, text, python_text, python_device())
        yield Case(f"[{label}] signed over python json.dumps form", "A +1", python_ours[0], request, why)


CASES = [
    Case("valid list of 1", "A +1", "200", one),
    Case("valid list of 2", "A +2", "200", lambda: several(2)),
    Case("replay of the same signed item (first time)", "A +1", "200", replayed),
    Case("replay of the same signed item", "A +1", "200 again", replayed, ONCE),
    Case("same item twice in one list", "A +2", "200 once", twice, ONCE),
    Case(
        "single object (README example shape), valid signature", "B +0", "200",
        lambda: with_body(lambda body: body[1:-1]), "the original's own documentation shows such a request",
    ),
    Case("JSON string body", "B +0", "400 not_a_list", lambda: plain('"text"')),
    Case("JSON null body", "B +0", "400 not_a_list", lambda: plain("null")),
    Case("JSON number body", "B +0", "400 not_a_list", lambda: plain("5")),
    Case("empty list", "A +0", "400 empty_list", lambda: plain("[]"), "nothing was added, so the answer does not say so"),
    Case("non-JSON body, application/json", "H400 +0", "400 not_json", lambda: plain("hello"), JSON_ERROR),
    Case("empty body, application/json", "H400 +0", "400 not_json", lambda: plain(""), JSON_ERROR),
    Case("valid body, no Content-Type", "H415 +0", "415 unsupported_content_type", lambda: with_type(None), JSON_ERROR),
    Case("valid body, text/plain", "H415 +0", "415 unsupported_content_type", lambda: with_type("text/plain"), JSON_ERROR),
    Case(
        "valid body, application/x-www-form-urlencoded", "H415 +0", "415 unsupported_content_type",
        lambda: with_type("application/x-www-form-urlencoded"), JSON_ERROR,
    ),
    Case("valid body, application/json; charset=utf-8", "A +1", "200", lambda: with_type("application/json; charset=utf-8")),
    Case("valid body, application/vnd.x+json", "A +1", "200", lambda: with_type("application/vnd.x+json")),
    Case("wrong signature (of other data)", "D +0", "400 invalid_signature", foreign_signature),
    Case("signature empty string", "D +0", "400 invalid_signature", lambda: refused(signature='""')),
    Case('signature bad base64: "!!!!"', "D +0", "400 bad_base64", lambda: refused(signature='"!!!!"')),
    Case('signature bad base64 padding: "abc"', "H500 +0", "400 bad_base64", lambda: refused(signature='"abc"'), NOT_500),
    Case(
        "signature with junk chars inside valid base64 (newline, space, *)", "A +1", "400 bad_base64",
        lambda: resigned(lambda text: text[:9] + "\n *" + text[9:]), STRICT_BASE64,
    ),
    Case("signature url-safe base64", "D +0", "400 bad_base64", url_safe),
    Case(
        "signature trailing garbage after padding", "A +1", "400 bad_base64",
        lambda: resigned(lambda text: text + "garbage"), STRICT_BASE64,
    ),
    Case("signature non-ASCII string", "H500 +0", "400 bad_base64", lambda: refused(signature='"é"'), NOT_500),
    Case("signature number", "H500 +0", "400 bad_signature_type", lambda: refused(signature="5"), NOT_500),
    Case("signature null", "H500 +0", "400 bad_signature_type", lambda: refused(signature="null"), NOT_500),
    Case("bad PEM text", "H500 +0", "400 bad_public_key", lambda: refused(public_key='"not a key"'), NOT_500),
    Case(
        "PEM with garbage body", "H500 +0", "400 bad_public_key",
        lambda: refused(public_key=json.dumps(keys.pem_of("PUBLIC KEY", b"garbage"))), NOT_500,
    ),
    Case("public_key empty", "H500 +0", "400 bad_public_key", lambda: refused(public_key='""'), NOT_500),
    Case("public_key number", "H500 +0", "400 bad_public_key_type", lambda: refused(public_key="5"), NOT_500),
    Case("public_key null", "H500 +0", "400 bad_public_key_type", lambda: refused(public_key="null"), NOT_500),
    Case("missing key data", "C +0", "400 missing_key", lambda: without("data")),
    Case("missing key signature", "C +0", "400 missing_key", lambda: without("signature")),
    Case("missing key public_key", "C +0", "400 missing_key", lambda: without("public_key")),
    Case("item is number", "H500 +0", "400 not_an_object", lambda: plain("[5]"), NOT_500),
    Case("item is null", "H500 +0", "400 not_an_object", lambda: plain("[null]"), NOT_500),
    Case("item is list", "C +0", "400 not_an_object", lambda: plain("[[]]")),
    Case("item is a string", "C +0", "400 not_an_object", lambda: plain('["text"]')),
    Case(
        'item is the string "data signature public_key"', "H500 +0", "400 not_an_object",
        lambda: plain('["data signature public_key"]'), NOT_500,
    ),
    Case(
        'item is list ["data","signature","public_key"]', "H500 +0", "400 not_an_object",
        lambda: plain('[["data","signature","public_key"]]'), NOT_500,
    ),
    Case(
        "extra fields in item", "A +1", "400 unknown_key", lambda: refused(extra="1"),
        "what stands beside data is not signed; dropping it in silence would lose it",
    ),
    Case(
        "extra/nested fields in data", "A +1", "200",
        lambda: one('{"device": "Raspberry Pi 1", "more": {"list": [1, {"deep": null}], "flag": true}}'),
    ),
    Case("data is string", "A +1", "200", lambda: one('"text"')),
    Case("data is number", "A +1", "200", lambda: one("5")),
    Case("data is null", "A +1", "200", lambda: one("null")),
    Case("data is list", "A +1", "200", lambda: one("[1, 2]")),
    Case("data is empty object", "A +1", "200", lambda: one("{}")),
    Case("data is empty list", "A +1", "200", lambda: one("[]")),
    Case("data is true", "A +1", "200", lambda: one("true")),
    Case("data is empty string", "A +1", "200", lambda: one('""')),
    Case(
        "good then bad in one list", "D +1", "400 invalid_signature",
        lambda: with_good(device().item(reading(), signed="other")), WHOLE,
    ),
    Case(
        "bad then good in one list", "D +0", "400 invalid_signature",
        lambda: with_good(device().item(reading(), signed="other"), first=False),
    ),
    Case("good then structurally invalid ({})", "C +1", "400 missing_key", lambda: with_good("{}"), WHOLE),
    Case(
        "good then bad PEM", "H500 +1", "400 bad_public_key",
        lambda: with_good(device().item(reading(), public_key='"not a key"')), WHOLE,
    ),
    *literal_cases(),
    Case(
        "10**5000 int (over 4300 digits)", "H400 +0", "200", lambda: one('{"v": 1' + "0" * 5000 + "}"),
        "a number may have any size and is kept as it was written",
    ),
    Case(
        'dup key "data" in item: second wins?', "A +1", "400 duplicate_key", second_data_wins,
        "two readers may read two different items",
    ),
    Case("raw control char (newline) in string", "H400 +0", "400 not_json", lambda: refused('{"v": "a\nb"}'), JSON_ERROR),
    Case("invalid UTF-8 body", "H400 +0", "400 not_utf8", lambda: with_body(lambda body: body + b"\xff"), JSON_ERROR),
    Case("UTF-8 BOM + valid", "A +1", "200", lambda: with_body(lambda body: b"\xef\xbb\xbf" + body)),
    Case(
        "UTF-16 body", "A +1", "400 not_utf8", lambda: with_body(lambda body: body.decode().encode("utf-16")),
        "JSON between systems is UTF-8 (RFC 8259 section 8.1)",
    ),
    Case("latin-1 charset declared", "A +1", "200", lambda: with_type("application/json; charset=latin-1")),
    Case("deep nesting 100000", "H500 +0", "400 too_deep", lambda: plain(nested(100_000)), NOT_500),
    Case(
        "deep nesting 900 in data", "A +1", "400 too_deep", lambda: refused('{"v": ' + nested(900) + "}"),
        "other readers of the chain fail on deep values; 100 levels are allowed",
    ),
    Case("EC P-256 key, ECDSA-SHA256 signature", "D +0", "200", lambda: by(keys.new_ec()), MODERN_KEY),
    Case("Ed25519 key and signature", "D +0", "200", lambda: by(keys.new_ed25519()), MODERN_KEY),
    Case("RSA-512 PSS MAX_LENGTH", "A +1", "400 bad_public_key", lambda: by(keys.raw_rsa(512), False), SHORT_KEY),
    Case(
        "RSA-1024 PSS MAX_LENGTH", "A +1", "400 bad_public_key",
        lambda: by(keys.rsa_signer(keys.rsa_key(1024)), False), SHORT_KEY,
    ),
    Case("RSA-3072 PSS MAX_LENGTH", "A +1", "200", lambda: by(keys.rsa_signer(keys.rsa_key(3072)))),
    Case("RSA-4096 PSS MAX_LENGTH", "A +1", "200", lambda: by(keys.rsa_signer(keys.rsa_key(4096)))),
    Case(
        "RSA-2048 e=3", "A +1", "400 bad_public_key", lambda: by(keys.rsa_signer(keys.rsa_key(2048, 3)), False),
        "exponents below 65537 have a history of forged signatures",
    ),
    Case("DSA key", "D +0", "400 bad_public_key", lambda: by(keys.new_dsa(), False)),
    Case("RSA-PSS salt 32 (digest length)", "A +1", "200", lambda: by(keys.rsa_signer(keys.rsa_key(), keys.pss(32)))),
    Case(
        "RSA-PSS salt 0", "A +1", "400 invalid_signature", lambda: by(keys.rsa_signer(keys.rsa_key(), keys.pss(0)), False),
        "a chain allows the longest salt, which the original sends, and one of 32 bytes; then any library can check it",
    ),
    Case(
        "RSA PKCS1v15 SHA256", "D +0", "400 invalid_signature",
        lambda: by(keys.rsa_signer(keys.rsa_key(), padding.PKCS1v15()), False),
    ),
    Case(
        "RSA-PSS SHA512 digest, MGF1-SHA256", "D +0", "400 invalid_signature",
        lambda: by(keys.rsa_signer(keys.rsa_key(), keys.pss(32), hashes.SHA512()), False),
    ),
    Case(
        "private key PEM sent as public_key", "H500 +0", "400 private_key_sent",
        lambda: refused(public_key=private_pem()), "the answer says that the key is no longer secret",
    ),
    Case('PKCS#1 "RSA PUBLIC KEY" PEM', "A +1", "200", lambda: one(public_key=pkcs1_pem())),
    Case("PEM with CRLF line ends", "A +1", "200", lambda: with_key(lambda pem: pem.replace("\n", "\r\n"))),
    Case(
        "PEM with leading text and trailing junk", "A +1", "200",
        lambda: with_key(lambda pem: "subject: a device\n" + pem + "junk\n"),
    ),
    Case(r"PEM all on one line (\n stripped)", "A +1", "200", lambda: with_key(lambda pem: pem.replace("\n", ""))),
    Case("PEM without trailing newline", "A +1", "200", lambda: with_key(lambda pem: pem.rstrip())),
    Case(
        "two PEMs concatenated (first is signer)", "A +1", "200",
        lambda: with_key(lambda pem: pem + keys.new_ed25519().pem),
    ),
    Case(
        "attacker: any self-made key is accepted (fresh RSA-2048 key, device name of another)", "A +1", "200",
        lambda: by(keys.rsa_signer(keys.rsa.generate_private_key(65537, 2048))),
        "the same, but the key is kept with the reading, so that readers can tell the two apart",
    ),
    *[
        Case(f"{method} /receive_data", "H405 +0", "405 method_not_allowed",
             functools.partial(without_body, method, "/receive_data"), JSON_ERROR)
        for method in ("GET", "PUT", "DELETE", "PATCH")
    ],
    Case("HEAD /receive_data", "405 empty +0", "405", lambda: without_body("HEAD", "/receive_data")),
    Case("OPTIONS /receive_data", "200 empty +0", "200", lambda: without_body("OPTIONS", "/receive_data")),
    Case("POST /get_chain", "H405 +0", "405 method_not_allowed", lambda: without_body("POST", "/get_chain"), JSON_ERROR),
    Case("HEAD /get_chain", "200 empty +0", "200", lambda: without_body("HEAD", "/get_chain")),
    Case("OPTIONS /get_chain", "200 empty +0", "200", lambda: without_body("OPTIONS", "/get_chain")),
    Case("GET /", "H404 +0", "200", lambda: without_body("GET", "/"), "a page that says what this is, with links"),
    Case("GET /receive_data/", "H404 +0", "404 not_found", lambda: without_body("GET", "/receive_data/"), JSON_ERROR),
    Case(
        "POST /receive_data/ (trailing slash)", "H404 +0", "404 not_found",
        lambda: Request(b"[]", path="/receive_data/"), JSON_ERROR,
    ),
    Case("POST /receive_data?x=1", "A +1", "200", lambda: with_path("/receive_data?x=1")),
    Case("Content-Encoding gzip", "H400 +0", "415 unsupported_encoding", lambda: gzipped(), "the answer says what is wrong"),
    Case("50 MB valid signed data string", "A +1", "413 body_too_large", large_string, SIZE),
    Case("50 MB JSON list of numbers (not items)", "H500 +0", "413 body_too_large", numbers_of_50_mb, SIZE),
    Case("50 MB non-JSON", "H400 +0", "413 body_too_large", not_json_of_50_mb, SIZE),
]  # fmt: skip


def with_path(path):
    request = one()
    request.path = path
    return request


def gzipped():
    request = with_body(gzip.compress)
    request.headers["Content-Encoding"] = "gzip"
    return request


# The recorded requests that the original refused, and our answer to each.
TAMPERED = {
    "data.distance changed by 1": "400 invalid_signature",
    "data.device changed": "400 invalid_signature",
    "extra key inside data": "400 invalid_signature",
    "key removed from data": "400 invalid_signature",
    "distance int -> float (120 -> 120.0)": "400 invalid_signature",
    "distance int -> string": "400 invalid_signature",
    "signature: last byte flipped": "400 invalid_signature",
    "signature: truncated to 255 bytes": "400 invalid_signature",
    "signature: empty string": "400 invalid_signature",
    'signature: not base64 "!!!!"': "400 bad_base64",
    "signature: number": "400 bad_signature_type",
    "signature: null": "400 bad_signature_type",
    "public key of someone else": "400 invalid_signature",
    "public key: not PEM": "400 bad_public_key",
    "public key: PEM with a bad body": "400 bad_public_key",
    "public key: number": "400 bad_public_key_type",
    # These three carry a true signature that the original did not understand.
    "EC P-256 key with a valid ECDSA signature": "200",
    "Ed25519 key with a valid signature": "200",
    "single object, not a list": "200",
    # These two were recorded from a client that signed one text and sent another.
    "signed compact JSON (JavaScript JSON.stringify style)": "400 invalid_signature",
    "unicode data signed as raw UTF-8 (ensure_ascii=False)": "400 invalid_signature",
    "missing data": "400 missing_key",
    "missing signature": "400 missing_key",
    "JSON string": "400 not_a_list",
    "item is a number": "400 not_an_object",
    "item is null": "400 not_an_object",
    "empty body": "400 not_json",
    "no Content-Type": "415 unsupported_content_type",
    "tampered item then good item": "400 invalid_signature",
    "good item then item with a missing key (the good one IS stored)": "400 missing_key",
}

# The sender: what is posted to /start_sending, what the original did, and what ours answers.
STARTS = [
    ("{}", "200, 1 item every 2 s", "200"),
    ('{"number_of_items_to_send": 2, "interval_time": 0}', "200, no pause", "200"),
    ('{"number_of_items_to_send": -3, "interval_time": -1}', "200, then the sending thread died", "400 bad_value"),
    ('{"number_of_items_to_send": "three", "interval_time": "x"}', "200, then the sending thread died", "400 bad_value"),
    ('{"number_of_items_to_send": 2, "interval_time": "fast"}', "200, then the sending thread died", "400 bad_value"),
    ('{"number_of_items_to_send": 2.5, "interval_time": null}', "200, then the sending thread died", "400 bad_value"),
    ('{"number_of_items_to_send": 0, "interval_time": 2}', "200, empty lists for ever", "400 out_of_range"),
    ('{"number_of_items_to_send": 9000, "interval_time": 2}', "not recorded", "400 out_of_range"),
    ('{"number_of_items": 2, "interval_time": 2}', "not recorded", "400 unknown_key"),
    ("[1]", "500 HTML", "400 not_an_object"),
    ("null", "500 HTML", "400 not_an_object"),
    ("not JSON", "400 HTML", "400 not_json"),
]

# The page for readers ----------------------------------------------------------------------------------------------

INTRODUCTION = """\
    # What the Python original answers, and what this receiver answers

    This page is written by `python3 tests/cases.py > docs/compatibility.md`; `tests/test_original_vectors.py` sends
    every row to a running receiver. The original is the receiver of the liotbchain demo on liotbchain 0.0.8 by
    Sharhan Alhassan; its answers were recorded from a running one, with one transaction a block.

    What stays: the route, its list of `{{data, signature, public_key}}`, the status codes 200 and 400, and `status` and
    `message` in the body. What is new: `items` with an acknowledgement for each reading, a stable `code` for every
    refusal with the items at fault, and no answer that is an HTML page or a 500 for bad input.

    The signature is checked over the bytes of `data` as they stand in the request; where that fails, over the text
    that Python's `json.dumps` gives for the value, because clients of the original sign that ("python form" below).
    What verified is what is stored.

    All {recorded} requests that were recorded from the original's sender are accepted, but for two, on purpose: the
    empty list (nothing was added, so the answer does not say so), and a string of 100 kB (over the default limit of
    64 KiB for a payload).

    | case | the original | here | why it differs |
    |---|---|---|---|
"""

ORIGINAL_ANSWERS = {
    "A": "200",
    "B": "400 not a list",
    "C": "400 structure",
    "D": "400 signature",
    "H400": "400 HTML",
    "H404": "404 HTML",
    "H405": "405 HTML",
    "H415": "415 HTML",
    "H500": "500 HTML",
}


def shown(ours):
    status, *code = ours.split()
    return f"{status} `{code[0]}`" if code and int(status) >= 400 else f"{status}, one transaction" if code else status


def row(case):
    answer, stored = case.original.rsplit(" +", 1)
    answer = ORIGINAL_ANSWERS.get(answer, answer)
    original = f"{answer}, {stored} stored" if case.original[0] == "A" or stored != "0" else answer
    cells = [case.name, original, shown(case.ours), case.why]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


SENDER = """\

    ## The sender

    | posted to `/start_sending` | the original | here |
    |---|---|---|
"""

SENDER_END = """\

    A second call changes the running job, where the original started a second one beside it. `/stop_sending` and
    `/status` are new. When the receiver is away, the original's sending thread ended for good; here the list waits and
    is sent again, with longer and longer pauses between the attempts.
"""


def page(recorded):
    starts = [f"| `{body}` | {original} | {shown(ours)} |\n" for body, original, ours in STARTS]
    parts = [textwrap.dedent(INTRODUCTION).format(recorded=recorded), *map(row, CASES)]
    return "".join([*parts, textwrap.dedent(SENDER), *starts, textwrap.dedent(SENDER_END)])


if __name__ == "__main__":
    print(page(18), end="")
