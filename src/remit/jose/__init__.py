"""JOSE: compact JWS read strictly, one type of public key, and the tokens and proofs made of them. Pure.

joserfc signs and verifies behind one strict reader: here a text has one spelling, a header the listed members only, and
the key decides on the algorithm, never the token.
"""

from remit.core.orders import base64url as encode
from remit.core.orders import digest
from remit.jose.compact import decode, document, read
from remit.jose.keys import CHALLENGE, key_set, public_key

__all__ = ["CHALLENGE", "decode", "digest", "document", "encode", "key_set", "public_key", "read"]
