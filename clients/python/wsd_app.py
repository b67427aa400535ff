"""A small client of wsd's app protocol (docs/app-protocol.md). Standard library only.

    from wsd_app import App
    app = App()

    @app.on("message")
    def message(app, fd, data, opcode):
        app.push(fd, data, opcode)

    app.run()

Handlers: start(app), handshake(app, request) -> None | Refuse | Accept, open(app, request),
message(app, fd, data, opcode), close(app, fd, code, reason, by, cause),
request(app, request) -> Response | None, attach(app, request), tick(app),
pipe(app, worker, tag, data), presence(app, room, uid, joined, info), stop(app). Data are bytes;
opcode is 1 for text, 2 for binary. In close, uid(fd), rooms(fd) and session(fd) answer still what
the client had.
"""

import json
import os
import socket
import struct
import sys
import traceback
from collections import deque
from dataclasses import dataclass, field

VERSION = 2
HEADER = struct.Struct("<IBBHIQ")
U32 = struct.Struct("<I")

HELLO, OPEN, MESSAGE, CLOSE, REQUEST, ATTACH, TICK, PIPE, SHUTDOWN, PRESENCE = range(1, 11)
(READY, DONE, PUSH, BROADCAST, DISCONNECT, ACCEPT, REFUSE, RESPONSE, INFO, EXISTS, LIST, KEEP,
 EVERY, SEND, STATS, END, BODY, READ, JOIN, LEAVE, BIND, SESSION, PUBLISH, MEMBERS,
 PROTECT, CLOSE_USER, EXPIRE) = range(32, 59)
VERDICT = 64
TAKEN, NOTE, PLACE, PART, TALLY = 69, 70, 71, 72, 73
MORE, FILE, LATER, HELD, HERE, UNTAKEN, HAD = 1, 2, 2, 1, 2, 1, 8
VERDICTS = ("queued", "relayed", "full", "gone", "too_big", "unknown", "invalid_text",
            "invalid", "no_user", "local_only")
WANTS = {"handshake": 3, "open": 2, "message": 4, "close": 8, "request": 16, "attach": 32}
IN_ORDER, WANTS_PRESENCE, WANTS_HAD = 64, 1, 4
# Of one publish.
TOPICS_MAX = 128


def frame(kind, flags=0, code=0, id=0, fd=0, payload=b""):
    return HEADER.pack(len(payload), kind, flags, code, id, fd) + payload


def string(data):
    return U32.pack(len(data)) + data


def check_event(name, events):
    """A handler that is never called would be missed late: one of `handshake` lets nobody wait."""
    if name not in events:
        raise ValueError(f"there is no event {name!r} here, only {', '.join(events)}")


def user(uid):
    """The text of a uid; None and "" are nobody's."""
    if uid is None or uid == "":
        raise TypeError("a uid has at least one byte")
    return str(uid)


def moment(time):
    """The payload of EXPIRE: a time that is over is at once, None is never."""
    return struct.pack("<Q", 0 if time is None else max(1, int(time * 1000)))


def _topics(kind, names):
    names = [names] if isinstance(names, str) else list(names)
    if not 1 <= len(names) <= TOPICS_MAX:
        raise ValueError(f"name 1 to {TOPICS_MAX} rooms")
    return U32.pack(len(names)) + b"".join(string((kind + name).encode()) for name in names)


def _end(flags, payload):
    """What CLOSE says: the cause, what the client had, and the reason."""
    cause, at = take(payload, 0)
    had = b"{}"
    if flags & HAD:
        had, at = take(payload, at)
    return cause.decode(), json.loads(had), payload[at:].decode()


def _presence(code, payload):
    room, at = take(payload, 0)
    uid, at = take(payload, at)
    return room.decode(), uid.decode(), code == 1, json.loads(payload[at:] or b"null")


def fields(pairs):
    return U32.pack(len(pairs)) + b"".join(
        string(name.encode()) + string(value.encode()) for name, value in pairs)


def _is_text(data):
    try:
        return data.isascii() or bool(data.decode() or True)
    except UnicodeDecodeError:
        return False


def take(data, at):
    (length,) = U32.unpack_from(data, at)
    end = at + 4 + length
    return data[at + 4:end], end


@dataclass
class Request:
    fd: int
    method: str
    target: str
    subprotocol: str
    peer: str
    client: str
    local: str
    version: str
    fields: list
    content: bytes
    reply: "Reply" = None
    held: "callable" = None

    @property
    def body(self):
        """All of it. A long body is read from the worker, see `parts`."""
        return b"".join(self.parts())

    def parts(self):
        """The body in parts of at most 256 KiB, of which only one is in memory."""
        if self.held is None:
            yield self.content
            return
        (length,), at = struct.unpack("<Q", self.content), 0
        while at < length:
            part = self.held(at)
            if not part:
                raise EOFError("the body is gone: its request was answered")
            at += len(part)
            yield part

    @classmethod
    def read(cls, fd, payload):
        texts, at = [], 0
        for _ in range(7):
            text, at = take(payload, at)
            texts.append(text.decode("utf-8", "surrogateescape"))
        (count,) = U32.unpack_from(payload, at)
        at += 4
        pairs = []
        for _ in range(count):
            name, at = take(payload, at)
            value, at = take(payload, at)
            pairs.append((name.decode(), value.decode("utf-8", "surrogateescape")))
        return cls(fd, *texts, pairs, payload[at:])

    def header(self, name):
        return next((value for key, value in self.fields if key == name.lower()), None)


@dataclass
class Accept:
    subprotocol: str = ""
    fields: list = field(default_factory=list)


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    fields: list = field(default_factory=list)


Refuse = Response


class Reply:
    """The answer to one plain HTTP request, `request.reply`: in parts that leave at once, as a
    file, or later, for as long as it is not ended. `later()` says that the answer comes after
    the handler has returned."""

    PART = 256 << 10

    def __init__(self, app, id):
        self.app, self.id = app, id
        self.open, self.begun, self.gone, self.kept, self.unread = True, False, False, False, 0

    def begin(self, status=200, fields_=()):
        if not self.open or self.begun or self.gone:
            return False
        self.begun = True
        self.app._send(RESPONSE, flags=MORE, code=status, id=self.id, payload=fields(fields_))
        return True

    def write(self, data):
        """Sends a part now, and waits while the client is slow. False when the client is gone."""
        if not self.begun and not self.begin():
            return False
        for at in range(0, len(data), self.PART):
            part = data[at:at + self.PART]
            while self.unread and self.unread + len(part) > self.app.facts["body_window"]:
                if self.gone or not self.app._await():
                    self.gone = True
                    break
            if self.gone or not self.open:
                break
            self.unread += len(part)
            self.app._send(BODY, flags=MORE, id=self.id, payload=part)
        return self.open and not self.gone

    def end(self, data=b""):
        if not self.begun:
            return self.send(Response(200, data))
        there = self.write(data)
        return self._close(BODY) and there

    def send(self, response):
        if not self.open or self.begun:
            return False
        if len(response.body) > self.PART:
            length = ("content-length", str(len(response.body)))
            return self.begin(response.status, [*response.fields, length]) \
                and self.end(response.body)
        payload = fields(response.fields) + response.body
        return self._close(RESPONSE, code=response.status, payload=payload)

    def file(self, file, offset, length, status=200, fields_=()):
        """Sends a range of an open file: the worker reads it by its descriptor."""
        payload = struct.pack("<QQ", offset, length) + fields(fields_)
        head = frame(RESPONSE, flags=FILE, code=status, id=self.id, payload=payload)
        sent = socket.send_fds(self.app._socket, [head], [file.fileno()])
        self.app._socket.sendall(head[sent:])
        self.open = False
        return True

    def later(self):
        self.kept = True
        return self

    def _fail(self):
        if self.open and self.begun:
            self._close(BODY, code=1)
        elif self.open:
            self.send(Response(500))

    def _close(self, kind, **rest):
        if not self.open:
            return False
        self.app._send(kind, id=self.id, **rest)
        self.open = False
        self.app._replies.pop(self.id, None)
        return True


class App:
    EVENTS = ("start", "handshake", "open", "message", "close", "request", "attach", "tick", "pipe",
              "note", "presence", "stop")

    def __init__(self):
        self.handlers, self.facts = {}, {}
        self._socket, self._input = None, bytearray()
        self._backlog, self._asked, self._replies, self._room = deque(), 0, {}, {}
        self._deciding, self._had = None, (0, {})

    def on(self, name):
        check_event(name, self.EVENTS)

        def keep(handler):
            self.handlers[name] = handler
            return handler
        return keep

    # Commands.

    def push(self, fd, data, opcode=1):
        """Whether the message was queued, or relayed to the client's process. A client of this
        process is not asked about while there is room for it."""
        left = self._room.get(fd, -1) - len(data)
        # What the worker would refuse is asked about.
        if left < 0 or not (opcode == 2 or opcode == 1 and _is_text(data)):
            verdict = self.push_confirmed(fd, data, opcode)
            if verdict not in ("queued", "relayed", "gone"):
                print(f"wsd: a push to {fd} was refused: {verdict}", file=sys.stderr, flush=True)
            return verdict in ("queued", "relayed")
        self._room[fd] = left
        self._send(PUSH, code=opcode, fd=fd, payload=data)
        return True

    def push_confirmed(self, fd, data, opcode=1):
        if len(data) > self.facts["push_max"]:
            return "too_big"
        if fd == self._deciding:
            # The verdict would come after the handshake, which waits for this handler.
            if opcode == 1 and not _is_text(data):
                return "invalid_text"
            self._send(PUSH, code=opcode, fd=fd, payload=data)
            return "relayed"
        code, room = self._ask(PUSH, flags=1, code=opcode, fd=fd, payload=data)[1::2]
        if code == 0 and fd in self._room:
            self._room[fd] = min(self.facts["push_free"], room)
        return VERDICTS[code]

    def broadcast(self, data, opcode=1, but=0):
        self._send(BROADCAST, code=opcode, fd=but, payload=data)

    def close(self, fd, code=1000, reason=""):
        if fd in self._room:
            self._room[fd] = -1  # Nothing can be pushed any more.
        self._send(DISCONNECT, code=code, fd=fd, payload=reason.encode())

    def protect(self, fd, on=True):
        self._send(PROTECT, code=int(on), fd=fd)

    # Rooms, users and sessions. What is done to a client waits for the worker's word, so that
    # whatever is published next finds it done.

    def join(self, fd, room, info=None):
        extra = b"" if info is None else json.dumps(info).encode()
        return self._change(JOIN, fd, string(room.encode()) + extra)

    def leave(self, fd, room):
        return self._change(LEAVE, fd, room.encode())

    def bind(self, fd, uid):
        return self._change(BIND, fd, user(uid).encode())

    def unbind(self, fd):
        return self._change(BIND, fd, b"")

    def expire_at(self, fd, time):
        """Closes a connection at a time (Unix, in seconds); None: never."""
        return self._change(EXPIRE, fd, moment(time))

    def session(self, fd):
        kept = self._known(fd).get("session")
        return None if kept is None else json.loads(kept)

    def rooms(self, fd):
        """The rooms of a client."""
        return self._known(fd).get("rooms", [])

    def uid(self, fd):
        """The user of a client; None where it is nobody's."""
        return self._known(fd).get("uid")

    def _known(self, fd):
        """What is known of a client, and at its end what it had."""
        return self._had[1] if fd == self._had[0] else self.info(fd) or {}

    def set_session(self, fd, value):
        return self._change(SESSION, fd, b"" if value is None else json.dumps(value).encode())

    def publish(self, rooms, data, opcode=1, but=0):
        """To the members of a room, or of several, each once."""
        self._send(PUBLISH, code=opcode, fd=but, payload=_topics("#", rooms) + data)

    def publish_here(self, room, data, opcode=1):
        """To the members of a room that this worker has: what each worker says to its own."""
        self._send(PUBLISH, flags=HERE, code=opcode, payload=_topics("#", room) + data)

    def publish_confirmed(self, rooms, data, opcode=1, but=0):
        """As publish, and what became of it: queued, full, workers, answered, refused."""
        return self._tally(_topics("#", rooms), data, opcode, but)

    def push_uid(self, uid, data, opcode=1):
        self._send(PUBLISH, code=opcode, payload=_topics("@", user(uid)) + data)

    def push_uid_confirmed(self, uid, data, opcode=1):
        return self._tally(_topics("@", user(uid)), data, opcode, 0)

    def close_uid(self, uid, code=1000, reason=""):
        payload = string(user(uid).encode()) + reason.encode()
        return VERDICTS[self._ask(CLOSE_USER, flags=1, code=code, payload=payload)[1]]

    def members(self, room):
        """The members of a room, of all that answer: a list of {"fd": …, "uid": …}."""
        return json.loads(self._ask(MEMBERS, payload=f"#{room}".encode())[2] or b"[]")

    def connections_of(self, uid):
        return json.loads(self._ask(MEMBERS, payload=f"@{uid}".encode())[2] or b"[]")

    def _change(self, kind, fd, payload):
        verdict = VERDICTS[self._ask(kind, flags=1, fd=fd, payload=payload)[1]]
        if verdict not in ("queued", "relayed", "gone"):
            print(f"wsd: a change of {fd} was refused: {verdict}", file=sys.stderr, flush=True)
        return verdict in ("queued", "relayed")

    def _tally(self, topics, data, opcode, but):
        kind, code, payload, _ = self._ask(PUBLISH, flags=1, code=opcode, fd=but,
                                           payload=topics + data)
        if kind != TALLY:
            raise ValueError(f"nothing was published: {VERDICTS[code]}")
        return json.loads(payload)

    def exists(self, fd):
        return self._ask(EXISTS, fd=fd)[1] != 0

    def info(self, fd):
        _, code, payload, _ = self._ask(INFO, fd=fd)
        return json.loads(payload) if code else None

    def list(self, after=0, count=0):
        payload = self._ask(LIST, fd=after, code=count)[2]
        return list(struct.unpack(f"<{len(payload) // 8}Q", payload))

    def stats(self):
        return json.loads(self._ask(STATS)[2])

    def keep(self, fd, data):
        self._send(KEEP, fd=fd, payload=data)

    def every(self, milliseconds):
        self._send(EVERY, id=milliseconds)

    def send(self, worker, data, tag=0):
        verdict = VERDICTS[self._ask(SEND, flags=1, code=worker, fd=tag, payload=data)[1]]
        if verdict not in ("queued", "relayed"):
            print(f"wsd: a message to worker {worker} was refused: {verdict}", file=sys.stderr,
                  flush=True)
        return verdict in ("queued", "relayed")

    # The loop.

    def run(self):
        self._socket = socket.socket(fileno=int(os.environ["WSD_APP_FD"]))
        hello = self._read()
        if hello is None:
            return
        self.facts = json.loads(hello[-1])
        if not self.facts.get("spare"):
            self._call("start")
        wants = IN_ORDER
        for name, bits in WANTS.items():
            wants |= bits if name in self.handlers else 0
        more = WANTS_PRESENCE if "presence" in self.handlers else 0
        more |= WANTS_HAD if "close" in self.handlers else 0
        self._send(READY, flags=wants, code=VERSION, fd=more)
        code, event, taking = 1, None, True
        try:
            while (event := self._next()) is not None and event[0] != SHUTDOWN:
                taking = False
                self._dispatch(*event)
                self._done(event)
                event, taking = None, True  # What fails now is the next event, as it is taken in.
            event, taking = None, False
            self._call("stop")
            code = 0
        except SystemExit:
            code, taking = 0, False
            raise
        except KeyboardInterrupt:
            taking = False
            raise
        finally:
            # A handler that ends the program ends its event, and the worker is told.
            for reply in list(self._replies.values()):
                reply._fail()
            self._done(event)
            self._send(END, flags=UNTAKEN if taking else 0, code=code)

    def _done(self, event):
        if event is not None and event[3]:
            self._send(DONE, flags=LATER if event[3] in self._replies else 0, id=event[3])

    def _dispatch(self, kind, flags, code, id, fd, payload):
        if kind in (OPEN, MESSAGE, ATTACH):
            self._room.setdefault(fd, self.facts["push_free"])
        elif kind == CLOSE:
            self._room.pop(fd, None)
        if kind == OPEN:
            self._open(flags, id, Request.read(fd, payload))
        elif kind == MESSAGE:
            self._guarded(fd, "message", fd, payload, code)
        elif kind == CLOSE:
            cause, had, reason = _end(flags, payload)
            by = ("nobody", "client", "server")[flags & 3]
            self._had = fd, had
            self._guarded(0, "close", fd, code, reason, by, cause)
            self._had = 0, {}
        elif kind == REQUEST:
            request = Request.read(0, payload)
            if flags & HELD:
                request.held = lambda at: self._ask(READ, fd=at, payload=U32.pack(id))[2]
            self._request(id, request)
        elif kind == ATTACH:
            self._guarded(fd, "attach", Request.read(fd, payload))
        elif kind == TICK:
            self._guarded(0, "tick")
        elif kind == PIPE:
            self._guarded(0, "pipe", code, fd, payload)
        elif kind == PRESENCE:
            self._guarded(0, "presence", *_presence(code, payload))

    def _open(self, flags, id, request):
        if flags & 1:
            self._deciding = request.fd
            answer = self._guarded(0, "handshake", request, failed=Refuse(500)) or Accept()
            self._deciding = None
            if isinstance(answer, Refuse):
                body = fields(answer.fields) + answer.body
                return self._send(REFUSE, code=answer.status, id=id, fd=request.fd, payload=body)
            body = string(answer.subprotocol.encode()) + fields(answer.fields)
            self._send(ACCEPT, id=id, fd=request.fd, payload=body)
        self._guarded(request.fd, "open", request)

    def _request(self, id, request):
        reply = request.reply = self._replies[id] = Reply(self, id)
        failed = Response(500)
        answer = self._guarded(0, "request", request, failed=failed)
        if answer is failed:
            reply._fail()
        elif answer is not None:
            reply.send(answer)
        elif reply.open and not reply.kept and not reply.begun:
            reply._close(RESPONSE)
        if not reply.open:
            self._replies.pop(id, None)

    def _told(self, kind, flags, code, id, fd, payload):
        if kind == PLACE:  # It stood by, and has a place from now on.
            self.facts.update(json.loads(payload))
            self._guarded(0, "start")
        elif kind == NOTE:
            self._guarded(0, "note", code, fd, payload)
        reply = self._replies.get(id) if kind == TAKEN else None
        if reply:
            reply.unread, reply.gone = max(0, reply.unread - fd), reply.gone or code == 1

    def _await(self):
        """Waits for what the worker says; events that come meanwhile are kept."""
        got = self._read()
        if got is None:
            return False
        if got[0] < VERDICT:
            self._backlog.append(got)
        else:
            self._told(*got)
        return True

    def _call(self, name, *arguments):
        handler = self.handlers.get(name)
        return handler(self, *arguments) if handler else None

    def _guarded(self, fd, name, *arguments, failed=None):
        """An exception costs the connection it happened on (1011), not the process."""
        try:
            return self._call(name, *arguments)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if fd:
                self.close(fd, 1011, "the handler failed")
            return failed

    def _ask(self, kind, **rest):
        self._asked = self._asked % 0xFFFFFFFF + 1
        self._send(kind, id=self._asked, **rest)
        while (answer := self._read()) is not None:
            if answer[0] < VERDICT:
                self._backlog.append(answer)
            elif TAKEN <= answer[0] <= PLACE:
                self._told(*answer)
            elif answer[3] == self._asked:
                return answer[0], answer[2], answer[5], answer[4]
        raise ConnectionError("the worker is gone")

    def _next(self):
        while True:
            event = self._backlog.popleft() if self._backlog else self._read()
            if event is None or event[0] < VERDICT:
                return event
            self._told(*event)

    def _read(self):
        """The next frame (kind, flags, code, id, fd, payload), or None when the worker is gone."""
        while True:
            if len(self._input) >= HEADER.size:
                length, *head = HEADER.unpack_from(self._input)
                end = HEADER.size + length
                if len(self._input) >= end:
                    payload = bytes(self._input[HEADER.size:end])
                    del self._input[:end]
                    return (*head, payload)
            data = self._socket.recv(65536)
            if not data:
                return None
            self._input += data

    def _send(self, kind, **rest):
        """Sends a frame at once: nobody knows how long the handler goes on."""
        try:
            self._socket.sendall(frame(kind, **rest))
        except OSError:
            pass  # The worker is gone, as the next read says.
