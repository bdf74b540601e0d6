"""A webhook that verifies its calls, driven by tests/live/notifier/webhook.rs: each line of input is a command, and each
line of JSON on output is a call. webhook_receiver.py [<certificate> <key>]

    secret whsec_…      verify with this secret
    answer <what> …     how to respond to the next calls: with a status, `hang` or `close`; after these with 204
"""

import collections
import http.server
import json
import os
import ssl
import sys
import threading
import time

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

answers = collections.deque()
secrets = []
lock = threading.Lock()


def say(told):
    with lock:
        print(json.dumps(told), flush=True)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        answer = answers.popleft() if answers else "204"
        try:
            Webhook(secrets[-1]).verify(body, dict(self.headers))
            verified = True
        except WebhookVerificationError:
            verified = False
        told = {"id": self.headers["webhook-id"], "verified": verified, "answer": answer, "path": self.path}
        say({**told, "body": json.loads(body)})
        if answer == "hang":
            time.sleep(60)
        if answer in ("hang", "close"):
            self.close_connection = True
            return
        self.send_response(int(answer))
        if answer == "429":
            self.send_header("Retry-After", "1")
        if answer.startswith("3"):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
if sys.argv[1:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
say({"port": server.server_address[1]})
for line in sys.stdin:
    command, *words = line.split()
    if command == "secret":
        secrets.append(words[0])
    else:
        answers.extend(words)
    say({"done": command})
# Whoever started it is gone.
os._exit(0)
