"""The stock client, driven by hand: `client.py VERB ..` does one thing a person would do and prints what came of it.

Each run is a process of its own in the client's network namespace, as a device that is switched on, used and put away.
The last line on standard output is a JSON object. The client is `moonlight-python` as PyPI has it; nothing in it is
changed, frames and sound are only looked at on their way.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from moonlight_python import MoonlightClient
from moonlight_python import _stream_manager as manager_module
from moonlight_python.discovery import connect_to_server
from moonlight_python.http_client import NvHTTP
from PIL import Image
from zeroconf import IPVersion, ServiceBrowser, Zeroconf

import card
import keyboard

WIDTH, HEIGHT, FPS = 1280, 720, 30
SERVICE = "_nvstream._tcp.local."
# What the desktop's shell is told to do: fill its window with a colour that no theme uses.
PAINT = 'printf "\\033[48;2;{};{};{}m\\033[2J\\033[H"\n'
KEYED_COLOUR = (255, 0, 160)
SENT_COLOUR = (0, 170, 255)


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, function, options in (
        ("reach", reach, ("address", "port", "deadline")),
        ("discover", discover, ("config", "deadline")),
        ("pair", pair, ("config", "address", "pin")),
        ("info", info, ("config", "address")),
        ("apps", apps, ("config", "address", "out")),
        ("card", play_card, ("config", "address", "out", "seconds", "fps")),
        ("desktop", play_desktop, ("config", "address", "out", "seconds")),
        ("measure", measure, ("config", "address", "seconds", "width", "height", "fps")),
        ("glance", glance_at_card, ("config", "address", "out", "seconds", "width", "height", "fps")),
        ("watch", watch_card, ("config", "address", "out", "seconds", "width", "height", "fps")),
        ("look", look_at_desktop, ("config", "address", "out", "seconds")),
        ("count", count_pictures, ("config", "address", "out", "seconds", "title", "fps")),
        ("begin", begin_app, ("config", "address", "title")),
        ("listen", listen_to_desktop, ("config", "address", "out", "seconds", "command")),
        ("quit", quit_app, ("config", "address")),
    ):
        verb = verbs.add_parser(name)
        verb.set_defaults(function=function)
        for option in options:
            verb.add_argument(f"--{option}", required=True, type=NUMBERS.get(option, str))
    arguments = vars(parser.parse_args())
    function = arguments.pop("function")
    del arguments["verb"]
    print(json.dumps(function(**arguments)), flush=True)
    # The client's library keeps threads of its own; they have nothing left to do.
    sys.stdout.flush()
    os._exit(0)


NUMBERS = {"port": int, "deadline": float, "seconds": float, "width": int, "height": int, "fps": int}


def reach(address, port, deadline):
    """Waits until a port takes connections."""
    end = time.monotonic() + deadline
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return {"reached": True}
        if time.monotonic() > end:
            return {"reached": False}
        time.sleep(0.1)


def discover(config, deadline):
    """What multicast DNS tells, once read by itself and once by the client's own search."""
    names = set()

    class Listener:
        def add_service(self, zeroconf, kind, name):
            names.add(name)

        def update_service(self, *_):
            pass

        def remove_service(self, *_):
            pass

    zeroconf = Zeroconf(ip_version=IPVersion.All)
    browser = ServiceBrowser(zeroconf, SERVICE, Listener())
    end = time.monotonic() + deadline
    found, addresses = [], []
    # Addresses of both families may come in answers of their own.
    while time.monotonic() < end and not {4, 6} <= {ip_address(address).version for address in addresses}:
        infos = [info for info in (zeroconf.get_service_info(SERVICE, name, 1000) for name in sorted(names)) if info]
        found = [{"name": info.name, "server": info.server, "port": info.port, "addresses": info.parsed_addresses(),
                  "properties": sum(bool(key) for key in info.properties)} for info in infos]
        addresses = [address.split("%")[0] for service in found for address in service["addresses"]]
        time.sleep(0.05)
    browser.cancel()
    zeroconf.close()
    servers = MoonlightClient(config).discover(timeout=3.0)
    return {"services": found, "servers": [
        {"address": server.address, "hostname": server.hostname, "port": server.http_port} for server in servers]}


def connected(config, address):
    """A client that knows its host, as after a start of the app: paired or not, nothing is asked of a person."""
    client = MoonlightClient(config)
    server = connect_to_server(address, client._identity)
    client._server = server
    client._http = NvHTTP(address, client._identity, http_port=server.http_port, https_port=server.https_port)
    return client


def pair(config, address, pin):
    client = connected(config, address)
    began = time.monotonic()
    try:
        client.pair(client._server, pin=pin)
    except Exception as error:  # noqa: BLE001 - which one it is, is the answer
        return {"paired": False, "error": type(error).__name__, "text": str(error)}
    return {"paired": True, "seconds": time.monotonic() - began}


def over_tls(client, address, path):
    context = client._http._make_ssl_context()
    connection = http.client.HTTPSConnection(address, client._server.https_port, timeout=10, context=context)
    connection.request("GET", f"{path}uniqueid=0123456789ABCDEF&uuid=0")
    return connection.getresponse()


def info(config, address):
    """What the host says of itself: to this client, and to anybody who asks."""
    client = connected(config, address)
    stranger = http.client.HTTPConnection(address, client._server.http_port, timeout=10)
    stranger.request("GET", "/serverinfo")
    replies = {"own": over_tls(client, address, "/serverinfo?"), "stranger": stranger.getresponse()}
    return {who: dict(re.findall(r"<(\w+)>([^<]*)</", reply.read().decode())) for who, reply in replies.items()}


def apps(config, address, out):
    """The list and each app's picture, fetched over TLS with the client's own certificate."""
    client = connected(config, address)
    listed = []
    for app in client.apps():
        reply = over_tls(client, address, f"/appasset?appid={app.id}&AssetType=2&AssetIdx=0&")
        picture = Path(out) / f"art-{app.id}.png"
        picture.write_bytes(reply.read())
        with Image.open(picture) as image:
            image.load()
            size, form = image.size, image.format
        listed.append({"id": app.id, "name": app.name, "status": reply.status, "art": form, "size": size,
                       "type": reply.getheader("content-type")})
    return {"apps": listed}


class Stream:
    """A running stream of which every decoded picture and every packet of sound is seen once."""

    def __init__(self, client, app, look, mode=(WIDTH, HEIGHT, FPS), bitrate_kbps=5000):
        self.client, self.pictures, self.latest, self.ended = client, 0, None, None
        self.began = time.monotonic()
        self.first_picture_s = self.first_sound_s = None
        self._look = look
        original = manager_module.stream_frames

        # The numbers of the frames that the decoder was given, and how many of them before its first picture.
        self.given, self.kept = [], 0

        def watched(session, decoder):
            pull = session.pull_frame

            def counted():
                raw = pull()
                if raw is not None:
                    self.given.append(raw.frame_number)
                return raw

            session.pull_frame = counted
            for frame in original(session, decoder):
                if self.first_picture_s is None:
                    self.first_picture_s = time.monotonic() - self.began
                    self.kept = len(self.given) - 1
                self.pictures += 1
                self.latest = frame.data
                look(frame)
                yield frame

        manager_module.stream_frames = watched
        self.mode = mode
        client.start_stream(app=app, width=mode[0], height=mode[1], fps=mode[2], bitrate_kbps=bitrate_kbps,
                            codec="h264")
        self.sound = client._stream_manager.subscribe_audio()
        self.packets = []
        session = client._session
        session._ffi.cdef("""
            int LiSendKeyboardEvent(short keyCode, char keyAction, char modifiers);
            int LiSendUtf8TextEvent(const char *text, unsigned int length);
            int LiSendMousePositionEvent(short x, short y, short referenceWidth, short referenceHeight);
        """)
        self._library = session._lib

    def run(self, seconds, until=None):
        """Goes on for a time, until the question is answered, or until the host ends it; collects sound meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            packet = self.sound.get(timeout=0.05)
            if packet is not None:
                if self.first_sound_s is None:
                    self.first_sound_s = packet.receive_time_us / 1e6 - self.began
                self.packets.append((packet.frame_index, packet.receive_time_us, packet.data))
            if self.client._session.is_terminated:
                self.ended = self.client._session.termination_error
                return False
            if until and until():
                return True
        return False

    def type_keys(self, text):
        """Presses the keys of a text, at the pace of a hurried typist."""
        for character in text:
            key, shift = keyboard.key_for(character)
            strokes = [(key, 3), (key, 4)]
            if shift:
                strokes = [(keyboard.SHIFT, 3), *strokes, (keyboard.SHIFT, 4)]
            for code, action in strokes:
                held = 1 if shift and code == key else 0
                # The high bit says that the code is a virtual key; the parameter is a signed short.
                status = self._library.LiSendKeyboardEvent(code - 0x8000, bytes([action]), bytes([held]))
                assert status == 0, f"the client could not send a key: {status}"
            self.run(0.02)

    def send_text(self, text):
        data = text.encode()
        status = self._library.LiSendUtf8TextEvent(data, len(data))
        assert status == 0, f"the client could not send text: {status}"

    def move_mouse(self, x, y):
        status = self._library.LiSendMousePositionEvent(x, y, WIDTH, HEIGHT)
        assert status == 0, f"the client could not move the pointer: {status}"

    def nudge_mouse(self, x, y):
        status = self._library.LiSendMouseMoveEvent(x, y)
        assert status == 0, f"the client could not move the pointer: {status}"

    def save(self, path):
        Image.fromarray(self.latest[:, :, ::-1]).save(path)

    def stop(self):
        self.client.stop_stream()

    def summary(self):
        lost = self.client._session.audio_loss_stats if self.client._session else {}
        return {"pictures": self.pictures, "first_picture_s": self.first_picture_s,
                "first_sound_s": self.first_sound_s, "sound_lost": lost, "ran_s": time.monotonic() - self.began, "ended": self.ended}


def play_card(config, address, out, seconds, fps):
    """Plays the Test card and writes down, for each picture, what it says of itself and when it was seen."""
    seen = []

    def look(frame):
        now_us = time.monotonic_ns() // 1000
        code = card.read(frame.data)
        seen.append({"at_us": now_us, "frame": code and code.frame, "time_us": code and code.time_us,
                     "flash": card.flashes(frame.data), "mean": float(frame.data[::8, ::8].mean())})

    stream = Stream(connected(config, address), "Test card", look, (WIDTH, HEIGHT, fps))
    stream.run(seconds)
    stream.save(Path(out) / "picture.png")
    summary = stream.summary()
    stream.stop()
    (Path(out) / "seen.json").write_text(json.dumps(seen))
    save_sound(out, stream.packets)
    return summary


def save_sound(out, packets, name="sound.npz"):
    """The sound as it was decoded, one packet a row, with its place in the stream and its time of arrival."""
    whole = [packet for packet in packets if packet[2].shape == packets[0][2].shape] if packets else []
    np.savez(Path(out) / name, index=np.array([p[0] for p in whole], dtype=np.int64),
             at_us=np.array([p[1] for p in whole], dtype=np.int64),
             samples=np.stack([p[2] for p in whole]) if whole else np.zeros((0, 240, 2), dtype=np.float32))


def measure(config, address, seconds, width, height, fps):
    """Plays the Test card in some mode and looks at no picture, so that the client costs as little as it can."""
    stream = Stream(connected(config, address), "Test card", lambda frame: None, (width, height, fps), 10_000)
    stream.run(seconds)
    summary = stream.summary()
    stream.stop()
    return summary


def glance_at_card(config, address, out, seconds, width, height, fps):
    """Plays the Test card, in a mode that may be too small for its numbers, until it was seen to move, and keeps the
    last picture."""
    first, moved = [], []

    def look(frame):
        small = card.luma(frame.data)
        first[:] = first or [small]
        moved.append(float((np.abs(small - first[0]) > 40).mean()))

    stream = Stream(connected(config, address), "Test card", look, (width, height, fps), 2000)
    stream.run(seconds, lambda: stream.pictures >= 20 and max(moved) > 0.001)
    stream.save(Path(out) / "card.png")
    summary = stream.summary() | {"moved": max(moved, default=0.0)}
    stream.stop()
    return summary


def watch_card(config, address, out, seconds, width, height, fps):
    """Plays the Test card until a file `enough` lies in the folder, and reads the number of each picture. `first` is made
    with the first of them; what is told are the numbers as the pictures showed them, and those of the frames as they came:
    one that is missing among the latter was lost after it was encoded."""
    shown, out = [], Path(out)

    def look(frame):
        code = card.read(frame.data)
        if code and not shown:
            (out / "first").touch()
        shown.append(code and code.frame)

    stream = Stream(connected(config, address), "Test card", look, (width, height, fps), 2000)
    stream.run(seconds, (out / "enough").exists)
    stream.save(out / "card.png")
    summary = stream.summary() | {"shown": shown, "given": stream.given[stream.kept:]}
    stream.stop()
    return summary


def share_of(picture, colour):
    """How much of a picture has a colour, 0 to 1; video rounds colours, so near is enough."""
    if picture is None:
        return 0.0
    rgb = picture[::4, ::4, ::-1].astype(np.int16)
    return float((np.abs(rgb - np.array(colour)).max(axis=2) < 40).mean())


def play_desktop(config, address, out, seconds):
    """Plays the Desktop: watches it move, types a command key by key, sends another as text, moves the pointer."""
    out = Path(out)
    changes, last = [], []

    def look(frame):
        small = card.luma(frame.data[::8, ::8])
        if last:
            changes.append(float((np.abs(small - last[0]) > 12).mean()))
        last[:] = [small]

    stream = Stream(connected(config, address), "Desktop", look)
    began = time.monotonic()
    stream.run(4.0)
    stream.save(out / "before.png")
    idle = list(changes)
    before = share_of(stream.latest, KEYED_COLOUR)
    stream.type_keys(PAINT.format(*KEYED_COLOUR))
    keyed = stream.run(10, lambda: share_of(stream.latest, KEYED_COLOUR) > 0.1)
    stream.save(out / "typed.png")
    shares = {"before": before, "keyed": share_of(stream.latest, KEYED_COLOUR)}
    stream.send_text(PAINT.format(*SENT_COLOUR).strip())
    stream.type_keys("\n")
    sent = stream.run(10, lambda: share_of(stream.latest, SENT_COLOUR) > 0.1)
    stream.save(out / "sent.png")
    shares["sent"] = share_of(stream.latest, SENT_COLOUR)
    for step in range(20):
        stream.move_mouse(WIDTH * step // 20, HEIGHT // 2)
        stream.nudge_mouse(3, -2)
        stream.run(0.02)
    stream.run(max(0.5, seconds - (time.monotonic() - began)))
    stream.save(out / "picture.png")
    summary = stream.summary()
    stream.stop()
    return summary | {"moving": float(np.mean(np.array(idle) > 0.0005)) if idle else 0.0, "keyed": keyed,
                      "sent": sent, "shares": shares}


def look_at_desktop(config, address, out, seconds):
    """Plays the Desktop without touching it: is it still as it was left?"""
    stream = Stream(connected(config, address), "Desktop", lambda frame: None)
    still = stream.run(seconds, lambda: share_of(stream.latest, SENT_COLOUR) > 0.1)
    stream.save(Path(out) / "picture.png")
    summary = stream.summary()
    stream.stop()
    return summary | {"still": still}


def count_pictures(config, address, out, seconds, title, fps):
    """Plays an app whose pictures do not say which they are, and writes down which frames the decoder made pictures of:
    it keeps a few to itself, as many at the end as at the beginning, and of each that it is given it makes one."""
    stream = Stream(connected(config, address), title, lambda frame: None, (WIDTH, HEIGHT, fps))
    stream.run(seconds)
    stream.save(Path(out) / "picture.png")
    pictures, given = stream.pictures, len(stream.given)
    summary = stream.summary() | {"kept": stream.kept, "undecoded": given - pictures - stream.kept}
    stream.stop()
    (Path(out) / "seen.json").write_text(json.dumps([{"number": number} for number in stream.given[:pictures]]))
    return summary


def begin_app(config, address, title):
    """Starts an app, sees one picture of it and leaves; the app goes on."""
    stream = Stream(connected(config, address), title, lambda frame: None)
    stream.run(30.0, lambda: stream.pictures > 0)
    summary = stream.summary()
    stream.stop()
    return summary


def listen_to_desktop(config, address, out, seconds, command):
    """Sends a command to the Desktop's shell, and keeps what was heard before it and after."""
    stream = Stream(connected(config, address), "Desktop", lambda frame: None)
    stream.run(2.0)
    save_sound(out, stream.packets, "before.npz")
    stream.packets = []
    stream.send_text(command)
    stream.type_keys("\n")
    stream.run(seconds)
    save_sound(out, stream.packets)
    summary = stream.summary()
    stream.stop()
    return summary


def quit_app(config, address):
    connected(config, address).quit_app()
    return {"quit": True}


if __name__ == "__main__":
    main()
