"""A registry's bad day: passes on what a real one says, and fails as a file tells it to, which is read at each request.

    liar.py ADDRESS PORT UPSTREAM MOOD LOG

MOOD is JSON: `how` is `well`, `stalls`, `dies` or `lies`, and says what becomes of each blob that is longer than `after`
bytes once so many were sent. LOG gets a line for each answer: its path, the range that was asked for, and the bytes sent.
"""

import http.client
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

address, port, upstream, mood, log = sys.argv[1:]
ended = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.pass_on()

    def do_HEAD(self):
        self.pass_on()

    def pass_on(self):
        about = json.loads(Path(mood).read_text())
        connection = http.client.HTTPConnection(upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        connection.request(self.command, self.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        spoiled = about["how"] != "well" and "/blobs/" in self.path and len(body) > about["after"]
        sent = body[: about["after"]] if spoiled else body
        if self.command != "HEAD":
            self.wfile.write(sent)
        with open(log, "a") as file:
            print(self.path, self.headers.get("Range", "-"), len(sent), file=file)
        if spoiled and about["how"] == "stalls":
            ended.wait()
        elif spoiled and about["how"] == "lies":
            self.wfile.write(bytes(len(body) - len(sent)))
        elif spoiled:
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *_):
        pass


ThreadingHTTPServer((address, int(port)), Handler).serve_forever()
