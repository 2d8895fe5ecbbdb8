#!/usr/bin/env python3
"""Signed documents and an audit, made with nothing of Tidegate: by its documents, hashlib and `cryptography`.

    pip install cryptography==48.0.0
    python3 trust/tests/vectors/make.py > trust/tests/vectors/vectors.json
"""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


class Person:
    def __init__(self, name):
        self.name = name
        self.secret = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.public = base64.b64encode(self.secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    def pem(self):
        return self.secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def seal(payload_type, payload, people):
    body = payload.encode()
    kind = payload_type.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)
    signatures = [
        {"keyid": person.name, "sig": base64.b64encode(person.secret.sign(signed)).decode()} for person in people
    ]
    return json.dumps(
        {"payloadType": payload_type, "payload": base64.b64encode(body).decode(), "signatures": signatures}
    )


people = {name: Person(name) for name in ["root-a", "root-b", "dora", "otto", "press-12"]}

key_set = json.dumps(
    {
        "version": 7,
        "issued": "2026-11-01T00:00:00Z",
        "roots": {
            "keys": [{"id": name, "ed25519": people[name].public} for name in ["root-a", "root-b"]],
            "threshold": 2,
        },
        "keys": [
            {
                "id": "dora",
                "ed25519": people["dora"].public,
                "role": "deployer",
                "scope": {"boxes": ["press-*"]},
                "not_after": "2027-11-01T00:00:00Z",
            },
            {
                "id": "otto",
                "ed25519": people["otto"].public,
                "role": "operator",
                "scope": {"boxes": ["press-*"], "outputs": ["valve"], "max_lease": "1h"},
            },
        ],
    },
    indent=1,
)

command = json.dumps(
    {
        "box": "press-12",
        "op": "rules.deploy",
        "id": "01JD3Z7Q4W8XKC9V2M5N6P0R1T",
        "ctr": 1795984200123456,
        "issued": "2026-11-29T20:30:00Z",
        "not_after": "2026-12-06T20:30:00Z",
        "args": {"name": "cooling", "language": "sql", "text": "--! description = \"K\u00fchlung\"", "if_hash": None},
    },
    ensure_ascii=False,
)

records = []
digest = bytes(32)
for number, what in enumerate(['{"event":"start","version":"0.1.0"}', '{"event":"stop"}'], start=1):
    stored = (
        '{"seq":%d,"time":%d,"wall":"2026-11-29T20:30:00Z","synchronised":true,"boot":"3f0c2a2e",'
        '"who":"the_box","what":%s}' % (number, number * 1_000_000_000, what)
    )
    digest = hashlib.sha256(b"tidegate.audit.v1" + digest + stored.encode()).digest()
    records.append(f"{digest.hex()} {stored}")

checkpoint = json.dumps({"box": "press-12", "seq": 2, "hash": f"sha256:{digest.hex()}", "boot": "3f0c2a2e"})

print(
    json.dumps(
        {
            "keys": {name: {"pem": person.pem(), "public": person.public} for name, person in people.items()},
            "key_set": seal("application/vnd.tidegate.keys.v1+json", key_set, [people["root-a"], people["root-b"]]),
            "key_set_sha256": hashlib.sha256(key_set.encode()).hexdigest(),
            "command": seal("application/vnd.tidegate.command.v1+json", command, [people["dora"]]),
            "command_sha256": hashlib.sha256(command.encode()).hexdigest(),
            "audit": records,
            "checkpoint": seal("application/vnd.tidegate.checkpoint.v1+json", checkpoint, [people["press-12"]]),
        },
        indent=1,
    )
)
