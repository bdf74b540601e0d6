#!/usr/bin/env python3
"""Growth with partitions and nodes: the cost of an event for each server, and the throughput of all together.

benches/growth.py [--binary target/release/rollcall] [--rows partitions,masters,events]

`partitions` and `masters` count instructions with callgrind (see instructions.py): one server with 1 to 400 partitions, then
1 to 3 masters of a Cluster with four partitions each. `events` runs Clusters of 12 partitions without callgrind, and prints how
many events per second they and one worker apply on this machine. Needs what instructions.py needs.
"""
import argparse
from binascii import crc_hqx
import os
import resource
import subprocess
import time

from instructions import Server, free_port, standard_mix, whole_state

GROUP, SLOTS = "rollcall", 16384


class Plain(Server):
    """A server without callgrind, to measure processor time."""
    WRAPPER, PAUSE = [], 0.02

    def seconds(self):
        lines = self.client.one("INFO", "cpu").decode().splitlines()
        figures = dict(line.split(":") for line in lines if ":" in line)
        return float(figures["used_cpu_user"]) + float(figures["used_cpu_sys"])


def subject(event):
    pairs = dict(zip(event[::2], event[1::2]))
    return pairs["sid" if pairs["type"] == "session" else "user"]


class Deployment:
    """This many masters that share this many partitions. One master is a standalone server."""

    def __init__(self, kind, masters, partitions):
        self.buses = [free_port() for _ in range(masters)]
        self.servers = [kind(self.settings(bus)) for bus in self.buses]
        self.streams = ["rollcall:events"] if partitions == 1 else [f"{{p{n}}}:rollcall:events" for n in range(partitions)]
        if masters > 1:
            self.join()

    def settings(self, bus):
        if len(self.buses) == 1:
            return []
        return ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port", str(bus)]

    def join(self):
        first = self.servers[0]
        for n, server in enumerate(self.servers):
            # In turn, whatever the slots of their hash tags are: each master has as many partitions as the others.
            own = {crc_hqx(b"p%d" % partition, 0) % SLOTS for partition in range(n, len(self.streams), len(self.servers))}
            server.client.one("CLUSTER", "ADDSLOTS", *own)
            server.client.one("CLUSTER", "MEET", "127.0.0.1", first.port, self.buses[0])
        for server in self.servers:
            while not self.is_joined(server.client):
                time.sleep(0.2)

    def is_joined(self, client):
        about, owners = client.one("CLUSTER", "INFO"), {slots[2][2] for slots in client.one("CLUSTER", "SLOTS")}
        return b"cluster_state:ok" in about and len(owners) == len(self.servers)

    def of(self, partition):
        return self.servers[partition % len(self.servers)]

    def add(self, events, start, per_ms):
        """Adds entries with explicit ids, so that a user's next event is seconds later, however slowly they are added."""
        commands = [[] for _ in self.servers]
        for i, event in enumerate(events):
            partition = crc_hqx(subject(event).encode(), 0) % len(self.streams)
            words = ["XADD", self.streams[partition], f"{start + i // per_ms}-{i % per_ms}", *event]
            commands[partition % len(self.servers)].append(words)
        for server, own in zip(self.servers, commands):
            for first in range(0, len(own), 500):
                server.client.send(*own[first:first + 500])

    def apply(self, binary):
        """Runs a worker until the cursor of each partition is at the end of its stream."""
        url = f"redis+cluster://127.0.0.1:{self.servers[0].port}" if len(self.servers) > 1 else f"redis://127.0.0.1:{self.servers[0].port}"
        command = [binary, "worker", "--redis-url", url, "--partitions", str(len(self.streams)), "--http", "off", "--takeover", "60s"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            for partition, stream in enumerate(self.streams):
                client = self.of(partition).client
                last = client.one("XREVRANGE", stream, "+", "-", "COUNT", 1)[0][0]
                while not self.is_at(client, stream, last):
                    if process.poll() is not None:
                        raise SystemExit("the worker exited")
                    time.sleep(self.servers[0].PAUSE)
        finally:
            process.terminate()
            process.wait()

    @staticmethod
    def is_at(client, stream, last):
        groups = client.one("XINFO", "GROUPS", stream)
        return bool(groups) and dict(zip(groups[0][::2], groups[0][1::2]))[b"last-delivered-id"] == last

    def prepare(self, binary, users, count):
        """The whole state of all users, and a backlog of the standard mix."""
        before, events = whole_state(users), standard_mix(count, users)
        start = int(time.time() * 1000) - len(events)
        self.add(before, start - len(before) // 10 - 1, per_ms=10)
        self.apply(binary)
        self.add(events, start, per_ms=1)

    def end(self):
        for server in self.servers:
            server.end()


def instructions(options, masters, partitions):
    """Instructions of each server, and the number of events."""
    deployment = Deployment(Server, masters, partitions)
    try:
        # Full batches of as many users as elsewhere, and so many events that a worker's start does not show.
        users, count = max(options.users, 600 * partitions), max(40_000, 2500 * partitions)
        deployment.prepare(options.binary, users, count)
        for server in deployment.servers:
            server.count()
        deployment.apply(options.binary)
        return [server.counted() for server in deployment.servers], count
    finally:
        deployment.end()


def partitions(options):
    print("\n| partitions of one server | events | instructions per event |\n|---:|---:|---:|")
    for number in [1, 4, 16, 64, 400]:
        [total], count = instructions(options, 1, number)
        print(f"| {number} | {count} | {total / count:,.0f} |", flush=True)


def masters(options):
    print("\n| masters, 4 partitions each | instructions per event | share of each master |\n|---:|---:|---|")
    for number in [1, 2, 3]:
        each, count = instructions(options, number, 4 * number)
        shares = ", ".join(f"{share / sum(each):.0%}" for share in each)
        print(f"| {number} | {sum(each) / count:,.0f} | {shares} |", flush=True)


def events(options):
    print("\n| masters, 12 partitions | events/s | server µs | worker µs | cores busy |\n|---:|---:|---:|---:|---:|")
    for number in [1, 2, 3]:
        rounds = sorted(throughput(options, number) for _ in range(3))
        rate, server, own, busy = rounds[1]
        print(f"| {number} | {rate:,.0f} | {server:.2f} | {own:.2f} | {busy:.2f} |", flush=True)


def throughput(options, number):
    deployment, count = Deployment(Plain, number, 12), options.events
    try:
        deployment.prepare(options.binary, options.users, count)
        used = lambda: (sum(server.seconds() for server in deployment.servers), children())
        (servers, own), started = used(), time.monotonic()
        deployment.apply(options.binary)
        took = time.monotonic() - started
        servers, own = (after - before for after, before in zip(used(), (servers, own)))
        return count / took, servers / count * 1e6, own / count * 1e6, (servers + own) / took
    finally:
        deployment.end()


def children():
    """Processor time of the workers that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.path.join("target", "release", "rollcall"))
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=600_000, help="for the row events")
    parser.add_argument("--rows", default="partitions,masters,events")
    options = parser.parse_args()
    for row in options.rows.split(","):
        {"partitions": partitions, "masters": masters, "events": events}[row](options)


main()
