"""The client of wsd's app protocol for asyncio: as wsd_app, with handlers that may wait.

    from wsd_asyncio import App
    app = App()

    @app.on("message")
    async def message(app, fd, data, opcode):
        await app.join(fd, "lobby")
        app.publish("lobby", data, opcode)

    app.run()

Handlers: start(app), handshake(app, request) -> None | Refuse | Accept, open(app, request),
message(app, fd, data, opcode), close(app, fd, code, reason, by, cause), attach(app, request),
pipe(app, worker, tag, data), presence(app, room, uid, joined, info), stop(app); plain or async.
Events of one client are handled one after the other, those of several clients at the same time.
What asks the worker is awaited; what only tells is not. Plain HTTP is wsd_app's.
"""

import asyncio
import inspect
import json
import os
import socket
import struct
import sys
import traceback

from wsd_app import (
    ACCEPT, ATTACH, BIND, BROADCAST, CLOSE, CLOSE_USER, DISCONNECT, DONE, END, EXPIRE, HEADER, INFO,
    JOIN, HERE, KEEP, LEAVE, MEMBERS, MESSAGE, OPEN, PIPE, PLACE, PRESENCE, PUBLISH, PUSH, READY,
    REFUSE, REQUEST, RESPONSE, SEND, SESSION, SHUTDOWN, TAKEN, TALLY, UNTAKEN, VERDICT, VERDICTS,
    VERSION, WANTS, WANTS_HAD, WANTS_PRESENCE, Accept, Refuse, Request, _end, _is_text, _presence,
    _topics, check_event, fields, frame, moment, string, user)


class App:
    EVENTS = ("start", "handshake", "open", "message", "close", "attach", "pipe", "presence",
              "stop")

    def __init__(self):
        self.handlers, self.facts = {}, {}
        self._asked, self._answers, self._turns, self._tasks = 0, {}, {}, set()
        self._ending, self._gone, self._deciding, self._had = None, False, set(), {}

    def on(self, name):
        check_event(name, self.EVENTS)

        def keep(handler):
            self.handlers[name] = handler
            return handler
        return keep

    # What only tells.

    def push(self, fd, data, opcode=1):
        self._send(PUSH, code=opcode, fd=fd, payload=data)

    def broadcast(self, data, opcode=1, but=0):
        self._send(BROADCAST, code=opcode, fd=but, payload=data)

    def close(self, fd, code=1000, reason=""):
        self._send(DISCONNECT, code=code, fd=fd, payload=reason.encode())

    def keep(self, fd, data):
        self._send(KEEP, fd=fd, payload=data)

    def publish(self, rooms, data, opcode=1, but=0):
        self._send(PUBLISH, code=opcode, fd=but, payload=_topics("#", rooms) + data)

    def publish_here(self, room, data, opcode=1):
        self._send(PUBLISH, flags=HERE, code=opcode, payload=_topics("#", room) + data)

    def push_uid(self, uid, data, opcode=1):
        self._send(PUBLISH, code=opcode, payload=_topics("@", user(uid)) + data)

    # What asks.

    async def push_confirmed(self, fd, data, opcode=1):
        if fd in self._deciding:
            # The verdict would come after the handshake, which waits for this handler.
            if opcode == 1 and not _is_text(data):
                return "invalid_text"
            self.push(fd, data, opcode)
            return "relayed"
        return VERDICTS[(await self._ask(PUSH, flags=1, code=opcode, fd=fd, payload=data))[1]]

    async def join(self, fd, room, info=None):
        extra = b"" if info is None else json.dumps(info).encode()
        return await self._change(JOIN, fd, string(room.encode()) + extra)

    async def leave(self, fd, room):
        return await self._change(LEAVE, fd, room.encode())

    async def bind(self, fd, uid):
        return await self._change(BIND, fd, user(uid).encode())

    async def unbind(self, fd):
        return await self._change(BIND, fd, b"")

    async def expire_at(self, fd, time):
        return await self._change(EXPIRE, fd, moment(time))

    async def set_session(self, fd, value):
        payload = b"" if value is None else json.dumps(value).encode()
        return await self._change(SESSION, fd, payload)

    async def session(self, fd):
        kept = (await self._known(fd)).get("session")
        return None if kept is None else json.loads(kept)

    async def rooms(self, fd):
        """The rooms of a client."""
        return (await self._known(fd)).get("rooms", [])

    async def uid(self, fd):
        """The user of a client; None where it is nobody's."""
        return (await self._known(fd)).get("uid")

    async def _known(self, fd):
        """What is known of a client, and at its end what it had."""
        return self._had[fd] if fd in self._had else await self.info(fd) or {}

    async def info(self, fd):
        _, code, payload = await self._ask(INFO, fd=fd)
        return json.loads(payload) if code else None

    async def publish_confirmed(self, rooms, data, opcode=1, but=0):
        return await self._tally(_topics("#", rooms), data, opcode, but)

    async def push_uid_confirmed(self, uid, data, opcode=1):
        return await self._tally(_topics("@", user(uid)), data, opcode, 0)

    async def close_uid(self, uid, code=1000, reason=""):
        payload = string(user(uid).encode()) + reason.encode()
        return VERDICTS[(await self._ask(CLOSE_USER, flags=1, code=code, payload=payload))[1]]

    async def members(self, room):
        return json.loads((await self._ask(MEMBERS, payload=f"#{room}".encode()))[2] or b"[]")

    async def connections_of(self, uid):
        return json.loads((await self._ask(MEMBERS, payload=f"@{uid}".encode()))[2] or b"[]")

    async def send(self, worker, data, tag=0):
        answer = await self._ask(SEND, flags=1, code=worker, fd=tag, payload=data)
        return VERDICTS[answer[1]] in ("queued", "relayed")

    async def _change(self, kind, fd, payload):
        verdict = VERDICTS[(await self._ask(kind, flags=1, fd=fd, payload=payload))[1]]
        if verdict not in ("queued", "relayed", "gone"):
            print(f"wsd: a change of {fd} was refused: {verdict}", file=sys.stderr, flush=True)
        return verdict in ("queued", "relayed")

    async def _tally(self, topics, data, opcode, but):
        kind, code, payload = await self._ask(PUBLISH, flags=1, code=opcode, fd=but,
                                              payload=topics + data)
        if kind != TALLY:
            raise ValueError(f"nothing was published: {VERDICTS[code]}")
        return json.loads(payload)

    async def _ask(self, kind, **rest):
        if self._gone:
            raise ConnectionError("the worker is gone")
        self._asked = self._asked % 0xFFFFFFFF + 1
        answer = self._answers[self._asked] = asyncio.get_running_loop().create_future()
        self._send(kind, id=self._asked, **rest)
        return await answer

    # The loop.

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        worker = socket.socket(fileno=int(os.environ["WSD_APP_FD"]))
        reader, self._writer = await asyncio.open_unix_connection(sock=worker)
        self.facts = json.loads((await self._read(reader))[-1])
        self._ending = asyncio.Event()
        # To the end, since what still runs then, and `stop` itself, may ask something.
        listening = asyncio.ensure_future(self._listen(reader))
        if not self.facts.get("spare"):
            await self._call("start")
        wants = 0
        for name, bits in WANTS.items():
            wants |= bits if name in self.handlers else 0
        # CLOSE ends a client's turn.
        more = WANTS_PRESENCE if "presence" in self.handlers else 0
        more |= WANTS_HAD if "close" in self.handlers else 0
        self._send(READY, flags=wants | WANTS["close"], code=VERSION, fd=more)
        try:
            await self._ending.wait()
            while self._tasks:
                await asyncio.gather(*self._tasks)
            await self._call("stop")
        finally:
            # What came and could not be taken in.
            failed = listening.done() and not listening.cancelled() and listening.exception()
            listening.cancel()
            self._send(END, flags=UNTAKEN if failed else 0, code=1 if failed else 0)
            await self._writer.drain()

    async def _listen(self, reader):
        """Takes what comes until the worker is gone: then nothing is answered any more."""
        try:
            while (got := await self._read(reader)) is not None:
                if got[0] == SHUTDOWN:
                    self._ending.set()
                else:
                    self._take(got)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            raise
        finally:
            self._gone = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the worker is gone"))
            self._ending.set()

    def _take(self, got):
        kind, _, code, id, fd, payload = got
        if kind >= VERDICT and not TAKEN <= kind <= PLACE:
            answer = self._answers.pop(id, None)
            if answer and not answer.done():
                answer.set_result((kind, code, payload))
        elif kind == PLACE:
            self.facts.update(json.loads(payload))
            self._begin(0, self._call("start"))
        elif kind < VERDICT:
            # Those who come and leave stay in their order, as a client's events do.
            self._begin("presence" if kind == PRESENCE else fd, self._event(*got))

    def _begin(self, fd, event):
        """Behind what its client's last event still does."""
        before = self._turns.get(fd) if fd else None
        task = asyncio.ensure_future(self._behind(before, event))
        self._tasks.add(task)
        if fd:
            self._turns[fd] = task
        task.add_done_callback(lambda done: self._ended(fd, done))

    def _ended(self, fd, task):
        self._tasks.discard(task)
        if self._turns.get(fd) is task:
            del self._turns[fd]

    async def _behind(self, before, event):
        if before:
            await asyncio.wait([before])
        await event

    async def _event(self, kind, flags, code, id, fd, payload):
        try:
            if kind == OPEN:
                await self._open(flags, id, Request.read(fd, payload))
            elif kind == MESSAGE:
                await self._call("message", fd, payload, code)
            elif kind == ATTACH:
                await self._call("attach", Request.read(fd, payload))
            elif kind == PIPE:
                await self._call("pipe", code, fd, payload)
            elif kind == PRESENCE:
                await self._call("presence", *_presence(code, payload))
            elif kind == CLOSE:
                cause, self._had[fd], reason = _end(flags, payload)
                by = ("nobody", "client", "server")[flags & 3]
                try:
                    await self._call("close", fd, code, reason, by, cause)
                finally:
                    del self._had[fd]
            elif kind == REQUEST:
                # Plain HTTP is wsd_app's: the server answers for itself here.
                self._send(RESPONSE, id=id, payload=fields([]))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if fd and kind in (OPEN, MESSAGE, ATTACH):
                self.close(fd, 1011, "the handler failed")
        if id:
            self._send(DONE, id=id)
        await self._writer.drain()

    async def _open(self, flags, id, request):
        if flags & 1:
            self._deciding.add(request.fd)
            try:
                answer = await self._call("handshake", request) or Accept()
            except Exception:
                traceback.print_exc(file=sys.stderr)
                answer = Refuse(500)
            self._deciding.discard(request.fd)
            if isinstance(answer, Refuse):
                body = fields(answer.fields) + answer.body
                return self._send(REFUSE, code=answer.status, id=id, fd=request.fd, payload=body)
            body = string(answer.subprotocol.encode()) + fields(answer.fields)
            self._send(ACCEPT, id=id, fd=request.fd, payload=body)
        await self._call("open", request)

    async def _call(self, name, *arguments):
        handler = self.handlers.get(name)
        done = handler(self, *arguments) if handler else None
        return await done if inspect.isawaitable(done) else done

    async def _read(self, reader):
        try:
            length, *head = HEADER.unpack(await reader.readexactly(HEADER.size))
            return (*head, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def _send(self, kind, **rest):
        self._writer.write(frame(kind, **rest))
