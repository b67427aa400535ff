"""A chat: what one client says, all others are told. `wsd start --set handler=app
--set app.command="python3 clients/python/example.py"`"""

from wsd_app import App

app = App()


@app.on("open")
def welcome(app, request):
    app.push(request.fd, f"you are {request.fd}".encode())


@app.on("message")
def message(app, fd, data, opcode):
    app.broadcast(str(fd).encode() + b": " + data, opcode, but=fd)


app.run()
