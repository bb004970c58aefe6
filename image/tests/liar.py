"""A registry's bad day: passes on what a real one says, and fails as a file tells it to, which is read at each request.

    liar.py ADDRESS PORT UPSTREAM MOOD LOG

MOOD is JSON: `how` is `well`, `stalls`, `dies` or `lies`, and says what becomes of all that lies behind the first `after`
bytes of a blob, however often it is asked for. LOG gets a line for each answer: its path, where in the blob it began, and
the bytes sent.
"""

import http.client
import json
import re
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
        begin = int(re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", "bytes=0-"))[1]) if answer.status == 206 else 0
        spoiled = about["how"] != "well" and "/blobs/" in self.path and begin + len(body) > about["after"]
        sent = body[: max(0, about["after"] - begin)] if spoiled else body
        if self.command != "HEAD":
            self.wfile.write(sent)
        with open(log, "a") as file:
            print(self.path, begin, len(sent), file=file)
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
