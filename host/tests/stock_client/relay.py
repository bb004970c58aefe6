"""A bad network on the way from the host to the client: forwards everything and loses datagrams of one's choice.

It stands in the client's namespace at an address of its own, which the client is told is the host. TCP passes as it is;
of what the host sends on the video and audio ports each datagram is passed or lost by a seeded model. The relay takes
datagrams from a plain socket, where the kernel has cut a segmented send into what would be on a cable, so loss strikes
single datagrams; sizes are written down so that a test can see it.

    relay.py --listen ADDRESS --host ADDRESS --log FILE [--video SCHEDULE] [--audio SCHEDULE] [--seed N]
             [--vanish MOMENT]

A schedule is a JSON list of [seconds, model], counted from the first datagram; after it nothing is lost. A model is
{"name": .., "loss": P} or {"name": .., "turn_bad": P, "turn_good": P, "loss": P}: a good network that loses nothing and
a bad one that loses with P (Gilbert and Elliott).
With --vanish the client is cut off at a moment of its way into a stream (see MOMENTS): from then on nothing passes in
either direction and no connection is closed, as when a device loses its power. The relay then prints "vanished".
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
from collections import Counter
from pathlib import Path

TCP_PORTS = (47984, 47989, 48010)
VIDEO, CONTROL, AUDIO = 47998, 47999, 48000
# A loaded machine may leave the relay without the processor for a while; nothing is to be lost meanwhile.
BUFFER_BYTES = 8 << 20
MAX_PEERS = 64
# When a client can vanish: after its first pairing message, after /launch before RTSP, during RTSP (OPTIONS, DESCRIBE and
# SETUP have been answered), on the control connection before its first video ping, while it plays.
MOMENTS = ("pairing", "launched", "negotiating", "connected", "playing")
PAIRING_BEGINS = b"phrase=getservercert"
RTSP = 48010
RTSP_QUESTIONS, CONTROL_DATAGRAMS, VIDEO_DATAGRAMS = 4, 6, 100
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
    def __init__(self, listen, host, video, audio, seed, vanish):
        self.listen, self.host, self.vanish = listen, host, vanish
        self.vanished, self.counts = threading.Event(), Counter()
        self.models = {VIDEO: Model(video, seed), AUDIO: Model(audio, seed + 1)}
        self.rows = {VIDEO: [], AUDIO: []}
        self.selector = selectors.DefaultSelector()
        self.upstream = {}
        self.kept = []
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
            if self._cuts_off(port, to_host=client is None):
                continue
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
            # The host shall see each relay's client at an address of its own.
            upstream.bind((self.listen, 0))
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

    def _cuts_off(self, port, to_host):
        """Counts a datagram on its way; whether it goes nowhere because the client has vanished."""
        self.counts[port, to_host] += 1
        if self.vanish == "connected" and (port, to_host) == (VIDEO, True):
            return True
        seen = self.counts[port, to_host]
        if (self.vanish, port, to_host) == ("connected", CONTROL, True) and seen > CONTROL_DATAGRAMS:
            self._be_gone()
        if (self.vanish, port, to_host) == ("playing", VIDEO, False) and seen > VIDEO_DATAGRAMS:
            self._be_gone()
        return self.vanished.is_set()

    def _be_gone(self):
        if not self.vanished.is_set():
            self.vanished.set()
            print("vanished", flush=True)

    def _accept(self, server, port):
        while True:
            near, _ = server.accept()
            self.counts[port] += 1
            questions = {"launched": 0, "negotiating": RTSP_QUESTIONS}.get(self.vanish)
            if port == RTSP and questions is not None and self.counts[port] > questions:
                self._be_gone()
            if self.vanished.is_set():
                # Accepted and kept, so that the client waits as it would for a host that does not answer.
                self.kept.append(near)
                continue
            try:
                far = socket.create_connection((self.host, port), 10, (self.listen, 0))
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        try:
            while data := source.recv(65536):
                self._hold()
                sink.sendall(data)
                if self.vanish == "pairing" and PAIRING_BEGINS in data:
                    self._be_gone()
            self._hold()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._hold()
            # One end broke off: the other hears it too.
            for end in (source, sink):
                end.close()

    def _hold(self):
        """Who has vanished says nothing more, not even that it goes."""
        while self.vanished.is_set():
            threading.Event().wait()


def udp_socket():
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    made.setblocking(False)
    return made


def main():
    parser = argparse.ArgumentParser()
    for option in ("listen", "host", "log"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("video", "audio"):
        parser.add_argument(f"--{option}", type=json.loads, default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vanish", choices=MOMENTS)
    options = parser.parse_args()
    relay = Relay(options.listen, options.host, options.video, options.audio, options.seed, options.vanish)
    signal.signal(signal.SIGTERM, lambda *_: setattr(relay, "running", False))
    relay.serve()
    Path(options.log).write_text(json.dumps({"video": relay.rows[VIDEO], "audio": relay.rows[AUDIO]}))


if __name__ == "__main__":
    main()
