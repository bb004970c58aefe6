"""The owner's API over the local socket, as a program of the owner's would call it."""

import http.client
import json
import socket


class HttpProblem(Exception):
    """The host refused; `problem` is its reason as it came."""

    def __init__(self, status, problem):
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """Calls, each over a connection of its own."""

    def __init__(self, path, timeout_s=30):
        self.path, self.timeout_s = path, timeout_s

    def call(self, method, path, body=None):
        """What the host answers, read as JSON; None if it answers with nothing."""
        connection = _Connection(self.path, self.timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1{path}", body=data, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        value = json.loads(text) if text else None
        if answer.status >= 400:
            raise HttpProblem(answer.status, value)
        return value
