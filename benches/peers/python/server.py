"""Echo on websockets, and "broadcast X" to everyone who asked for /all.

python server.py 9001
"""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

everyone = set()


async def connection(socket):
    to_all = socket.request.path == "/all"
    if to_all:
        everyone.add(socket)
    try:
        async for message in socket:
            if to_all and message.startswith("broadcast "):
                broadcast(everyone, message[10:])
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    finally:
        everyone.discard(socket)


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9001
    options = {"compression": None, "ping_interval": None, "backlog": 4096, "max_size": 2**26}
    async with serve(connection, "127.0.0.1", port, **options) as server:
        await server.serve_forever()


asyncio.run(main())
