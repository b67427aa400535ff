// The client over a stand-in for the network, with a clock of the test's own.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, mock, test } from "node:test";
import vm from "node:vm";

import { WsdSocket, retryAfter } from "../wsd.js";

/** Every socket that was made. */
let made = [];

class FakeSocket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: null, protocol: "" });
    this.bufferedAmount = 0;
    this.readyState = 0;
    made.push(this);
  }
  send(data) {
    this.sent.push(data);
  }
  close(code, reason) {
    if (code !== undefined && code !== 1000 && (code < 3000 || code > 4999)) {
      throw new RangeError(`${code} may not be sent`);
    }
    this.closed = { code, reason };
    this.readyState = 2;
  }
  opens() {
    this.readyState = 1;
    this.onopen({});
  }
  says(data) {
    this.onmessage({ data });
  }
  ends(code, reason = "", wasClean = code !== 1006) {
    this.readyState = 3;
    this.onclose({ code, reason, wasClean });
  }
}

/** Lets promises that are settled run on. */
const settle = async () => {
  for (let n = 0; n < 10; n += 1) await Promise.resolve();
};

/** A client whose random numbers are all `random`, and its states. */
function start(options = {}, url = "ws://a.test/ws") {
  const client = new WsdSocket(url, { WebSocket: FakeSocket, random: () => 0.5, ...options });
  const states = [];
  client.on("state", (event) => states.push(event));
  return { client, states };
}

async function opened(options, url) {
  const started = start(options, url);
  await settle();
  made.at(-1).opens();
  return started;
}

async function passes(ms) {
  mock.timers.tick(ms);
  await settle();
}

beforeEach(() => {
  made = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});
afterEach(() => mock.timers.reset());

test("a lost connection comes back after a random part of a bound that doubles", async () => {
  const { states } = await opened();
  const waits = [];
  for (let n = 0; n < 9; n += 1) {
    made.at(-1).ends(1006);
    const { state, retryIn, close } = states.at(-1);
    assert.equal(state, "waiting");
    assert.equal(close.code, 1006);
    waits.push(retryIn);
    await passes(retryIn - 1);
    assert.equal(made.length, n + 1, "not before its time");
    await passes(1);
    assert.equal(made.length, n + 2);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
});

test("the whole bound is used", async () => {
  for (const [random, wait] of [[0, 0], [0.999, 500]]) {
    const { states } = await opened({ random: () => random });
    made.at(-1).ends(1006);
    assert.equal(states.at(-1).retryIn, wait);
  }
});

test("a connection that lasts begins the waits anew, and one that does not does not", async () => {
  const { states } = await opened();
  made.at(-1).ends(1006);
  await passes(250);
  made.at(-1).opens();
  await passes(4_999);
  made.at(-1).ends(1006);
  assert.equal(states.at(-1).retryIn, 500);
  await passes(500);
  made.at(-1).opens();
  await passes(5_000);
  made.at(-1).ends(1006);
  assert.equal(states.at(-1).retryIn, 250);
});

test("what the server asks for is waited once, and then the jitter is our own", async () => {
  const { client, states } = await opened();
  made.at(-1).ends(1012, "retry after 7300 ms");
  assert.equal(states.at(-1).retryIn, 7300);
  assert.equal(client.retryAt, Date.now() + 7300);
  await passes(7300);
  made.at(-1).ends(1012, "retry after 7300 ms");
  assert.equal(states.at(-1).retryIn, 500);
});

test("a reason is read strictly, and no server keeps a client away for ever", () => {
  assert.equal(retryAfter("retry after 0 ms"), 0);
  assert.equal(retryAfter("retry after 999999999999 ms"), 600_000);
  const wrong = ["", "retry after 5 s", "retry after -5 ms", "please retry after 5 ms", null];
  for (const reason of wrong) {
    assert.equal(retryAfter(reason), null);
  }
});

test("a server that is busy, or meant its close, is given time", async () => {
  for (const code of [1000, 1008, 1013]) {
    const { states } = await opened({ random: () => 0, final: [] });
    made.at(-1).ends(code);
    assert.equal(states.at(-1).retryIn, 2_000);
  }
});

test("a close that is meant ends it, and codes of the application may be added", async () => {
  for (const [options, code, state] of [
    [{}, 1000, "closed"],
    [{}, 1008, "closed"],
    [{}, 4401, "waiting"],
    [{ final: [4401] }, 4401, "closed"],
    [{ final: [4401] }, 1000, "waiting"],
  ]) {
    const { client } = await opened(options);
    let close = null;
    client.on("close", (event) => (close = event));
    made.at(-1).ends(code, "enough");
    assert.equal(client.state, state, `${code}`);
    assert.equal(close?.code, state === "closed" ? code : undefined);
  }
});

test("messages wait for a connection in their order, and behind what open sends", async () => {
  const { client } = start();
  assert.equal(client.send("one"), true);
  assert.equal(client.send("two"), true);
  client.on("open", () => client.send("join"));
  await settle();
  assert.deepEqual(made[0].sent, []);
  made[0].opens();
  assert.deepEqual(made[0].sent, ["join", "one", "two"]);
  assert.deepEqual(client.queued, { messages: 0, bytes: 0 });
  client.send("three");
  assert.equal(made[0].sent.at(-1), "three");
});

test("the queue is bounded in messages and in bytes", async () => {
  const { client } = start({ queueMessages: 3, queueBytes: 100 });
  assert.deepEqual([1, 2, 3, 4].map((n) => client.send(`${n}`)), [true, true, true, false]);
  const { client: bytes } = start({ queueBytes: 100 });
  assert.deepEqual([bytes.send("x".repeat(34)), bytes.send("x".repeat(33)), bytes.send("é")],
    [false, true, false]);
  assert.equal(bytes.send(new Uint8Array(1)), true);
  assert.equal(bytes.send(new Uint8Array(1)), false);
});

test("a buffer that is changed after it was queued is sent as it was", async () => {
  const { client } = start();
  const whole = new Uint8Array([1, 2, 3, 4]);
  client.send(whole.subarray(1, 3));
  client.send(whole.buffer);
  whole.fill(9);
  await settle();
  made[0].opens();
  assert.deepEqual(made[0].sent.map((data) => [...new Uint8Array(data)]), [[2, 3], [1, 2, 3, 4]]);
});

test("a browser whose buffer is full queues, in order, until it has room", async () => {
  const { client } = await opened({ bufferedMax: 10 });
  const socket = made[0];
  socket.bufferedAmount = 9;
  assert.equal(client.send("one"), true);
  assert.equal(client.send("two"), true);
  assert.deepEqual(socket.sent, []);
  await passes(50);
  assert.deepEqual(socket.sent, []);
  socket.bufferedAmount = 0;
  await passes(50);
  assert.deepEqual(socket.sent, ["one", "two"]);
});

test("what open sends goes first and in its order, also where the buffer is full", async () => {
  const { client } = start({ bufferedMax: 10 });
  client.send("waited");
  client.on("open", () => {
    made[0].bufferedAmount = 5;
    // The second would fit into the buffer, and overtake the first.
    assert.deepEqual([client.send("sign in"), client.send("x")], [true, true]);
  });
  await settle();
  made[0].opens();
  assert.deepEqual(made[0].sent, []);
  made[0].bufferedAmount = 0;
  await passes(50);
  assert.deepEqual(made[0].sent, ["sign in", "x", "waited"]);
});

test("what is sent while the socket closes waits for the next connection", async () => {
  const { client } = await opened();
  // The server's close frame has come, and the end of the connection has not.
  made[0].readyState = 2;
  assert.equal(client.send("one"), true);
  await passes(50);
  made[0].ends(1012, "retry after 0 ms");
  await passes(0);
  made[1].opens();
  assert.deepEqual(made.map(({ sent }) => sent), [[], ["one"]]);
});

test("each connection asks for a fresh token, told how the last one ended", async () => {
  const asked = [];
  const token = async (again) => {
    asked.push([again.tries, again.close?.code ?? null]);
    return `t&${asked.length}`;
  };
  await opened({ token }, "wss://a.test/ws?x=1");
  assert.equal(made[0].url, "wss://a.test/ws?x=1&token=t%261");
  made[0].ends(1006);
  await passes(250);
  assert.equal(made[1].url, "wss://a.test/ws?x=1&token=t%262");
  assert.deepEqual(asked, [[0, null], [1, 1006]]);
});

test("a connection whose token has expired comes back with another", async () => {
  let asked = 0;
  const { client, states } = await opened({ token: () => `${(asked += 1)}` });
  made.at(-1).ends(1008, "expired");
  assert.equal(states.at(-1).retryIn, 250);
  await passes(250);
  assert.equal(made.at(-1).url, "ws://a.test/ws?token=2");
  made.at(-1).opens();
  made.at(-1).ends(1008, "too fast");
  assert.equal(client.state, "closed");
  // The same token would expire again.
  const { client: fixed } = await opened({ token: "1" });
  made.at(-1).ends(1008, "expired");
  assert.equal(fixed.state, "closed");
});

test("a token callback that fails is a failed try, and one that has nobody ends it", async () => {
  const answers = [() => Promise.reject(new Error("offline")), () => null];
  const { client, states } = start({ token: () => answers.shift()() });
  await settle();
  assert.equal(states.at(-1).state, "waiting");
  assert.equal(states.at(-1).close.why, "error");
  assert.equal(states.at(-1).close.error.message, "offline");
  await passes(250);
  assert.equal(client.state, "closed");
  assert.equal(made.length, 0);
});

test("a connection that does not open, or a token that does not come, is given up", async () => {
  const { states } = start({ openTimeout: 1_000 });
  await settle();
  await passes(1_000);
  assert.equal(states.at(-1).close.why, "timeout");
  assert.notEqual(made[0].closed, null);
  // What the given-up one says late is nobody's.
  made[0].opens();
  made[0].ends(1000);
  assert.equal(states.at(-1).state, "waiting");
  const { states: hung } = start({ openTimeout: 1_000, token: () => new Promise(() => {}) });
  await passes(1_000);
  assert.equal(hung.at(-1).close.why, "timeout");
});

test("silence ends a connection where that was asked for", async () => {
  const { states } = await opened({ silence: 1_000 });
  await passes(900);
  made[0].says("hello");
  await passes(900);
  assert.equal(states.at(-1).state, "open");
  await passes(100);
  assert.equal(states.at(-1).close.why, "silence");
});

test("close is for good, whatever state it finds", async () => {
  const { client: connecting } = start();
  connecting.send("dropped");
  connecting.close();
  await settle();
  assert.equal(made.length, 0);
  assert.deepEqual([connecting.state, connecting.send("x")], ["closed", false]);
  const { client: open } = await opened();
  open.close(4000, "bye");
  assert.deepEqual(made.at(-1).closed, { code: 4000, reason: "bye" });
  made.at(-1).ends(4000);
  const { client: waiting } = await opened();
  made.at(-1).ends(1006);
  waiting.close();
  const before = made.length;
  await passes(60_000);
  assert.equal(made.length, before);
});

test("a close that may not be sent changes nothing", async () => {
  const { client } = await opened();
  assert.throws(() => client.close(1001), RangeError);
  assert.equal(client.state, "open");
  client.close(4000);
  assert.deepEqual([client.state, made[0].closed.code], ["closed", 4000]);
});

test("nothing is told, and no token asked for, behind a close", async () => {
  for (const last of ["connecting", "open"]) {
    let asked = 0;
    const { client } = await opened({ token: () => `${(asked += 1)}` });
    const told = [];
    client.on("open", () => told.push("open"));
    client.on("close", () => told.push("close"));
    client.on("state", ({ state }) => {
      told.push(state);
      if (state === last) client.close();
    });
    made.at(-1).ends(1006);
    await passes(250);
    if (last === "open") made.at(-1).opens();
    const states = last === "open" ? ["waiting", "connecting", "open"] : ["waiting", "connecting"];
    assert.deepEqual(told, [...states, "closed", "close"]);
    assert.equal(asked, last === "open" ? 2 : 1);
  }
});

test("retry tries at once, and only where a try is waited for", async () => {
  const { client } = await opened();
  client.retry();
  await settle();
  assert.equal(made.length, 1);
  made[0].ends(1006);
  client.retry();
  await settle();
  assert.equal(made.length, 2);
  await passes(250);
  assert.equal(made.length, 2, "the timer of the wait is gone");
});

test("a listener that closes, sends or throws harms nothing", async () => {
  const { client } = await opened();
  client.on("state", ({ state }) => {
    if (state === "waiting") {
      client.send("while waiting");
      client.close();
    }
  });
  made[0].ends(1006);
  assert.equal(client.state, "closed");
  const { client: throws } = await opened();
  const heard = [];
  throws.on("message", () => {
    throw new Error("a listener's");
  });
  const off = throws.on("message", ({ data }) => heard.push(data));
  made.at(-1).says("one");
  off();
  made.at(-1).says("two");
  assert.deepEqual(heard, ["one"]);
  // The page's own handler hears of both.
  for (let n = 0; n < 2; n += 1) assert.throws(() => mock.timers.runAll(), /a listener's/);
});

test("addresses may be http, a callback, or wrong", async () => {
  await opened({}, new URL("https://a.test/ws"));
  assert.equal(made.at(-1).url, "wss://a.test/ws");
  await opened({}, async ({ tries }) => `http://b.test/${tries}`);
  assert.equal(made.at(-1).url, "ws://b.test/0");
  const { states } = start({}, "no address");
  await settle();
  assert.equal(states.at(-1).close.why, "error");
});

test("a misspelt option is an error at once", () => {
  assert.throws(() => start({ backofMin: 5 }), /no option "backofMin"/);
  assert.throws(() => new WsdSocket("ws://a.test", { WebSocket: null }), /no WebSocket here/);
});

test("the file for a script tag has the same names", () => {
  const script = readFileSync(new URL("../wsd.global.js", import.meta.url), "utf8");
  const names = vm.runInNewContext(`${script}; Object.keys(Wsd).join()`);
  assert.equal(names, "retryAfter,WsdSocket");
});
