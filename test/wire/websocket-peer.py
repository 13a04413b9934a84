"""The other side of a WebSocket in a foreign implementation (Debian's python3-websockets).

serve                        echoes every message; prints its port
visit URL ORIGIN COUNT       sends COUNT messages with the cookie in $COOKIE, and prints a digest of what came back
"""

import asyncio
import hashlib
import json
import os
import random
import sys

import websockets

SIZES = [0, 1, 2, 125, 126, 127, 128, 1000, 4095]
LARGE = [65535, 65536, 65537, 131072]


async def serve():
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def messages(count):
    source = random.Random(20261120)
    for n in range(count):
        size = LARGE[n // 40 % 4] if n % 40 == 0 else source.choice(SIZES)
        data = source.randbytes(size)
        # Text in two-byte characters, now and then.
        yield data.decode("latin-1") if n % 2 else data


def pieces(message):
    third = len(message) // 3
    return [message[:third], message[third : 2 * third], message[2 * third :]]


async def visit(url, origin, count):
    headers = {"Cookie": os.environ["COOKIE"]} if os.environ.get("COOKIE") else {}
    digest = hashlib.sha256()
    async with websockets.connect(url, origin=origin, extra_headers=headers, max_size=None) as socket:

        async def send():
            for n, message in enumerate(messages(count)):
                await socket.send(pieces(message) if n % 7 == 0 else message)
                if n % 500 == 0:
                    await (await socket.ping())

        sending = asyncio.create_task(send())
        same = 0
        for message in messages(count):
            echo = await socket.recv()
            same += echo == message
            data = echo.encode() if isinstance(echo, str) else echo
            digest.update(len(data).to_bytes(8, "big") + type(echo).__name__.encode() + data)
        await sending
    print(json.dumps({"same": same, "digest": digest.hexdigest(), "code": socket.close_code}))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    asyncio.run(serve() if what == "serve" else visit(rest[0], rest[1], int(rest[2])))
