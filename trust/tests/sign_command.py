#!/usr/bin/python3
"""A command that removes the rule `cooling` of press-12, signed by dora: her key in PEM comes in, the envelope goes out.

    sign_command.py ID < dora.pem | mosquitto_pub -q 1 -r -t tidegate/v1/press-12/cmd/rules.remove/ID -s

Made by docs/management.md, with PyNaCl (Debian: python3-nacl).
"""

import base64
import json
import sys
import time

from nacl.signing import SigningKey

TYPE = "application/vnd.tidegate.command.v1+json"


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


now = time.time()
command = {
    "box": "press-12",
    "op": "rules.remove",
    "id": sys.argv[1],
    "ctr": int(now * 1_000_000),
    "issued": utc(now),
    "not_after": utc(now + 7 * 24 * 3600),
    "args": {"name": "cooling"},
}
payload = json.dumps(command).encode()
pem = [line for line in sys.stdin.read().splitlines() if not line.startswith("-----")]
key = SigningKey(base64.b64decode("".join(pem))[-32:])
signed = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(payload), payload)
signature = {"keyid": "dora", "sig": base64.b64encode(key.sign(signed).signature).decode()}
print(json.dumps({"payloadType": TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]}))
