"""A bad network on the way from the host to the client: forwards everything and loses datagrams of one's choice.

It stands in the client's namespace at an address of its own, which the client is told is the host. TCP passes as it is;
of what the host sends on the video and audio ports each datagram is passed or lost by a seeded model. The relay takes
datagrams from a plain socket, where the kernel has cut a segmented send into what would be on a cable, so loss strikes
single datagrams; sizes are written down so that a test can see it.

    relay.py --listen ADDRESS --host ADDRESS --video SCHEDULE --audio SCHEDULE --seed N --log FILE

A schedule is a JSON list of [seconds, model], counted from the first datagram; after it nothing is lost. A model is
{"name": .., "loss": P} or {"name": .., "turn_bad": P, "turn_good": P, "loss": P}: a good network that loses nothing and
a bad one that loses with P (Gilbert and Elliott).
SIGTERM ends the relay; then the log is written.
"""

import argparse
import json
import random
import selectors
import signal
import socket
import struct
import threading
import time
from pathlib import Path

TCP_PORTS = (47984, 47989, 48010)
VIDEO, CONTROL, AUDIO = 47998, 47999, 48000
# A loaded machine may leave the relay without the processor for a while; nothing is to be lost meanwhile.
BUFFER_BYTES = 8 << 20
MAX_PEERS = 64
SO_RCVBUFFORCE = 33


class Model:
    """Decides about one datagram after the other. The decisions follow from the seed and the order."""

    def __init__(self, schedule, seed):
        self.schedule, self.random = schedule, random.Random(seed)
        self.began, self.bad = None, False

    def fate(self, now):
        """(name of the phase, is it lost?)"""
        if self.began is None:
            self.began = now
        since = now - self.began
        for seconds, model in self.schedule:
            if since < seconds:
                return model["name"], self._loses(model)
            since -= seconds
        return "calm", False

    def _loses(self, model):
        # Both are drawn for each datagram, whatever the first says.
        turn, loss = self.random.random(), self.random.random()
        if "turn_bad" not in model:
            return loss < model["loss"]
        self.bad = turn >= model["turn_good"] if self.bad else turn < model["turn_bad"]
        return self.bad and loss < model["loss"]


def video_fields(datagram):
    """(number, frame): the nonce counter and the frame of a sealed datagram, or what an open one says in its headers."""
    if len(datagram) > 32 and datagram[8:12] == b"\0\0\0V":
        return struct.unpack_from("<Q", datagram)[0], struct.unpack_from("<I", datagram, 12)[0]
    return struct.unpack_from(">H", datagram, 2)[0], struct.unpack_from("<I", datagram, 20)[0]


def audio_fields(datagram):
    """(number, payload type, first number of its block if it is parity)"""
    kind, number = datagram[1] & 0x7F, struct.unpack_from(">H", datagram, 2)[0]
    return number, kind, struct.unpack_from(">H", datagram, 14)[0] if kind == 127 else None


class Relay:
    def __init__(self, listen, host, video, audio, seed):
        self.listen, self.host = listen, host
        self.models = {VIDEO: Model(video, seed), AUDIO: Model(audio, seed + 1)}
        self.rows = {VIDEO: [], AUDIO: []}
        self.selector = selectors.DefaultSelector()
        self.upstream = {}
        self.running = True

    def serve(self):
        for port in TCP_PORTS:
            server = socket.create_server((self.listen, port), backlog=16)
            threading.Thread(target=self._accept, args=(server, port), daemon=True).start()
        for port in (VIDEO, CONTROL, AUDIO):
            downstream = udp_socket()
            downstream.bind((self.listen, port))
            self.selector.register(downstream, selectors.EVENT_READ, (port, downstream, None))
        print("ready", flush=True)
        while self.running:
            for key, _ in self.selector.select(timeout=0.2):
                self._forward(*key.data, key.fileobj)

    def _forward(self, port, downstream, client, readable):
        # Many at a time, but the other sockets have their turn.
        for _ in range(64):
            try:
                datagram, sender = readable.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                continue  # The other end's port is closed; that concerns an earlier datagram.
            try:
                if client is None:
                    self._upstream(port, downstream, sender).send(datagram)
                elif not self._loses(port, datagram):
                    downstream.sendto(datagram, client)
            except OSError:
                pass

    def _upstream(self, port, downstream, client):
        if (port, client) not in self.upstream:
            assert len(self.upstream) < MAX_PEERS, "too many clients"
            upstream = udp_socket()
            upstream.connect((self.host, port))
            self.upstream[port, client] = upstream
            self.selector.register(upstream, selectors.EVENT_READ, (port, downstream, client))
        return self.upstream[port, client]

    def _loses(self, port, datagram):
        if port not in self.models:
            return False
        now = time.monotonic()
        phase, lost = self.models[port].fate(now)
        fields = video_fields(datagram) if port == VIDEO else audio_fields(datagram)
        self.rows[port].append((int(now * 1e6), len(datagram), phase, lost, *fields))
        return lost

    def _accept(self, server, port):
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection((self.host, port), 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=copy, args=(source, sink), daemon=True).start()


def udp_socket():
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    made.setblocking(False)
    return made


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One end broke off: the other hears it too.
        for end in (source, sink):
            end.close()


def main():
    parser = argparse.ArgumentParser()
    for option in ("listen", "host", "log"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("video", "audio"):
        parser.add_argument(f"--{option}", type=json.loads, default=[])
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    relay = Relay(options.listen, options.host, options.video, options.audio, options.seed)
    signal.signal(signal.SIGTERM, lambda *_: setattr(relay, "running", False))
    relay.serve()
    Path(options.log).write_text(json.dumps({"video": relay.rows[VIDEO], "audio": relay.rows[AUDIO]}))


if __name__ == "__main__":
    main()
