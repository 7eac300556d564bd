"""Keys that sign readings: the kinds that a chain allows, and the kinds that it must refuse."""

import base64
import functools
import hashlib
import json
import secrets
import textwrap
from dataclasses import dataclass
from typing import Callable

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

import edwards


@dataclass(frozen=True)
class Signer:
    """A public key, as the DER of its SubjectPublicKeyInfo, and the function that signs for it."""

    der: bytes
    sign: Callable[[bytes], bytes]
    private: object = None

    @property
    def key_id(self):
        return hashlib.sha256(self.der).digest()

    @property
    def pem(self):
        return pem_of("PUBLIC KEY", self.der)

    def item(self, data, signed=None, **replaced):
        """Returns one item of a request as text. `data` is JSON text that is sent as it stands.

        `signed` is the text that is signed, `data` itself if not given. `replaced` texts stand in the place of the
        true signature or public key, or beside them.
        """
        signature = self.sign((data if signed is None else signed).encode())
        fields = {"data": data, "signature": json.dumps(base64.b64encode(signature).decode())}
        fields["public_key"] = json.dumps(self.pem)
        fields.update(replaced)
        return "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"


def pem_of(label, der):
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def spki(public_key):
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_ed25519():
    key = ed25519.Ed25519PrivateKey.generate()
    return Signer(spki(key.public_key()), key.sign, key)


def new_ec(curve=ec.SECP256R1()):
    key = ec.generate_private_key(curve)
    return Signer(spki(key.public_key()), lambda message: key.sign(message, ec.ECDSA(hashes.SHA256())), key)


def pss(salt):
    return padding.PSS(padding.MGF1(hashes.SHA256()), salt)


def rsa_signer(key, scheme=pss(padding.PSS.MAX_LENGTH), digest=hashes.SHA256()):
    return Signer(spki(key.public_key()), lambda message: key.sign(message, scheme, digest), key)


@functools.cache
def rsa_key(bits=2048, exponent=65537):
    """One key of each kind serves all tests: making them is slow."""
    return rsa.generate_private_key(exponent, bits)


def new_dsa():
    key = dsa.generate_private_key(2048)
    return Signer(spki(key.public_key()), lambda message: key.sign(message, hashes.SHA256()), key)


# RSA by hand, for the sizes and exponents that the library makes slowly or not at all -----------------------------


@functools.cache
def raw_rsa(bits, exponent=65537):
    """An RSA key of any size and exponent. Its modulus has many small primes, which a verifier cannot see."""
    while True:
        primes = []
        modulus = 1
        while modulus.bit_length() < bits - 512 - 32:
            numbers = rsa.generate_private_key(65537, 1024).private_numbers()
            primes.append(numbers.p)
            modulus *= numbers.p
        primes.append(random_prime((1 << bits - 1) // modulus + 1, (1 << bits) // modulus))
        modulus *= primes[-1]
        if len(set(primes)) == len(primes) and all((prime - 1) % exponent for prime in primes):
            break
    size = (bits + 7) // 8
    algorithm = der_sequence(bytes.fromhex("06092a864886f70d010101"), b"\x05\x00")
    der = der_sequence(algorithm, der_bits(der_sequence(der_integer(modulus), der_integer(exponent))))

    def sign(message):
        encoded = int.from_bytes(encode_pss(message, bits - 1, size - 34), "big")
        signature = 0
        for prime in primes:  # by the Chinese remainder theorem
            root = pow(encoded, pow(exponent, -1, prime - 1), prime)
            others = modulus // prime
            signature += root * others * pow(others, -1, prime)
        return (signature % modulus).to_bytes(size, "big")

    return Signer(der, sign)


def random_prime(low, high):
    while True:
        candidate = low + secrets.randbelow(high - low) | 1
        if all(pow(base, candidate - 1, candidate) == 1 for base in (2, 3, 5)):
            return candidate


def encode_pss(message, bits, salt_size):
    """EMSA-PSS with SHA-256 (RFC 8017 section 9.1.1)."""
    size = (bits + 7) // 8
    salt = secrets.token_bytes(salt_size)
    digest = hashlib.sha256(bytes(8) + hashlib.sha256(message).digest() + salt).digest()
    block = bytes(size - salt_size - 34) + b"\x01" + salt
    mask = b"".join(hashlib.sha256(digest + i.to_bytes(4, "big")).digest() for i in range(len(block) // 32 + 1))
    masked = bytearray(a ^ b for a, b in zip(block, mask))
    masked[0] &= 0xFF >> (8 * size - bits)
    return bytes(masked) + digest + b"\xbc"


def der_value(tag, content):
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def der_integer(value):
    return der_value(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_sequence(*parts):
    return der_value(0x30, b"".join(parts))


def der_bits(content):
    return der_value(3, b"\x00" + content)


# Keys in spellings that a chain refuses ---------------------------------------------------------------------------

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")


def respelled(signer, der):
    """The same signer under another spelling of its key."""
    return Signer(der, signer.sign, signer.private)


def with_trailing_byte(signer):
    return respelled(signer, signer.der + b"\x00")


def with_long_length(signer):
    """BER allows lengths longer than needed, DER does not."""
    assert signer.der[:2] == bytes([0x30, 0x82])
    return respelled(signer, bytes([0x30, 0x83, 0x00]) + signer.der[2:])


def rsa_without_parameters(signer):
    oid = bytes.fromhex("06092a864886f70d010101")
    start = signer.der.index(oid) + len(oid) + 2
    return respelled(signer, der_sequence(der_sequence(oid), signer.der[start:]))


def p256_compressed(signer):
    point = signer.private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    algorithm = der_sequence(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107"))
    return respelled(signer, der_sequence(algorithm, der_bits(point)))


def ed25519_neutral(y):
    """The neutral element as a key, which anybody can sign for. y is 1 or, not canonically, p + 1."""
    return Signer(ED25519_PREFIX + y.to_bytes(32, "little"), lambda message: edwards.sign_for_identity_key())


def ed25519_of_order_8():
    """A key of small order. Its challenge is a multiple of the order once in eight tries, then anyone's signature fits."""
    public = edwards.encode(edwards.point_of_order_8())

    def sign(message):
        while True:
            nonce = secrets.randbelow(edwards.L)
            r = edwards.encode(edwards.multiply(edwards.base_point(), nonce))
            if edwards.challenge(r, public, message) % 8 == 0:
                return r + nonce.to_bytes(32, "little")

    return Signer(ED25519_PREFIX + public, sign)


def ed25519_with_torsion(signer):
    """The same key, with signatures that only a verifier who multiplies by the cofactor accepts."""
    seed = signer.private.private_bytes_raw()
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | 1 << 254
    public = signer.private.public_key().public_bytes_raw()
    torsion = edwards.point_of_order_8()
    return Signer(signer.der, lambda message: edwards.sign_with_torsion(scalar, public, message, torsion))


def ed25519_with_large_s(signer):
    """The same signatures with the group order added to S."""

    def sign(message):
        signature = signer.sign(message)
        s = int.from_bytes(signature[32:], "little") + edwards.L
        return signature[:32] + s.to_bytes(32, "little")

    return Signer(signer.der, sign)
