"""Lets a client that only knows TCP talk to the host's local socket: python api_relay.py SOCKET.

Prints the port it listens on, on loopback of the namespace it runs in, and ends when its input does. Bytes go through as
they are, with one exception: a stream of events, which never ends, is ended in good order after half a second. And it
keeps the pairing desk moving, so that whoever waits for news gets some.
"""

import asyncio
import sys

STREAM_S = 0.2
NUDGE_S = 0.3
MAX_HEAD = 64 * 1024


async def main(path):
    async def relay(reader, writer):
        try:
            upstream_reader, upstream_writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            print(f"the host's socket: {error}", file=sys.stderr, flush=True)
            writer.close()
            return
        asking = asyncio.create_task(pump(reader, upstream_writer))
        try:
            await answer(upstream_reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            print(f"an answer broke off: {error}", file=sys.stderr, flush=True)
        finally:
            asking.cancel()
            upstream_writer.close()
            writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    nudging = asyncio.create_task(nudge(path))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    nudging.cancel()
    server.close()


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # The other side has heard enough.


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(head)
    if b"text/event-stream" not in head.lower():
        await pump(reader, writer)
        return
    try:
        async with asyncio.timeout(STREAM_S):
            while chunk := await one_chunk(reader):
                writer.write(chunk)
    except TimeoutError:
        pass
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def one_chunk(reader):
    size = await reader.readuntil(b"\r\n")
    if (length := int(size, 16)) == 0:
        return None
    return size + await reader.readexactly(length + 2)


async def nudge(path):
    while True:
        for verb in ("arm", "disarm"):
            reader, writer = await asyncio.open_unix_connection(path)
            # Without the second header the answer would end with the connection, which the host keeps for a while.
            writer.write(f"POST /api/v1/pairing/{verb} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         "Content-Length: 0\r\n\r\n".encode())
            await reader.read()
            writer.close()
            await asyncio.sleep(NUDGE_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
