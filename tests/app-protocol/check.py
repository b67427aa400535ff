"""Checks the Python client against the golden vectors: run by tests/app/names.rs."""

import json
import os
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "../../clients/python"))

from wsd_app import App, Request, frame  # noqa: E402

with open(os.path.join(HERE, "frames.json"), encoding="utf-8") as file:
    golden = json.load(file)
app = App()
app._socket, theirs = socket.socketpair()
for vector in golden["frames"]:
    head = [vector[name] for name in ("kind", "flags", "code", "id", "fd")]
    payload = bytes.fromhex(vector.get("payload", ""))
    wire = frame(*head, payload=payload)
    assert wire.hex() == vector["wire"], vector["name"]
    theirs.sendall(wire)
    assert app._read() == (*head, payload), vector["name"]
for vector in golden["requests"]:
    request = Request.read(7, bytes.fromhex(vector["payload"]))
    for name in ("method", "target", "subprotocol", "peer", "client", "local", "version"):
        assert getattr(request, name) == vector[name], name
    assert request.fields == [tuple(pair) for pair in vector["fields"]]
    assert request.body == vector["rest"].encode()
print(f"{len(golden['frames'])} frames, {len(golden['requests'])} requests")
