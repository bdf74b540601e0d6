#!/usr/bin/env python3
"""Copies a document when enough people are in it: exactly once each time the threshold is reached.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_… receiver.py <port> <folder of documents> <folder for snapshots>
"""

import http.server
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PORT, DOCUMENTS, SNAPSHOTS = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


def snapshot(doc, call):
    """Copies a document, once for each call. A repeated call finds the copy."""
    name = quote(doc, safe="")
    with tempfile.NamedTemporaryFile(dir=SNAPSHOTS) as copy:
        with open(DOCUMENTS / name, "rb") as document:
            shutil.copyfileobj(document, copy)
        copy.flush()
        os.fsync(copy.fileno())
        try:
            # The copy appears complete, and never a second time.
            os.link(copy.name, SNAPSHOTS / f"{name}.{call}")
        except FileExistsError:
            pass


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            webhook.verify(body, dict(self.headers))
            for change in json.loads(body).get("changes", []):
                if change["kind"] == "threshold_reached":
                    snapshot(change["doc"], self.headers["webhook-id"])
            status = 204
        except WebhookVerificationError:
            status = 401
        except OSError:
            # Ask for a retry: the document may not exist yet, or the disk may be full.
            status = 503
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
