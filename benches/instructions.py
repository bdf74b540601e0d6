#!/usr/bin/env python3
"""The server's instructions per event, counted with callgrind. Unlike times, they are repeatable.

benches/instructions.py [--binary target/release/rollcall] [--events 20000] [--batch 500] [--packed 1] [--aof]

Runs redis-server under valgrind once for each row: the two floors (reading and acknowledging through a group;
reading with XREAD and moving the group once per batch), and one worker of the binary. The state of all users and the
entries exist before counting starts. Needs valgrind, and redis-server in PATH (`ROLLCALL_TEST_SERVER` names another).
"""
import argparse, json, os, random, re, shutil, signal, socket, subprocess, tempfile, time

STREAM, GROUP = "rollcall:events", "rollcall"
SERVER = os.environ.get("ROLLCALL_TEST_SERVER", "redis-server")


class Client:
    """A client for the part of RESP2 that is needed here."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def send(self, *commands):
        for words in commands:
            parts = [str(word).encode() if not isinstance(word, bytes) else word for word in words]
            head = b"*%d\r\n" % len(parts)
            self.socket.sendall(head + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return [self.read() for _ in commands]

    def one(self, *words):
        return self.send(words)[0]

    def read(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


RANDOM = random.Random(7)


def event(kind, user):
    ip = f"10.{user >> 16}.{user >> 8 & 255}.{user & 255}"
    more = {
        "heartbeat": ["ip", ip, "page", f"/page/{RANDOM.randrange(100)}"],
        "view": ["token", f"token-{user}", "item", f"item-{RANDOM.randrange(2000)}"],
        "login": ["token", f"token-{user}", "ip", ip],
        "session": ["sid", f"sid-{user}", "ip", ip, "data", '{"cart":[1,2,3]}'],
    }
    return ["type", kind, "user", f"user-{user}", *more[kind]]


MIX = {"heartbeat": 80, "view": 10, "login": 5, "session": 5}


def standard_mix(count, users):
    kinds = RANDOM.choices(list(MIX), MIX.values(), k=count)
    return [event(kind, RANDOM.randrange(users)) for kind in kinds]


def whole_state(users):
    return [event(kind, user) for user in range(users) for kind in MIX]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    # Nothing is counted before that is asked for: it makes the server ten times slower.
    WRAPPER = ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out", "--instr-atstart=no"]
    # Seconds between looks at how far a worker is: each costs the server as much as some events.
    PAUSE = 0.2

    def __init__(self, more):
        self.folder, self.port = tempfile.mkdtemp(), free_port()
        # Slowed down this much, a call may last longer than a server waits before it answers BUSY.
        own = ["--port", str(self.port), "--save", "", "--dir", self.folder, "--lua-time-limit", "0"]
        settings = [*own, *more]
        self.process = subprocess.Popen([*self.WRAPPER, SERVER, *settings], cwd=self.folder,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                self.client = Client(self.port)
                self.client.one("PING")
                return
            except (OSError, RuntimeError):
                time.sleep(0.1)
        raise SystemExit("the server does not respond")

    def control(self, *flags):
        subprocess.run(["callgrind_control", *flags, str(self.process.pid)], check=True, capture_output=True)

    def instructions(self, work):
        self.count()
        work()
        return self.counted()

    def count(self):
        self.control("-i", "on")
        self.control("-z")

    def counted(self):
        self.control("-d")
        text = "".join(open(os.path.join(self.folder, name)).read() for name in os.listdir(self.folder)
                       if re.fullmatch(r"callgrind\.out\.1", name))
        return int(re.search(r"^totals: (\d+)", text, re.M).group(1))

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def through_group(client, batch):
    while rows := client.one("XREADGROUP", "GROUP", GROUP, "floor", "COUNT", batch, "STREAMS", STREAM, ">"):
        client.one("XACK", STREAM, GROUP, *(row[0] for row in rows[0][1]))


def by_cursor(client, batch):
    cursor = b"0-0"
    while rows := client.one("XREAD", "COUNT", batch, "STREAMS", STREAM, cursor):
        cursor = rows[0][1][-1][0]
        client.one("XGROUP", "SETID", STREAM, GROUP, cursor)


def worker(binary, server, batch):
    """Runs until the group's position is the last entry."""
    last = server.client.one("XREVRANGE", STREAM, "+", "-", "COUNT", 1)[0][0]
    process = subprocess.Popen([binary, "worker", "--redis-url", f"redis://127.0.0.1:{server.port}", "--batch", str(batch),
                                "--http", "off", "--takeover", "60s"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(1500):
            time.sleep(server.PAUSE)
            groups = server.client.one("XINFO", "GROUPS", STREAM)
            if groups:
                about = dict(zip(groups[0][::2], groups[0][1::2]))
                if about[b"last-delivered-id"] == last and about[b"pending"] == 0:
                    return
        raise SystemExit("the worker does not reach the end of the stream")
    finally:
        process.terminate()
        process.wait()


def packed(events, together):
    """Entries of this many events each, as JSON."""
    chunks = [events[first:first + together] for first in range(0, len(events), together)]
    return [["data", json.dumps([dict(zip(event[::2], event[1::2])) for event in chunk])] for chunk in chunks]


def add(client, events, start, per_ms):
    """Adds entries with explicit ids, so that a user's next event is seconds later, however slowly they are added."""
    commands = [["XADD", STREAM, f"{start + i // per_ms}-{i % per_ms}", *event] for i, event in enumerate(events)]
    for first in range(0, len(commands), 500):
        client.send(*commands[first:first + 500])


def measure(name, options):
    server = Server(["--appendonly", "yes" if options.aof else "no"])
    try:
        events, before = standard_mix(options.events, options.users), whole_state(options.users)
        start = int(time.time() * 1000) - len(events)
        if name == "rollcall":
            add(server.client, before, start - len(before) // 10 - 1, per_ms=10)
            worker(options.binary, server, 500)
            entries = packed(events, options.packed) if options.packed > 1 else events
            add(server.client, entries, start, per_ms=1)
            return server.instructions(lambda: worker(options.binary, server, options.batch))
        add(server.client, events, start, per_ms=1)
        server.client.one("XGROUP", "CREATE", STREAM, GROUP, "0")
        work = through_group if name == "group" else by_cursor
        return server.instructions(lambda: work(server.client, options.batch))
    finally:
        server.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/rollcall")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--aof", action="store_true")
    parser.add_argument("--packed", type=int, default=1, help="events per entry; only for Rollcall")
    parser.add_argument("--rows", default="group,cursor,rollcall")
    options = parser.parse_args()
    print("| what | instructions per event |\n|---|---:|")
    for name in options.rows.split(","):
        print(f"| {name} | {measure(name, options) / options.events / 1000:.1f}k |", flush=True)


if __name__ == "__main__":
    main()
