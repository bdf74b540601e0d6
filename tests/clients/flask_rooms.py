"""A Flask-SocketIO server with a message queue, and a client in the given rooms. Prints each event that the client
receives as a line of JSON. flask_rooms.py <redis url> <room …>"""

import json
import logging
import os
import socket
import sys
import threading

import socketio
from flask import Flask
from flask_socketio import SocketIO, emit, join_room

url, rooms = sys.argv[1], sys.argv[2:]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
app = Flask(__name__)
server = SocketIO(app, message_queue=url, async_mode="threading")


@server.on("connect")
def connected(auth=None):
    for room in rooms:
        join_room(room)
    emit("in_rooms", rooms)


def serve():
    server.run(app, host="127.0.0.1", port=port, allow_unsafe_werkzeug=True)


def leave():
    # Whoever started it is gone.
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=serve, daemon=True).start()
threading.Thread(target=leave, daemon=True).start()
client = socketio.Client(reconnection_delay=0.05)
lock = threading.Lock()


def heard(event, data=None):
    # Each event has a thread of its own.
    with lock:
        print(json.dumps({"event": event, "data": data}), flush=True)


client.on("*", heard)
client.connect(f"http://127.0.0.1:{port}", retry=True)
client.wait()
