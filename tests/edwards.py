"""Ed25519's curve in plain Python, to make the keys and signatures that no library makes.

Slow and not constant-time: for tests that must be refused, never for a secret worth keeping.
"""

import hashlib
import secrets

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
IDENTITY = (0, 1)


def add(a, b):
    (ax, ay), (bx, by) = a, b
    product = D * ax * bx * ay * by % P
    x = (ax * by + bx * ay) * pow(1 + product, -1, P) % P
    y = (ay * by + ax * bx) * pow(1 - product, -1, P) % P
    return x, y


def multiply(point, scalar):
    total = IDENTITY
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def point_with(y):
    """Returns a point with this y, or None if the curve has none."""
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x_squared, (P + 3) // 8, P)
    if x * x % P != x_squared:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == x_squared else None


def encode(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def base_point():
    x, y = point_with(4 * pow(5, -1, P) % P)
    return (x, y) if x % 2 == 0 else (P - x, y)


def point_of_order_8():
    """A random point times L loses its part of prime order; one in two of what is left has order 8."""
    while True:
        random_point = point_with(secrets.randbelow(P))
        if random_point:
            small = multiply(random_point, L)
            if multiply(small, 4) != IDENTITY:
                return small


def challenge(r, a, message):
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def sign_with_torsion(scalar, public, message, torsion):
    """Signs with a point of small order added to R.

    Verifiers that multiply the equation by the cofactor accept the result; those that compare R refuse it.
    """
    nonce = secrets.randbelow(L)
    r = encode(add(multiply(base_point(), nonce), torsion))
    s = (nonce + challenge(r, public, message) * scalar) % L
    return r + s.to_bytes(32, "little")


def sign_for_identity_key():
    """A signature that fits every message under the key that is the neutral element."""
    nonce = secrets.randbelow(L)
    return encode(multiply(base_point(), nonce)) + nonce.to_bytes(32, "little")
