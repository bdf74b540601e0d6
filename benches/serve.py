#!/usr/bin/env python3
"""What a heartbeat over HTTP costs: `rollcall serve`, a Flask route under gunicorn that writes presence itself, and
plain XADD, one after the other against the same kind of private Redis.

benches/serve.py [--binary target/release/rollcall] [--seconds 10] [--connections 512]

Needs redis-server, redis-benchmark, wrk and python3 with venv in PATH. Flask, gunicorn and redis are installed from PyPI
into an environment under target/. Prints requests per second, wrk's latency quantiles, and the processor time of each
request: of the HTTP process with its children, and of Redis.
"""
import argparse, os, pathlib, re, signal, socket, subprocess, tempfile, time

APP = '''
import json, time
from flask import Flask, jsonify, request
import redis

app, server = Flask(__name__), redis.Redis(port=PORT)


@app.post("/api/heartbeat")
def heartbeat():
    said = request.get_json()
    entry = {"lastSeen": int(time.time() * 1000), "user": said["user"], "ip": request.remote_addr,
             "ua": request.headers.get("User-Agent", ""), "page": said.get("page", "")}
    server.hset("presence:users", f"{said['user']}|{request.remote_addr}", json.dumps(entry))
    return jsonify(status="success")
'''

LOAD = '''
local n = 0
request = function()
  n = n + 1
  local body = '{"user":"user-' .. n % 10000 .. '","page":"/home"}'
  return wrk.format("POST", "/api/heartbeat", { ["Content-Type"] = "application/json" }, body)
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %.2f %.2f %d\\n", summary.requests, summary.duration,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, e.connect + e.read + e.write + e.status + e.timeout))
end
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(300):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


def processor_time(pid):
    """Processor seconds of a process and its children."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_time(child) for child in children)


class Redis:
    def __enter__(self):
        self.port, self.folder = free_port(), tempfile.TemporaryDirectory()
        words = ["redis-server", "--port", str(self.port), "--save", "", "--dir", self.folder.name]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        wait_for(self.port)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.folder.cleanup()


def flask(port, redis):
    """Starts the route under gunicorn with two workers."""
    home = pathlib.Path("target/bench-serve")
    python = home / "venv/bin/python"
    if not python.exists():
        subprocess.run(["python3", "-m", "venv", home / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "flask", "gunicorn", "redis"], check=True)
    (home / "app.py").write_text(APP.replace("PORT", str(redis.port)))
    words = ["venv/bin/gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "--log-level", "error", "app:app"]
    return subprocess.Popen(words, cwd=home)


def serve(port, redis, binary):
    words = [binary, "serve", "--redis-url", f"redis://127.0.0.1:{redis.port}", "--listen", f"127.0.0.1:{port}",
             "--http", "off", "--max-client-connections", "10000"]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


def measure(name, start, options):
    with Redis() as redis, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LOAD)
        script.flush()
        port = free_port()
        process = start(port, redis)
        try:
            wait_for(port)
            words = ["wrk", "-t", "1", "-c", str(options.connections), "-s", script.name]
            subprocess.run([*words, "-d", "2", f"http://127.0.0.1:{port}"], check=True, capture_output=True)
            before = processor_time(process.pid), processor_time(redis.process.pid)
            output = subprocess.run([*words, "-d", str(options.seconds), f"http://127.0.0.1:{port}"], check=True,
                                    capture_output=True, text=True).stdout
            found = re.search(r"RESULT (\d+) (\d+) (\S+) (\S+) (\d+)", output)
            requests, micros, errors = int(found[1]), int(found[2]), int(found[5])
            if errors:
                raise SystemExit(f"{name}: {errors} errors\n{output}")
            own, server = processor_time(process.pid) - before[0], processor_time(redis.process.pid) - before[1]
            print(f"| {name} | {requests / micros * 1e6:,.0f} | {found[3]} | {found[4]} "
                  f"| {own / requests * 1e6:.1f} | {server / requests * 1e6:.2f} |", flush=True)
        finally:
            process.terminate()
            process.wait()


def plain(count=200_000):
    """Measures a plain XADD for each event, from 50 clients without a pipeline."""
    with Redis() as redis:
        add = ["XADD", "rollcall:events", "*", "type", "heartbeat", "user", "user-1", "page", "/home"]
        words = ["redis-benchmark", "-p", str(redis.port), "-n", str(count), "-c", "50", "-q", *add]
        before = processor_time(redis.process.pid)
        subprocess.run(words, check=True, capture_output=True)
        used = processor_time(redis.process.pid) - before
        print(f"| plain `XADD` each | – | – | – | – | {used / count * 1e6:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/rollcall")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=512)
    options = parser.parse_args()
    print("| what | requests/s | p50 ms | p99 ms | its own µs per request | Redis µs per request |\n|---|---:|---:|---:|---:|---:|")
    measure("`rollcall serve`", lambda port, redis: serve(port, redis, options.binary), options)
    measure("Flask, gunicorn with 2 workers", flask, options)
    plain()


main()
