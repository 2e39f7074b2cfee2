# SPDX-License-Identifier: Apache-2.0
"""Stands for the desk's identity provider: signs one token a user.

The agent and Envoy get the public key alone, as a JSON Web Key Set.
"""

import base64
import json
import os
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER = "https://login.desk.example"
AUDIENCE = "desk"
KEY_ID = "desk-1"
LIFETIME_SECONDS = 8 * 3600

# Who works here. Mallory can log in, and that is all.
USERS = {
    "ada": {"roles": ["support_agent"], "tenant": "acme"},
    "lea": {"roles": ["support_lead"], "tenant": "acme"},
    "gus": {"roles": ["support_agent"], "tenant": "globex"},
    "mallory": {"roles": ["visitor"], "tenant": "acme"},
}


def sign(key, user, **other):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + LIFETIME_SECONDS, **USERS[user], **other}
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": KEY_ID})


def write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)


def make(directory):
    """Writes jwks.json and a token for each user; forged.jwt bears another's signature."""
    directory.mkdir(mode=0o700)
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    jwk = {"kty": "OKP", "crv": "Ed25519", "kid": KEY_ID, "alg": "EdDSA", "use": "sig", "x": x}
    write(directory / "jwks.json", json.dumps({"keys": [jwk]}))
    for user in USERS:
        write(directory / f"{user}.jwt", sign(key, user))
    write(directory / "forged.jwt", sign(Ed25519PrivateKey.generate(), "lea"))
