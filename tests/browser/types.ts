// What clients/js/wsd.d.ts promises: that this compiles, that what is marked does not, and, when
// what it compiles to runs, that wsd.js has all of it and nothing more.
import * as wsd from "../../clients/js/wsd.js";
import { retryAfter, WsdSocket } from "../../clients/js/wsd.js";
import type { Again, Close, Events, Message, Options, State } from "../../clients/js/wsd.js";

export function use(options: Options): void {
  const socket = new WsdSocket((again: Again) => `wss://example.com/?tries=${again.tries}`, {
    ...options,
    token: async (again) => (again.close?.code === 1008 ? null : "secret"),
    final: [4001],
    binaryType: "blob",
  });
  const off: () => void = socket.on("state", ({ state, before, retryIn }) => {
    const wait: number | undefined = retryIn;
    const states: State[] = [state, before];
    console.log(states, wait);
  });
  socket.on("message", (event: Events["message"]) => {
    if (typeof event.data === "string") socket.send(event.data.toUpperCase());
  });
  socket.on("open", ({ first, protocol }) => console.log(first && protocol.length > 0));
  socket.on("close", (close: Close) => console.log(close.code, close.why ?? "server"));
  const sent: Message[] = ["text", new ArrayBuffer(1), new Uint8Array(1), new Blob([])];
  const queued: boolean[] = sent.map((message) => socket.send(message));
  const at: number | null = socket.retryAt;
  const wait: number | null = retryAfter(undefined);
  console.log(queued, at, wait, socket.queued.bytes + socket.queued.messages);
  socket.retry();
  socket.close(4000, "done");
  off();

  // @ts-expect-error: there is no such event
  socket.on("error", () => {});
  // @ts-expect-error: a message is no number
  socket.send(7);
  // @ts-expect-error: only the socket changes its state
  socket.state = "open";
  // @ts-expect-error: there is no such option
  new WsdSocket("ws://x/", { backofMin: 1 });
  // @ts-expect-error: there is no such state
  const wrong: State = "opened";
  console.log(wrong);
}

const exported = { WsdSocket: true, retryAfter: true } satisfies Record<keyof typeof wsd, true>;
const members = {
  state: true, retryAt: true, queued: true, on: true, send: true, retry: true, close: true,
} satisfies Record<keyof WsdSocket, true>;

function same(what: string, is: string[], told: object): void {
  const [left, right] = [is.sort().join(), Object.keys(told).sort().join()];
  if (left !== right) throw new Error(`${what}: wsd.js has ${left}, wsd.d.ts tells ${right}`);
}

same("exports", Object.keys(wsd), exported);
const own = Object.getOwnPropertyNames(WsdSocket.prototype);
same("members", own.filter((name) => name !== "constructor" && !name.startsWith("_")), members);
