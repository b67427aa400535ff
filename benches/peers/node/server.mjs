// Echo on ws, and "broadcast X" to everyone who asked for /all.
// node server.mjs 9001
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.argv[2] ?? 9001),
  perMessageDeflate: false,
  backlog: 4096,
});

server.on('connection', (socket, request) => {
  const all = request.url === '/all';
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => {
    if (all && data.subarray(0, 10).toString('latin1') === 'broadcast ') {
      const rest = data.subarray(10);
      for (const client of server.clients) client.send(rest, { binary: isBinary });
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
});
