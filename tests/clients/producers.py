"""Events as producers in Python write them, with the expected results: one line of JSON per case, for
tests/live/clients.rs."""

import json
import os
import time
from base64 import b64encode
from datetime import datetime, timedelta, timezone

import msgpack
from cloudevents.core.bindings import http as core_http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion
from cloudevents.v1.http import CloudEvent as CloudEventV1
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NOW = int(time.time() * 1000)
DATE = datetime.fromtimestamp(NOW // 1000, timezone.utc) + timedelta(milliseconds=NOW % 1000)
SEEN = {"seen": NOW, "page": "/home"}


def say(library, name, fields, expected):
    """One case: the entry's fields and what is expected. The user, or session, is named after it."""

    def encoded(value):
        value = value if isinstance(value, bytes) else str(value).encode()
        return b64encode(value).decode()

    pairs = [[field, encoded(value)] for field, value in fields.items()]
    if "data" in expected:
        expected = {**expected, "data": encoded(expected["data"])}
    print(json.dumps({"library": library, "name": name, "fields": pairs, "expected": expected}))


def beat(user, **more):
    return {"type": "heartbeat", "user": user, "page": "/home", **more}


# ---- MessagePack


def packed(event, **options):
    return {"datacontenttype": "application/msgpack", "data": msgpack.packb(event, **options)}


for name, moment in [
    ("an integer", NOW),
    ("a float", float(NOW)),
    ("a datetime", DATE),
    ("a timestamp", msgpack.Timestamp.from_unix_nano(NOW * 1_000_000)),
    ("a datetime as text", DATE.isoformat()),
]:
    say("msgpack", name, packed(beat(name, time=moment), datetime=True), SEEN)
say("msgpack", "members of None", packed(beat("members of None", time=None, ip=None, sid=None)), {**SEEN, "seen": None})
say("msgpack", "bytes as user", packed(beat(b"bytes as user", time=NOW)), SEEN)
say("msgpack", "many", packed([beat("many", time=float(NOW)), beat("more", time=DATE)], datetime=True), SEEN)
say("msgpack", "single floats", packed(beat("single floats", time=0.0), use_single_float=True), {"reason": "invalid_time"})
say("msgpack", "a fraction", packed(beat("a fraction", time=NOW + 0.25)), {"reason": "invalid_time"})
say("msgpack", "datetime.min", packed(beat("datetime.min", time=datetime.min.replace(tzinfo=timezone.utc)), datetime=True),
    {"reason": "invalid_time"})
session = {"type": "session", "sid": "session data", "data": {"since": DATE, "price": 2.5, "n": 3.0, "none": None}}
kept = {"since": DATE.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "price": 2.5, "n": 3, "none": None}
say("msgpack", "session data", packed(session, datetime=True), {"data": json.dumps(kept, separators=(",", ":"))})

# ---- CloudEvents


def members(user):
    return {"user": user, "page": "/home"}


def flat(message):
    """What binary mode is over HTTP: attributes beside the body."""
    headers, body = message
    attributes = {name.removeprefix("ce-"): value for name, value in headers.items()}
    if "content-type" in attributes:
        attributes["datacontenttype"] = attributes.pop("content-type")
    attributes["time"] = attributes["time"].replace("%3A", ":").replace("%2B", "+")
    return {**attributes, "data": body}


def binary(message):
    return flat((message.headers, message.body))


DATA = [
    ("an object", members),
    ("a text", lambda user: json.dumps(members(user))),
    ("bytes", lambda user: json.dumps(members(user)).encode()),
]
for name, data in DATA:
    attributes = {"type": "heartbeat", "source": "/edge", "id": "e-1", "specversion": "1.0", "time": DATE}
    say("CloudEvents", name, {"data": JSONFormat().write(CloudEvent(attributes, data(name)))}, SEEN)
    user = f"{name} in binary mode"
    say("CloudEvents", user, binary(core_http.to_binary_event(CloudEvent(attributes, data(user)))), SEEN)
    attributes = {"type": "heartbeat", "source": "/edge", "time": DATE.isoformat()}
    user = f"{name} of version 1"
    say("CloudEvents", user, {"data": conversion.to_json(CloudEventV1(attributes, data(user)))}, SEEN)
    user = f"{name} of version 1 in binary mode"
    say("CloudEvents", user, flat(conversion.to_binary(CloudEventV1(attributes, data(user)))), SEEN)

# ---- encrypted sessions

token = Fernet(Fernet.generate_key()).encrypt(b'{"cart": []}')
key, nonce = AESGCM.generate_key(bit_length=128), os.urandom(12)
sealed = b"\xff" + nonce + AESGCM(key).encrypt(nonce, b'{"cart": []}', None)
say("cryptography", "Fernet", {"type": "session", "sid": "Fernet", "datacontenttype": "text/plain", "data": token}, {"data": token})
say("cryptography", "AES-GCM", {"type": "session", "sid": "AES-GCM", "datacontenttype": "application/octet-stream", "data": sealed},
    {"data": sealed})
say("cryptography", "undeclared", {"type": "session", "sid": "undeclared", "data": token}, {"reason": "invalid_json"})
