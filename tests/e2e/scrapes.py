"""Asks for the metrics on 1,000 connections at once, again and again.

    scrapes.py ADDRESS TOKEN SECONDS

A process of its own, behind all others for the processor: what a load of so many takes of the
tester is nothing that a client of the server notices. Prints how many answers were whole, how many
were asked for, and how long the longest round took, in milliseconds.
"""

import asyncio
import os
import sys
import time

AT_ONCE = 1_000


async def scrape(host, port, request):
    while True:
        try:
            return await ask(host, port, request)
        except (asyncio.IncompleteReadError, ConnectionError) as cut:
            # Where places are few, a connection that has not asked yet gives its own to another.
            if getattr(cut, "partial", b""):
                raise


async def ask(host, port, request):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    body = await reader.readexactly(int(fields[b"content-length"]))
    writer.close()
    return head.startswith(b"HTTP/1.1 200 ") and b"wsd_opened_total" in body


async def main(address, token, seconds):
    os.nice(19)
    host, port = address.rsplit(":", 1)
    lines = ("GET /metrics HTTP/1.1", "Host: api", f"Authorization: Bearer {token}", "", "")
    request = "\r\n".join(lines).encode()
    end, whole, asked, longest = time.monotonic() + seconds, 0, 0, 0.0
    while time.monotonic() < end:
        began = time.monotonic()
        whole += sum(await asyncio.gather(*(scrape(host, port, request) for _ in range(AT_ONCE))))
        asked += AT_ONCE
        longest = max(longest, time.monotonic() - began)
    print(whole, asked, round(longest * 1000))


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
