"""Who knows what time it is: a server of NTP (RFC 5905, section 7.3) for the machines of a test.

    timekeeper.py ADDRESS
"""

import socket
import struct
import sys
import time

# Seconds from 1900 to 1970, which is where NTP and Unix begin to count.
ERA_S = 2_208_988_800
HEADER = struct.Struct("!BBbbII4sQ8sQQ")


def stamp() -> int:
    return int((time.time() + ERA_S) * (1 << 32)) % (1 << 64)


def answer(question: bytes) -> bytes | None:
    """What a server says to a client that asked so; nothing to whoever is none."""
    if len(question) < HEADER.size or question[0] & 7 != 3:
        return None
    now = stamp()
    version, poll = question[0] >> 3 & 7, question[2]
    # No leap second, the client's version, mode 4: a server whose clock is exact.
    return HEADER.pack(version << 3 | 4, 1, poll, -20, 0, 0, b"TEST", now, question[40:48], now, now)


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((sys.argv[1], 123))
        while True:
            question, who = server.recvfrom(1024)
            if said := answer(question):
                server.sendto(said, who)


if __name__ == "__main__":
    main()
