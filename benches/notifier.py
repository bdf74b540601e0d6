#!/usr/bin/env python3
"""How many changes per second `rollcall notifier` sends, on one processor core:

    cargo build --release && python3 benches/notifier.py

A private Redis holds 200,000 changes (`online`, with the presence entries that Socket.IO events contain). For each kind
of target, a notifier on its own core sends them all, and a subscriber receives what is published. Webhooks go to a
server in this process that responds at once. Prints a table. It needs redis-server, redis-cli and taskset.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLLCALL = os.environ.get("ROLLCALL", str(ROOT / "target/release/rollcall"))
CHANGES = 200_000
FILL = """
    for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
      local user, time = 'user-' .. i, '1790000000000'
      redis.call('XADD', KEYS[1], '*', 'seq', i, 'kind', 'online', 'time', time, 'user', user, 'ip', '10.0.0.7')
      redis.call('HSET', KEYS[2], user .. '|10.0.0.7', '{"lastSeen":' .. time .. ',"user":"' .. user ..
        '","ip":"10.0.0.7","ua":"Mozilla/5.0 (X11; Linux x86_64)","page":"/home"}')
    end
    redis.call('SET', KEYS[3], ARGV[2])"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bed:
    """A server with changes."""

    def __init__(self):
        self.folder, self.port = tempfile.mkdtemp(prefix="rollcall-notifier-"), free_port()
        command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", self.folder]
        self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while self.cli("PING") != "PONG":
            time.sleep(0.05)
        for first in range(1, CHANGES, 5_000):
            self.cli("EVAL", FILL, "3", "rollcall:changes", "presence:users", "rollcall:changes:seq",
                     str(first), str(first + 4_999))

    def cli(self, *words):
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def close(self):
        self.redis.terminate()
        self.redis.wait()
        shutil.rmtree(self.folder)


def serve(port):
    """A webhook that responds at once."""

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run():
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=4 << 20)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()


def processor_time(pid):
    """Processor seconds of a process from /proc: utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(bed, table, count, channels):
    """Seconds for this many changes, and the notifier's processor seconds."""
    file = Path(bed.folder, "targets.toml")
    file.write_text(f'[[notify]]\nname = "t"\n{table}\n')
    # The change before those that are to be told.
    find = "local all = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1]) return all[#all][1]"
    place = bed.cli("EVAL", find, "1", "rollcall:changes", str(count + 1)) if count < CHANGES else "0-0"
    bed.cli("DEL", "rollcall:notifier", "rollcall:notifier:lease:t")
    bed.cli("HSET", "rollcall:notifier", "t", f"bench {CHANGES - count} {place}")
    hears = subprocess.Popen(["redis-cli", "-p", str(bed.port), "PSUBSCRIBE", channels], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{bed.port}"
    command = ["taskset", "-c", "0", ROLLCALL, "notifier", "--redis-url", url, "--http", "off", "--config", str(file)]
    start = time.monotonic()
    notifier = subprocess.Popen(command, stderr=open(f"{bed.folder}/log", "wb"))
    try:
        while not bed.cli("HGET", "rollcall:notifier", "t").startswith(f"bench {CHANGES} "):
            assert notifier.poll() is None and time.monotonic() - start < 120, Path(bed.folder, "log").read_text()
            time.sleep(0.02)
        took = time.monotonic() - start, processor_time(notifier.pid)
        assert "lost" not in Path(bed.folder, "log").read_text(), "all were told"
        return took
    finally:
        notifier.terminate()
        notifier.wait()
        hears.terminate()
        hears.wait()


def main():
    bed, port = Bed(), free_port()
    serve(port)
    secret = Path(bed.folder, "secret")
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    hook = f'kind = "webhook"\nurl = "http://127.0.0.1:{port}/"\nsecret-file = "{secret}"\nallow-private = true'
    try:
        print("| target | changes/s | µs of the notifier's core per change |\n|---|---|---|")
        for name, table, count, channels in [
            ("`socketio-redis`, two rooms per change", 'kind = "socketio-redis"', CHANGES, "socket.io#/#*"),
            ("`socketio-python`, two rooms per change", 'kind = "socketio-python"', CHANGES, "socketio"),
            ("`pubsub`", 'kind = "pubsub"\nchannel = "news"', CHANGES, "news"),
            ("`webhook`, one change per call", hook, 20_000, "none"),
            ("`webhook`, `batch = 100`", f"{hook}\nbatch = 100", CHANGES, "none"),
        ]:
            wall, own = min(measure(bed, table, count, channels) for _ in range(3))
            print(f"| {name} | {count / wall:,.0f} | {own / count * 1e6:.1f} |", flush=True)
    finally:
        bed.close()


if __name__ == "__main__":
    main()
