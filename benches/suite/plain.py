"""The plain writers in Python: what programs in the original recipes' world do, from the same stream.

plain.py PORT BATCH: reads up to BATCH entries at a time, writes each batch in one pipeline, acknowledges
it, and ends when nothing is left. Prints what it took in seconds, without the interpreter's own start.
Flat entries only. Promises nothing.
"""

import json
import sys
import time

import redis

STREAM, GROUP = "rollcall:events", "rollcall"


def write(pipe, entry_id, event):
    ms = int(entry_id.split("-")[0])
    kind, user = event["type"], event["user"]
    if kind != "session":
        minute = "online-users/%d" % (ms // 60000)
        pipe.sadd(minute, user)
        pipe.expire(minute, 370)
        pipe.set("user-activity/" + user, ms // 1000, ex=310)
    if kind in ("heartbeat", "login"):
        page = event.get("page", "/")
        value = {"lastSeen": ms, "user": user, "ip": event["ip"], "ua": event["ua"], "page": page}
        pipe.hset("presence:users", user + "|" + event["ip"], json.dumps(value))
    if kind in ("login", "view"):
        token = event["token"]
        pipe.hset("login:", token, user)
        pipe.zadd("recent:", {token: ms / 1000})
        pipe.zremrangebyrank("recent:", 0, -1000001)
    if kind == "view":
        item = event["item"]
        pipe.zadd("viewed:" + token, {item: ms / 1000})
        pipe.zremrangebyrank("viewed:" + token, 0, -26)
        pipe.zincrby("viewed:", 1, item)
    if kind == "session":
        sid = event["sid"]
        value = {"last_activity": ms, "sid": sid, "session_id": sid, "user": user}
        value.update(ip=event["ip"], ua=event["ua"])
        pipe.hset("sessions:active", sid, json.dumps(value))
        pipe.set("session:" + sid, event["data"], ex=1800)


def main(port, batch):
    client = redis.Redis(port=port, decode_responses=True)
    while True:
        streams = client.xreadgroup(GROUP, "bench", {STREAM: ">"}, count=batch)
        if not streams:
            return
        # A dictionary since redis-py 8, lists of a name and its entries before.
        entries = list(streams.values())[0] if isinstance(streams, dict) else streams[0][1]
        if isinstance(streams, dict):
            entries = entries[0]
        pipe = client.pipeline(transaction=False)
        for entry_id, event in entries:
            write(pipe, entry_id, event)
        pipe.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))
        pipe.execute()


if __name__ == "__main__":
    wall, client = time.monotonic(), time.process_time()
    main(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({"wall_s": time.monotonic() - wall, "client_s": time.process_time() - client}))
