"""The owner of a box, with a browser on the network: nothing here knows more than a page would."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import select
import ssl
from contextlib import suppress

PASSWORD = "correct horse battery"


class Refused(Exception):
    """The box refused; `problem` is its reason as it came."""

    def __init__(self, status, problem):
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


class Heard:
    """An answer that was read already."""

    def __init__(self, heard: bytes):
        self._heard = heard

    def makefile(self, _mode):
        return io.BytesIO(self._heard)


class Owner:
    """Calls the API over HTTPS. The certificate is the one that was seen first, from then on."""

    def __init__(self, address: str, port: int = 443):
        self.address, self.port = address, port
        self.fingerprint = self.cookie = self.csrf = None

    def call(self, method: str, path: str, body=None, timeout_s: float = 60):
        data = None if body is None else json.dumps(body)
        return self._ask(method, path, data, {"Content-Type": "application/json"}, timeout_s)

    def upload(self, path: str, file: str, timeout_s: float = 1200):
        """Sends a file, and stops sending when it is refused."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(os.path.getsize(file))}
        with open(file, "rb") as data:
            return self._ask("POST", path, data, headers, timeout_s)

    def _ask(self, method: str, path: str, data, headers, timeout_s: float):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=timeout_s, context=context)
        try:
            connection.connect()
            seen = hashlib.sha256(connection.sock.getpeercert(binary_form=True)).hexdigest()
            self.fingerprint = self.fingerprint or seen
            assert seen == self.fingerprint, "the box has another certificate now"
            headers |= {"Origin": self.origin()}
            if self.cookie:
                headers |= {"Cookie": self.cookie, "x-punktfunk-csrf": self.csrf}
            if hasattr(data, "read"):
                answer = self._send(connection, method, path, data, headers)
            else:
                connection.request(method, f"/api/v1{path}", body=data, headers=headers)
                answer = connection.getresponse()
            text = answer.read()
            cookies = [cookie.split(";")[0] for cookie in answer.headers.get_all("Set-Cookie") or []]
        finally:
            connection.close()
        value = json.loads(text) if text else None
        if answer.status >= 400:
            raise Refused(answer.status, value)
        if cookies:
            self.cookie = "; ".join(cookies)
            self.csrf = value["csrf"]
        return value

    @staticmethod
    def _send(connection, method: str, path: str, data, headers):
        """Sends what is read, until it is answered, as a browser does: whoever refuses it does not read all of it."""
        connection.putrequest(method, f"/api/v1{path}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        sock = connection.sock
        while piece := data.read(1 << 16):
            sock.sendall(piece)
            if not select.select([sock], [], [], 0)[0]:
                continue
            limit_s = sock.gettimeout()
            sock.settimeout(0)
            try:
                heard = sock.recv(1 << 16)
            except ssl.SSLWantReadError:
                # Something of the protocol below.
                continue
            finally:
                sock.settimeout(limit_s)
            with suppress(OSError):
                while more := sock.recv(1 << 16):
                    heard += more
            answer = http.client.HTTPResponse(Heard(heard))
            answer.begin()
            return answer
        return connection.getresponse()

    def origin(self) -> str:
        return f"https://{self.address}" if self.port == 443 else f"https://{self.address}:{self.port}"

    def landing(self):
        """What the box says to anybody; None while it says nothing."""
        try:
            return self.call("GET", "/landing", timeout_s=5)
        except (OSError, http.client.HTTPException, ssl.SSLError):
            return None

    def claim(self, secret: str, name: str):
        return self.call("POST", "/claim", {"secret": secret, "name": name, "password": PASSWORD})

    def login(self):
        self.cookie = None
        return self.call("POST", "/session", {"password": PASSWORD})
