#!/usr/bin/env python3
"""Keeps a copy of the sessions in SQLite, and reads it when Redis lacks a session.

    archive.py keep http://127.0.0.1:8484 sessions.db       follows `rollcall serve` endlessly
    archive.py read redis://127.0.0.1:6379 sessions.db <sid>  prints a session's data; exits with 1 if there is none
"""

import base64
import json
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

sys.path.append(str(Path(__file__).resolve().parent.parent / "live"))
from roster import events  # noqa: E402

KINDS = "kind=session_started&kind=session_ended&kind=session_expired"
# Updates of data are not changes, so sessions are polled, well within their lifetime.
SWEEP_S = 15
TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
  sid TEXT PRIMARY KEY, user TEXT, data BLOB, last_activity_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
  ended INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS position (name TEXT PRIMARY KEY, id TEXT NOT NULL);
"""


def database(path):
    db = sqlite3.connect(path, timeout=30)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(TABLES)
    return db


# ---- reading, in the application


def load(redis, db, sid):
    """A session's data: from Redis, or from the archive if Redis has none or does not respond."""
    from redis.exceptions import RedisError

    try:
        data = redis.get(f"session:{sid}")
    except RedisError:
        data = None
    if data is not None:
        return data
    alive = "SELECT data FROM sessions WHERE sid = ? AND NOT ended AND expires_ms > ?"
    row = db.execute(alive, (sid, time.time() * 1000)).fetchone()
    return row and row[0]


# ---- keeping, in a separate process


def ask(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def keep(url, db, sid):
    """Stores a session as it is now, unless it has ended or the stored one is newer."""
    try:
        session = ask(f"{url}/api/v1/sessions/{quote(sid, safe='')}")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return
        raise
    if not session["active"]:
        return
    data = session["data"].encode() if session["data"] is not None else session["data_base64"]
    data = base64.b64decode(data) if isinstance(data, str) else data
    db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (sid) DO UPDATE SET user = excluded.user,"
        " data = excluded.data, last_activity_ms = excluded.last_activity_ms, expires_ms = excluded.expires_ms"
        " WHERE NOT ended AND excluded.last_activity_ms >= last_activity_ms",
        (sid, session["user"], data, session["last_activity_ms"], session["expires_ms"]),
    )


def end(db, sid):
    db.execute("INSERT INTO sessions VALUES (?, NULL, NULL, 0, 0, 1) ON CONFLICT (sid) DO UPDATE SET ended = 1, data = NULL", (sid,))


def apply(url, db, name, message):
    if name == "snapshot":
        for session in message["sessions"]:
            keep(url, db, session["sid"])
    elif message["kind"] == "session_started":
        keep(url, db, message["sid"])
    elif message["kind"] == "session_ended":
        end(db, message["sid"])
    # Expired sessions need no action: the reader compares `expires_ms`.


def follow(url, path):
    """Applies each change and stores the position after it in one transaction, so nothing is missed after a crash."""
    db = database(path)
    row = db.execute("SELECT id FROM position WHERE name = 'changes'").fetchone()
    for name, data, position in events(f"{url}/api/v1/changes?{KINDS}&snapshot=1", last_id=row[0] if row else ""):
        if name == "gap":
            continue  # Changes were lost, perhaps with Redis. The archive keeps what it has, and a snapshot follows.
        while True:
            try:
                with db:
                    apply(url, db, name, json.loads(data))
                    db.execute("INSERT OR REPLACE INTO position VALUES ('changes', ?)", (position,))
                break
            except OSError as error:
                print(f"will retry the change: {error}", file=sys.stderr)
                time.sleep(1)


def sweep(url, path):
    """Stores the sessions that were used since they were stored."""
    db = database(path)
    while True:
        try:
            cursor = ""
            while cursor is not None:
                page = ask(f"{url}/api/v1/sessions?limit=1000&cursor={quote(cursor)}")
                for session in page["items"]:
                    row = db.execute("SELECT last_activity_ms FROM sessions WHERE sid = ?", (session["sid"],)).fetchone()
                    if row is None or row[0] < session["last_activity_ms"]:
                        with db:
                            keep(url, db, session["sid"])
                cursor = page["cursor"]
        except OSError as error:
            print(f"will retry in the next sweep: {error}", file=sys.stderr)
        time.sleep(SWEEP_S)


def main(command, url, path, *rest):
    if command == "keep":
        database(path)
        threading.Thread(target=sweep, args=(url, path), daemon=True).start()
        follow(url, path)
    else:
        from redis import Redis

        data = load(Redis.from_url(url), database(path), rest[0])
        if data is None:
            sys.exit(1)
        sys.stdout.buffer.write(data)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
