"""Clients of an echo server for scripts/systemd-container: each asks again and again and checks
each answer, until TERM. Then one line says how it went.

    clients.py URL COUNT
"""

import asyncio
import collections
import signal
import sys
import time

import websockets


class Tally:
    def __init__(self):
        self.answers = 0
        self.longest = 0.0
        self.ends = collections.Counter()


async def live(url, name, tally, leave):
    async with websockets.connect(url, ping_interval=None) as client:
        number = 0
        try:
            while not leave.is_set():
                number += 1
                asked, question = time.monotonic(), f"{name} {number}"
                await client.send(question)
                answer = await asyncio.wait_for(client.recv(), 30)
                if answer != question:
                    tally.ends[f"asked {question!r}, was answered {answer!r}"] += 1
                    return
                tally.answers += 1
                tally.longest = max(tally.longest, time.monotonic() - asked)
                await asyncio.sleep(0.02)
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            tally.ends[f"closed with {code}"] += 1
        except asyncio.TimeoutError:
            tally.ends["no answer in 30 s"] += 1


async def main(url, count):
    tally, leave = Tally(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    clients = [asyncio.create_task(live(url, name, tally, leave)) for name in range(count)]
    print("connecting", flush=True)
    await asyncio.gather(*clients)
    ends = ", ".join(f"{how}: {many}" for how, many in tally.ends.items()) or "none ended early"
    print(f"{count} clients, {tally.answers} answers, the slowest after "
          f"{tally.longest * 1000:.0f} ms; {ends}", flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
