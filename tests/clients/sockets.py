"""Socket.IO clients in Python, driven by tests/live/listen/sockets.rs: each line of JSON on input is a command, and each
line of output is an event that a client received."""

import json
import sys
import threading

import socketio

sockets = {}
lock = threading.Lock()


def say(name, event, data=None):
    with lock:
        print(json.dumps({"name": name, "event": event, "data": data}), flush=True)


def reason_of(error):
    """What the server says comes as an object, what the network says as text."""
    return error.get("message") if isinstance(error, dict) else error


def connect(name, url, transports, auth=None):
    client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2)
    sockets[name] = client
    client.on("connect", lambda: say(name, "connect", client.transport()))
    client.on("connect_error", lambda error=None: say(name, "connect_error", reason_of(error)))
    client.on("disconnect", lambda reason=None: say(name, "disconnect", reason))
    client.on("*", lambda event, data=None: say(name, event, data))

    def run():
        try:
            client.connect(url, transports=transports, auth=auth)
        except socketio.exceptions.ConnectionError:
            pass  # connect_error says it

    threading.Thread(target=run, daemon=True).start()


def emit(name, event, data=None):
    sockets[name].emit(event, data)


def ask(name, event, data=None):
    sockets[name].emit(event, data, callback=lambda answer=None: say(name, "ack", answer))


def close(name):
    sockets[name].disconnect()


commands = {"connect": connect, "emit": emit, "ask": ask, "close": close}
for line in sys.stdin:
    command = json.loads(line)
    commands[command.pop("do")](**command)
