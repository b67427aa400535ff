"""Reaches a running wsd from any Python program, over its control socket (docs/ipc.md).

    from wsd_control import Control
    Control("/run/wsd").push(fd, "hello")      # "queued", "gone", "full", "too_big" or "unknown"

Standard library only. Each call is a connection of its own. Whoever could put a directory of their
own in the place of the server's would read every push, so that the directory is opened without
following links of others, and is believed only where it, its lock and its socket belong to this
user, to root, or, for root, to anybody whose directory only root can have made where it is.
"""

import json
import os
import socket
import stat
import struct

SOCKET, LOCK = "wsd.sock", "wsd.lock"
LINKS_MAX = 40
PATIENCE = 10.0


class Refused(Exception):
    """The server cannot be asked, or somebody else may answer in its place."""


class Control:
    def __init__(self, runtime_dir="/run/wsd", patience=PATIENCE):
        self.runtime_dir, self.patience = runtime_dir, patience

    def push(self, fd, data, binary=False):
        """Queues a message for a client and returns the verdict."""
        body = data.encode() if isinstance(data, str) else data
        kind = "binary" if binary else "text"
        answer = self.ask({"cmd": "push", "fd": fd, "opcode": kind, "bytes": len(body)}, body)
        if "verdict" not in answer:
            raise Refused(answer.get("error", "refused without a reason"))
        return answer["verdict"]

    def publish(self, room, data, binary=False):
        """Sends to the members of a room, or of a list of rooms, each once; returns the tally."""
        return self._publish({"room": room}, data, binary)

    def push_uid(self, uid, data, binary=False):
        """Sends to every connection of a user and returns the tally."""
        return self._publish({"uid": _uid(uid)}, data, binary)

    def _publish(self, to, data, binary):
        body = data.encode() if isinstance(data, str) else data
        kind = "binary" if binary else "text"
        answer = self.ask({"cmd": "publish", **to, "opcode": kind, "bytes": len(body)}, body)
        if "queued" not in answer:
            raise Refused(answer.get("error", "refused without a reason"))
        return answer

    def members(self, room):
        """The members of a room: a list of {"fd": …, "uid": …}."""
        return self._list({"cmd": "members", "room": room})

    def status(self):
        return self.ask({"cmd": "status"})

    def connections(self):
        """Every open connection."""
        return self._list({"cmd": "connections"})

    def _list(self, request):
        """A list of which some may be missing is Refused."""
        listed = []
        answer = self.ask(request, each=listed.append)
        if not answer["ok"]:
            raise Refused(answer.get("error", "refused without a reason"))
        return listed

    def ask(self, request, body=b"", each=lambda item: None):
        """Asks one thing: docs/ipc.md has the requests and their answers."""
        with self._connect() as server:
            try:
                server.sendall(json.dumps(request).encode() + b"\n" + body)
            except BrokenPipeError:
                pass  # It refuses, and the answer says why.
            for line in server.makefile("rb"):
                answer = json.loads(line)
                if "ok" in answer:
                    return answer
                each(answer)
        raise Refused("the server ended the connection; the request may have been done or not")

    def _connect(self):
        directory, owner = self._open()
        try:
            for name, kind in ((LOCK, stat.S_ISREG), (SOCKET, stat.S_ISSOCK)):
                try:
                    entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    raise Refused(f"no server runs in {self.runtime_dir}") from None
                if entry.st_uid != owner or not kind(entry.st_mode):
                    raise Refused(f"{self.runtime_dir}/{name} is not its directory owner's")
            server = socket.socket(socket.AF_UNIX)
            server.settimeout(self.patience)
            server.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
        peer = server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", peer)
        if uid not in (owner, 0):
            server.close()
            raise Refused(f"uid {uid} listens in {self.runtime_dir}, which is uid {owner}'s")
        return server

    def _open(self):
        """The directory as a descriptor, and its owner."""
        me = os.geteuid()
        here, only_roots, links = os.open("/", os.O_PATH), True, 0
        names = _names(os.path.abspath(self.runtime_dir))
        while names:
            name = names.pop(0)
            parent = os.fstat(here)
            only_roots = only_roots and parent.st_uid == 0 and not parent.st_mode & 0o022
            flags = os.O_PATH | os.O_NOFOLLOW
            try:
                step = os.open(name, flags, dir_fd=here)
            except FileNotFoundError:
                os.close(here)
                raise Refused(f"no server runs in {self.runtime_dir}") from None
            entry = os.fstat(step)
            if not stat.S_ISLNK(entry.st_mode):
                os.close(here)
                here = step
                continue
            links += 1
            if entry.st_uid not in (me, 0) or links > LINKS_MAX:
                raise Refused(f"{self.runtime_dir}: {name} is a link of uid {entry.st_uid}")
            target = os.readlink("", dir_fd=step)
            os.close(step)
            if target.startswith("/"):
                os.close(here)
                here = os.open("/", os.O_PATH)
            names = _names(target) + names
        entry = os.fstat(here)
        owner, mode = entry.st_uid, entry.st_mode
        believed = owner in (me, 0) or (me == 0 and only_roots)
        if not stat.S_ISDIR(mode) or mode & 0o022 or not believed:
            raise Refused(f"{self.runtime_dir} belongs to uid {owner} (mode {mode:o}): not asked")
        return here, owner


def _uid(uid):
    if uid is None or uid == "":
        raise TypeError("a uid has at least one byte")
    return str(uid)


def _names(path):
    return [name for name in path.split("/") if name not in ("", ".")]
