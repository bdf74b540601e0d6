#!/usr/bin/env python3
"""Makes every alert fire once by causing its fault, with real servers, workers and a real Prometheus:

    cargo build && grafana/rules/tests/fire.py [ALERT …]

Prints a table with the time from the fault to each alert. Each `for:` is cut to two seconds, and Prometheus scrapes and
evaluates every second. All other times are those of the rules, so a full run takes some minutes. It needs redis-server,
redis-cli and prometheus in PATH, and leaves nothing behind. It exits with 1 if an alert did not fire.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROLLCALL = os.environ.get("ROLLCALL", str(ROOT / "target/debug/rollcall"))
AT_ONCE = 4
GIVE_UP = 300
STREAM, GROUP = "rollcall:events", "rollcall"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bed:
    """A server, a Prometheus, and processes of Rollcall that can be started, stopped and killed."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="rollcall-fire-")
        self.running = []
        self.redis_port, self.port = free_port(), free_port()
        self.ports = {"worker": free_port(), "janitor": free_port(), "serve": free_port(), "notifier": free_port()}
        self.listen = free_port()
        self.redis = self.spawn("redis-server", "--port", str(self.redis_port), "--save", "", "--dir", self.folder)
        self.wait("Redis answers", lambda: self.cli("PING") == "PONG")
        rules = (ROOT / "grafana/rules/rollcall.yml").read_text()
        self.write("rules.yml", re.sub(r"for: \w+", "for: 2s", rules))
        targets = [f"127.0.0.1:{port}" for port in self.ports.values()]
        self.write("prometheus.yml", json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{self.folder}/rules.yml"],
            "scrape_configs": [{"job_name": "rollcall", "static_configs": [{"targets": targets}]}],
        }))
        self.spawn("prometheus", "--config.file", f"{self.folder}/prometheus.yml", "--storage.tsdb.path",
                   f"{self.folder}/data", "--web.listen-address", f"127.0.0.1:{self.port}")

    def write(self, name, text):
        Path(self.folder, name).write_text(text)

    def spawn(self, *command, **env):
        log = open(f"{self.folder}/{len(self.running)}.log", "wb")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env})
        self.running.append(process)
        return process

    def role(self, role, *flags, **env):
        """Starts a process of this role; Prometheus scrapes it at the role's address."""
        url, http = f"redis://127.0.0.1:{self.redis_port}", f"127.0.0.1:{self.ports[role]}"
        process = self.spawn(ROLLCALL, role, "--redis-url", url, "--http", http, *flags, **env)
        if not env:
            self.wait(f"the {role} is scraped", lambda: self.up(role))
        if role == "janitor":
            self.wait("it surveys", lambda: self.ask("rollcall_stream_entries"))
        return process

    def both(self, *janitor_flags):
        self.role("janitor", *janitor_flags)
        return self.role("worker")

    def serve(self, *flags):
        """Starts a `serve` process."""
        self.role("serve", "--listen", f"127.0.0.1:{self.listen}", *flags)
        self.wait("it serves", lambda: self.heartbeat() == 200)

    def heartbeat(self):
        """Sends a heartbeat; returns the status of the response."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.listen}/api/heartbeat", b'{"user":"u"}')
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def heartbeats(self, count, seconds):
        """Sends heartbeats from this many clients for this many seconds."""
        end = time.monotonic() + seconds

        def client():
            while time.monotonic() < end:
                self.heartbeat()

        clients = [threading.Thread(target=client) for _ in range(count)]
        [one.start() for one in clients]
        [one.join() for one in clients]

    def load(self):
        url = f"redis://127.0.0.1:{self.redis_port}"
        return self.spawn(ROLLCALL, "load", "--redis-url", url, "--rate", "100", "--seed", "7")

    def cli(self, *words):
        command = ["redis-cli", "-p", str(self.redis_port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def add(self, *fields, at="*"):
        return self.cli("XADD", STREAM, at, *(fields or ("type", "heartbeat", "user", "u")))

    def ask(self, query):
        url = f"http://127.0.0.1:{self.port}/api/v1/query?query={urllib.request.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]["result"]
        except OSError:
            return []

    def up(self, role):
        return bool(self.ask(f'up{{instance="127.0.0.1:{self.ports[role]}"}} == 1'))

    def fires(self, alert):
        return bool(self.ask(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))

    def is_calm(self, alerts):
        """Whether none of these alerts is pending or firing."""
        return not self.ask(f'ALERTS{{alertname=~"{"|".join(alerts)}"}}')

    def wait(self, what, done, patience=60):
        start = time.monotonic()
        while not done():
            if time.monotonic() - start > patience:
                raise TimeoutError(f"not within {patience} s: {what}")
            time.sleep(0.2)

    def close(self):
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        shutil.rmtree(self.folder)


def kill(process):
    process.kill()
    process.wait()


# ---- The faults. The docstring goes into the table; what comes before the `yield` is the healthy state. ----


def worker_stands_still(bed):
    """a worker stands still for 5 s under 100 events a second"""
    worker = bed.both()
    bed.load()
    time.sleep(5)
    yield
    worker.send_signal(signal.SIGSTOP)
    time.sleep(5)
    worker.send_signal(signal.SIGCONT)


def worker_is_killed(bed):
    """the only worker is killed under 100 events a second"""
    worker = bed.both()
    bed.load()
    time.sleep(5)
    yield
    kill(worker)


def worker_is_stopped(bed):
    """the only worker is stopped with SIGTERM"""
    worker = bed.both()
    yield
    worker.terminate()


def partition_is_taken_away(bed):
    """somebody overwrites the owner in rollcall:meta, ten times"""
    bed.both()
    yield
    for _ in range(10):
        bed.cli("HSET", "rollcall:meta", "owner", "nobody")
        time.sleep(2)


def group_is_moved(bed):
    """somebody moves the consumer group of an idle stream, twenty times"""
    # With traffic the next batch would undo it, uncounted.
    bed.both()
    bed.add()
    yield
    for _ in range(20):
        bed.cli("XGROUP", "SETID", STREAM, GROUP, "0")
        time.sleep(1)


def server_is_flushed(bed):
    """FLUSHALL while no worker runs"""
    worker = bed.both()
    yield
    kill(worker)
    bed.cli("FLUSHALL")


def somebody_trims(bed):
    """XTRIM MAXLEN 0 while entries wait"""
    worker = bed.both()
    yield
    worker.send_signal(signal.SIGSTOP)
    for _ in range(5):
        bed.add()
    bed.cli("XTRIM", STREAM, "MAXLEN", "0")
    worker.send_signal(signal.SIGCONT)


def id_from_the_future(bed):
    """XADD with an id an hour ahead"""
    bed.both()
    yield
    bed.add(at=f"{int(time.time() + 3600) * 1000}-0")


def producer_sends_nonsense(bed):
    """XADD of an event of unknown type"""
    bed.both()
    yield
    bed.add("type", "nonsense")


def entry_kills_workers(bed):
    """workers die on one entry (a failpoint of debug builds) until one writes it off"""
    bed.role("janitor")
    kill(bed.role("worker"))
    yield
    bed.add()
    for _ in range(4):
        worker = bed.role("worker", "--takeover", "1s", ROLLCALL_TEST_FAILPOINT="after-fold:1")
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            return


def worker_is_killed_again_and_again(bed):
    """a worker is killed and started three times"""
    worker = bed.both()
    yield
    for _ in range(3):
        kill(worker)
        bed.wait("Prometheus notices that it is gone", lambda: not bed.up("worker"))
        worker = bed.role("worker")


def server_is_away(bed):
    """the server is stopped"""
    bed.both()
    yield
    bed.redis.terminate()


def janitor_is_killed(bed):
    """the only janitor is killed"""
    bed.role("worker")
    janitor = bed.role("janitor")
    bed.wait("it sweeps", lambda: bed.ask("rollcall_sweep_last_success_timestamp_seconds"))
    yield
    kill(janitor)


def group_is_abandoned(bed):
    """a consumer group that nobody reads, with --keep 1s"""
    bed.both("--keep", "1s")
    yield
    bed.cli("XGROUP", "CREATE", STREAM, "abandoned", "0", "MKSTREAM")
    bed.add()


def horizon_is_short(bed):
    """an entry that nobody finishes, with --horizon 20s"""
    worker = bed.both("--keep", "1s", "--horizon", "20s")
    yield
    kill(worker)
    bed.add()


def letters_reach_their_cap(bed):
    """ten bad events, with --dead-cap 5"""
    bed.role("janitor", "--dead-cap", "5")
    bed.role("worker", "--dead-cap", "5")
    yield
    for _ in range(10):
        bed.add("type", "nonsense")


def old_code_sets_an_expiry(bed):
    """EXPIRE presence:users 300"""
    bed.both()
    bed.add()
    bed.wait("somebody is present", lambda: bed.cli("EXISTS", "presence:users") == "1")
    yield
    bed.cli("EXPIRE", "presence:users", "300")


def memory_is_short(bed):
    """maxmemory is set 5 % above what is used"""
    bed.both()
    yield
    used = int(re.search(r"used_memory:(\d+)", bed.cli("INFO", "memory"))[1])
    bed.cli("CONFIG", "SET", "maxmemory", str(int(used * 1.05)))


def policy_is_changed(bed):
    """CONFIG SET maxmemory-policy allkeys-lru"""
    bed.both()
    yield
    bed.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")


def server_is_away_from_browsers(bed):
    """the server is stopped while heartbeats come in over HTTP"""
    bed.serve("--buffer", "10,1MiB,5s")
    yield
    bed.redis.terminate()
    bed.heartbeats(12, 60)


def server_pauses(bed):
    """CLIENT PAUSE for one second, twenty times"""
    bed.serve()
    yield
    for _ in range(20):
        bed.cli("CLIENT", "PAUSE", "1000", "WRITE")
        bed.heartbeats(4, 1.1)


def listeners_do_not_read(bed):
    """twelve listeners that read nothing while there are 60,000 changes"""
    bed.serve()
    yield
    clients = [socket.create_connection(("127.0.0.1", bed.listen)) for _ in range(12)]
    request = f"GET /api/v1/changes HTTP/1.1\r\nHost: 127.0.0.1:{bed.listen}\r\n\r\n".encode()
    [client.sendall(request) for client in clients]
    [client.recv(1) for client in clients]
    record = """
        local seq = redis.call('INCRBY', KEYS[2], 1000) - 1000
        for i = 1, 1000 do
          redis.call('XADD', KEYS[1], '*', 'seq', seq + i, 'kind', 'online', 'time', '1790000000000',
            'user', string.rep('x', 250), 'ip', '')
        end"""
    for _ in range(60):
        bed.cli("EVAL", record, "2", "rollcall:changes", "rollcall:changes:seq")
        time.sleep(0.1)
    # They notice when they continue reading.
    [client.settimeout(5) for client in clients]
    with contextlib.suppress(OSError):
        while any([client.recv(1 << 20) for client in clients]):
            pass


def a_target_may_not_be_told(bed):
    """the right to PUBLISH is removed, and a user comes online"""
    bed.write("targets.toml", '[[notify]]\nname = "news"\nkind = "pubsub"\nchannel = "news"\n')
    bed.both()
    bed.role("notifier", "--config", f"{bed.folder}/targets.toml")
    yield
    bed.cli("ACL", "SETUSER", "default", "-publish")
    bed.cli("XADD", STREAM, "*", "type", "heartbeat", "user", "al")


FAULTS = {
    worker_stands_still: ["RollcallEventsLateFast", "RollcallEventsLateSlow"],
    worker_is_killed: ["RollcallProcessDown", "RollcallBacklogGrows", "RollcallNoProgress"],
    worker_is_stopped: ["RollcallPartitionUnowned"],
    partition_is_taken_away: ["RollcallTakeovers"],
    group_is_moved: ["RollcallGroupInterference"],
    janitor_is_killed: ["RollcallJanitorNotRunning"],
    server_is_flushed: ["RollcallGroupMissing"],
    somebody_trims: ["RollcallEntriesLost"],
    id_from_the_future: ["RollcallStreamClockAhead"],
    producer_sends_nonsense: ["RollcallDeadLetters"],
    entry_kills_workers: ["RollcallPoison"],
    worker_is_killed_again_and_again: ["RollcallRestarts"],
    server_is_away: ["RollcallRedisErrors"],
    group_is_abandoned: ["RollcallTrimBlocked"],
    horizon_is_short: ["RollcallHorizonNear"],
    letters_reach_their_cap: ["RollcallLimitReached"],
    old_code_sets_an_expiry: ["RollcallForeignWrites"],
    memory_is_short: ["RollcallRedisMemoryFull"],
    policy_is_changed: ["RollcallEvictionPolicyWrong"],
    server_is_away_from_browsers: ["RollcallServeErrors", "RollcallIntakeBufferFills", "RollcallIntakeRefuses"],
    server_pauses: ["RollcallServeSlow"],
    listeners_do_not_read: ["RollcallListenersDropped"],
    a_target_may_not_be_told: ["RollcallNotifierLags"],
}


def try_fault(fault, alerts):
    """How long each alert took, in seconds; None for one that did not fire."""
    bed = Bed()
    try:
        steps = fault(bed)
        next(steps)
        # Long enough for the latest scrape to be evaluated.
        time.sleep(3)
        bed.wait(f"no alert before the fault: {fault.__doc__}", lambda: bed.is_calm(alerts))
        start, fired = time.monotonic(), dict.fromkeys(alerts)
        making = threading.Thread(target=lambda: next(steps, None))
        making.start()
        while None in fired.values() and time.monotonic() - start < GIVE_UP:
            for alert in [alert for alert, took in fired.items() if took is None]:
                if bed.fires(alert):
                    fired[alert] = time.monotonic() - start
            time.sleep(0.5)
        making.join()
        return fired
    finally:
        bed.close()


def main():
    wanted = set(sys.argv[1:])
    chosen = {fault: alerts for fault, alerts in FAULTS.items() if not wanted or wanted & set(alerts)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tries = {fault: pool.submit(try_fault, fault, alerts) for fault, alerts in chosen.items()}
    print("| alert | made to fire by | after |\n|---|---|---|")
    silent = 0
    for fault, result in tries.items():
        for alert, took in result.result().items():
            silent += took is None
            print(f"| {alert} | {fault.__doc__} | {'never' if took is None else f'{took:.0f} s'} |")
    sys.exit(1 if silent else 0)


if __name__ == "__main__":
    main()
