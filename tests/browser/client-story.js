// What the client of clients/js goes through: in a page or in Node, against a server that echoes.
// `say(line)` tells the test a line; `told(line)` waits until the test has said one.

function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

/** The next event of a name that `wanted` wants. */
function next(socket, name, wanted = () => true) {
  return new Promise((resolve) => {
    const off = socket.on(name, (event) => {
      if (!wanted(event)) return;
      off();
      resolve(event);
    });
  });
}

const text = ({ data }) => (typeof data === "string" ? data : new TextDecoder().decode(data));

async function echoes(socket, words) {
  const answer = next(socket, "message", (event) => text(event) === words);
  check(socket.send(words), `${words} was not taken`);
  await answer;
}

export async function story(WsdSocket, { url, say, told, options = {} }) {
  let tokens = 0;
  const token = async () => `token-${(tokens += 1)}`;
  const socket = new WsdSocket(url, { token, backoffMin: 50, ...options });
  const states = [];
  socket.on("state", ({ state }) => states.push(state));
  const heard = [];
  socket.on("message", (event) => heard.push(text(event)));
  socket.on("open", ({ first }) => socket.send(`hello ${first}`));
  socket.send("queued before there was a connection");
  await next(socket, "message", (event) => text(event).startsWith("queued"));
  check(heard.join() === "hello true,queued before there was a connection", `heard ${heard}`);
  const bytes = next(socket, "message", ({ data }) => typeof data !== "string");
  socket.send(new Uint8Array([1, 2, 3]));
  const { data } = await bytes;
  check(data instanceof ArrayBuffer && data.byteLength === 3, "bytes came as something else");

  // The server says when to come back.
  const asked = next(socket, "state", ({ state }) => state === "waiting");
  say("close it");
  const { retryIn, close } = await asked;
  check(close.code === 1012 && retryIn === 700, `${close.code} ${close.reason}: waits ${retryIn}`);
  check(socket.retryAt > Date.now(), "the time of the next try is not ahead");
  const since = Date.now();
  await next(socket, "open");
  check(Date.now() - since >= 690, "it came back before its time");
  await echoes(socket, "after the wait");

  // Its worker dies; what is sent meanwhile waits.
  const lost = next(socket, "state", ({ state }) => state === "waiting");
  say("kill it");
  check((await lost).close.code === 1006, "the death of a worker is 1006");
  check(socket.send("one") && socket.send("two"), "the queue took nothing");
  const both = next(socket, "message", (event) => text(event) === "two");
  await both;
  check(heard.slice(-3).join() === "hello false,one,two", `heard ${heard.slice(-3)}`);

  // A reload is nothing that a client could notice.
  const before = states.length;
  say("reload");
  await told("reloaded");
  await echoes(socket, "after the reload");
  check(states.length === before, `a reload was noticed: ${states.slice(before)}`);

  // The server stops, and starts again at the same address.
  const stopped = next(socket, "state", ({ state }) => state === "waiting");
  say("stop");
  const end = (await stopped).close;
  check(end.code === 1001 && /^retry after \d+ ms$/.test(end.reason), `${end.code} ${end.reason}`);
  await told("started");
  if (socket.state === "waiting") socket.retry();
  if (socket.state !== "open") await next(socket, "open");
  await echoes(socket, "after the stop");

  // A close that is meant is the last.
  const last = next(socket, "close");
  say("close it for good");
  check((await last).code === 1000 && socket.state === "closed", "it did not stay closed");
  check(socket.send("to nobody") === false, "a closed socket took a message");
  check(tokens >= 4, `${tokens} tokens were asked for`);
  say(`ok ${states.filter((state) => state === "open").length} connections, ${tokens} tokens`);
}
