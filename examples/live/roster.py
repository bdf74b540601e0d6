#!/usr/bin/env python3
"""Who is present, kept up to date from the live feed of `rollcall serve`. Uses the standard library only.

    examples/live/roster.py http://127.0.0.1:8484
"""

import json
import sys
import time
import urllib.error
import urllib.request


def events(url, token=None, last_id=""):
    """Yields (name, data, id) endlessly, starting after an id. Reconnects and resumes when the connection breaks."""
    pause = 1.0
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            # The server sends something at least every 15 seconds.
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=45) as stream:
                name, data, new_id = "", [], None
                for line in stream:
                    line = line.decode().rstrip("\n")
                    field, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if line == "":
                        # An id counts even without data: it is the position to resume from.
                        last_id = last_id if new_id is None else new_id
                        if data:
                            yield name, "\n".join(data), last_id
                        name, data, new_id = "", [], None
                    elif field == "event":
                        name = value
                    elif field == "data":
                        data.append(value)
                    elif field == "id":
                        new_id = value
                    elif field == "retry":
                        pause = int(value) / 1000
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
        except OSError:
            pass
        time.sleep(pause)


def main(url):
    present = {}
    for name, data, _ in events(f"{url}/api/v1/changes?kind=online&kind=offline&snapshot=1"):
        if name == "gap":
            continue  # a snapshot follows
        message = json.loads(data)
        if name == "snapshot":
            present = {(entry["user"], entry["ip"]): entry for entry in message["presence"]}
        elif message["kind"] == "online":
            present[message["user"], message["ip"]] = message
        else:
            present.pop((message["user"], message["ip"]), None)
        print(json.dumps(sorted(present)), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8484")
    except KeyboardInterrupt:
        pass
