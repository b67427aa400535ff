// Made from wsd.js by build.js.
"use strict";
var Wsd = (() => {
/**
 * A WebSocket that comes back: see README.md. No dependencies; browsers of 2020 and later, Node 22.
 *
 * The client knows nothing of an application's words: rooms, topics and acknowledgements are
 * messages like any other, which the `open` listener sends again on each new connection.
 */

/** Longest wait for which a server's `retry after` is believed, in milliseconds. */
const RETRY_AFTER_MAX_MS = 10 * 60 * 1000;
/** How often a queue is looked at while the browser's own buffer is full, in milliseconds. */
const DRAIN_MS = 50;
/** `WebSocket.OPEN`, which another implementation may not have as a constant. */
const TAKES_MESSAGES = 1;
/** The longest that setTimeout can wait. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

const DEFAULTS = {
  protocols: [],
  token: null,
  tokenParam: "token",
  backoffMin: 500,
  backoffMax: 30_000,
  openTimeout: 15_000,
  stableAfter: 5_000,
  silence: 0,
  final: [1000, 1008],
  queueMessages: 256,
  queueBytes: 1024 * 1024,
  bufferedMax: 1024 * 1024,
  binaryType: "arraybuffer",
};

/** How many bytes a message takes on the wire, or a bound of them for text. */
function sizeOf(data) {
  // A UTF-16 unit takes at most 3 bytes of UTF-8: counting exactly would cost a copy.
  if (typeof data === "string") return 3 * data.length;
  return data.byteLength ?? data.size ?? 0;
}

/** A message that is sent later: a buffer that the caller may change meanwhile is copied. */
function lasting(data) {
  if (data instanceof ArrayBuffer) return data.slice(0);
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  }
  return data;
}

/** The wait that a close reason asks for, in milliseconds, or `null`. */
function retryAfter(reason) {
  const told = /^retry after (\d{1,15}) ms$/.exec(reason ?? "");
  return told ? Math.min(Number(told[1]), RETRY_AFTER_MAX_MS) : null;
}

class WsdSocket {
  #url;
  #options;
  #listeners = new Map();
  #socket = null;
  #state = "idle";
  #queue = [];
  #queueBytes = 0;
  #tries = 0;
  #opened = 0;
  #attempt = 0;
  #lastClose = null;
  #retryAt = null;
  #told = false;
  // While `open` listeners are called: how many of their messages wait, before all others.
  #ahead = null;
  #timers = { retry: null, open: null, stable: null, drain: null, silence: null };
  #page = null;

  constructor(url, options = {}) {
    for (const key of Object.keys(options)) {
      if (!(key in DEFAULTS) && key !== "WebSocket" && key !== "random") {
        throw new TypeError(`WsdSocket: there is no option ${JSON.stringify(key)}`);
      }
    }
    this.#url = url;
    this.#options = { ...DEFAULTS, random: Math.random, ...options };
    this.#options.WebSocket ??= globalThis.WebSocket;
    if (typeof this.#options.WebSocket !== "function") {
      throw new TypeError("WsdSocket: no WebSocket here; pass one as the option WebSocket");
    }
    this.#watchPage();
    this.#connect();
  }

  /** `connecting`, `open`, `waiting` (for the next try) or `closed` (for good). */
  get state() {
    return this.#state;
  }

  /** When the next try begins, as `Date.now()` counts; `null` unless `waiting`. */
  get retryAt() {
    return this.#retryAt;
  }

  /** Messages that wait for a connection, and the most bytes that they take. */
  get queued() {
    return { messages: this.#queue.length, bytes: this.#queueBytes };
  }

  /** Calls `listener` at each event of that name. The answer ends that. */
  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all);
    all.add(listener);
    return () => all.delete(listener);
  }

  /**
   * Sends a message, or queues it until there is a connection. `false` where the queue is full or
   * the socket closed for good: then nothing was queued.
   */
  send(data) {
    if (this.#state === "closed") return false;
    const size = sizeOf(data);
    // What an `open` listener sends goes before what has waited, so that it can sign in first.
    const before = this.#ahead ?? this.#queue.length;
    if (this.#state === "open" && before === 0 && this.#takes(size)) {
      this.#socket.send(data);
      return true;
    }
    const { queueMessages, queueBytes } = this.#options;
    if (this.#queue.length >= queueMessages || this.#queueBytes + size > queueBytes) return false;
    this.#queue.splice(before, 0, { data: lasting(data), size });
    if (this.#ahead !== null) this.#ahead += 1;
    this.#queueBytes += size;
    if (this.#state === "open") this.#drainLater();
    return true;
  }

  /** Tries at once, where a next try is waited for. */
  retry() {
    if (this.#state === "waiting") this.#connect();
  }

  /** Closes for good. What was queued is dropped. */
  close(code = 1000, reason = "") {
    if (this.#state === "closed") return;
    // A socket that is still connecting may be closed as well; the server sees no message of it.
    // A code or reason that may not be sent throws, and then nothing has changed.
    this.#socket?.close(code, reason);
    this.#end({ code, reason, wasClean: true, byUs: true });
  }

  #emit(name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // One listener's fault is not the connection's; the page's own handler hears of it.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }

  #become(state, more = {}) {
    const before = this.#state;
    this.#state = state;
    this.#retryAt = more.retryAt ?? null;
    this.#emit("state", { state, before, tries: this.#tries, close: this.#lastClose, ...more });
  }

  #clear(...names) {
    for (const name of names) {
      clearTimeout(this.#timers[name]);
      this.#timers[name] = null;
    }
  }

  #after(name, ms, then) {
    this.#clear(name);
    this.#timers[name] = setTimeout(then, Math.min(ms, TIMEOUT_MAX_MS));
  }

  async #connect() {
    this.#clear("retry");
    const attempt = ++this.#attempt;
    const current = () => attempt === this.#attempt;
    this.#become("connecting");
    if (!current()) return; // A listener has closed, or tried again.
    // Covers the token as well: a callback that never answers is a failed try.
    this.#after("open", this.#options.openTimeout, () => {
      if (current()) this.#lost({ code: 1006, reason: "", wasClean: false, why: "timeout" });
    });
    let socket;
    try {
      const url = await this.#address();
      if (!current()) return;
      if (url === null) return this.#end({ code: 1000, reason: "", wasClean: true, why: "token" });
      socket = new this.#options.WebSocket(url, this.#options.protocols);
    } catch (error) {
      if (current()) this.#lost({ code: 1006, reason: "", wasClean: false, why: "error", error });
      return;
    }
    this.#socket = socket;
    socket.binaryType = this.#options.binaryType;
    socket.onopen = () => current() && this.#open(socket);
    socket.onmessage = ({ data }) => {
      if (!current()) return;
      this.#heard();
      this.#emit("message", { data });
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      if (current()) this.#lost({ code, reason, wasClean });
    };
    // `close` follows, and says all there is to know.
    socket.onerror = () => {};
  }

  /** Where to connect now; `null` where the token callback says that there is nobody to sign in. */
  async #address() {
    const { token, tokenParam } = this.#options;
    const again = { tries: this.#tries, close: this.#lastClose };
    const base = typeof this.#url === "function" ? await this.#url(again) : this.#url;
    const page = globalThis.location?.href;
    const url = page === undefined || page === "about:blank" ? new URL(base) : new URL(base, page);
    // Older browsers want these schemes themselves.
    if (url.protocol === "http:") url.protocol = "ws:";
    if (url.protocol === "https:") url.protocol = "wss:";
    if (token === null) return url.href;
    const value = typeof token === "function" ? await token(again) : token;
    if (value === null || value === undefined) return null;
    url.searchParams.set(tokenParam, value);
    return url.href;
  }

  #open(socket) {
    this.#clear("open");
    const first = this.#opened === 0;
    this.#opened += 1;
    this.#after("stable", this.#options.stableAfter, () => {
      this.#tries = 0;
    });
    this.#heard();
    this.#ahead = 0;
    this.#become("open");
    // A listener of the state may have closed.
    if (this.#state === "open") this.#emit("open", { first, protocol: socket.protocol });
    this.#ahead = null;
    this.#drain();
  }

  /**
   * Whether the socket takes so many bytes: it is open, and the browser's buffer has room or is
   * empty. Between the server's close frame and the end a socket says nothing of what it drops.
   */
  #takes(size) {
    if (this.#socket.readyState !== TAKES_MESSAGES) return false;
    const waits = this.#socket.bufferedAmount;
    return waits === 0 || waits + size <= this.#options.bufferedMax;
  }

  #drain() {
    this.#clear("drain");
    while (this.#state === "open" && this.#queue.length > 0) {
      if (!this.#takes(this.#queue[0].size)) return this.#drainLater();
      const { data, size } = this.#queue.shift();
      this.#queueBytes -= size;
      this.#socket.send(data);
    }
  }

  #drainLater() {
    this.#timers.drain ??= setTimeout(() => this.#drain(), DRAIN_MS);
  }

  /** Something came: the connection lives. */
  #heard() {
    if (this.#options.silence === 0) return;
    this.#after("silence", this.#options.silence, () => {
      this.#lost({ code: 1006, reason: "", wasClean: false, why: "silence" });
    });
  }

  #forget() {
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = null;
    this.#clear("open", "stable", "drain", "silence", "retry");
    return socket;
  }

  /** A connection ended, or never came to be. */
  #lost(close) {
    // One that we gave up may still be there; its close event would come late.
    const socket = this.#forget();
    if (socket && close.why) socket.close();
    this.#lastClose = close;
    const renews = this.#renews(close);
    if (this.#options.final.includes(close.code) && !close.why && !renews) return this.#end(close);
    const told = this.#tries === 0 ? retryAfter(close.reason) : null;
    const wait = told ?? this.#backoff(renews ? null : close.code);
    this.#told = told !== null;
    this.#tries += 1;
    this.#after("retry", wait, () => this.#connect());
    this.#become("waiting", { retryAt: Date.now() + wait, retryIn: wait });
  }

  /** Whether the connection's time was over, and a callback may give the next one another token. */
  #renews({ code, reason }) {
    const asks = [this.#url, this.#options.token].some((it) => typeof it === "function");
    return asks && code === 1008 && reason === "expired";
  }

  /**
   * How long to wait where the server has not said so, in milliseconds: "full jitter", a random
   * part of a bound that doubles, so that clients of a worker that died do not come back as one.
   */
  #backoff(code) {
    const { backoffMin, backoffMax, random } = this.#options;
    const bound = Math.min(backoffMax, backoffMin * 2 ** Math.min(this.#tries, 30));
    // The server meant these (1000, 1008), or is too busy (1013): the next try is in no hurry.
    const least = [1000, 1008, 1013].includes(code) ? 4 * backoffMin : 0;
    return Math.min(backoffMax, least + Math.round(random() * bound));
  }

  #end(close) {
    this.#forget();
    this.#lastClose = close;
    this.#queue = [];
    this.#queueBytes = 0;
    this.#page?.();
    this.#page = null;
    this.#become("closed");
    this.#emit("close", close);
  }

  /**
   * A network that is back, or a page that is looked at again, is worth a try at once, but not
   * where the server has said when to come back.
   */
  #watchPage() {
    if (typeof globalThis.addEventListener !== "function" || !globalThis.document) return;
    const retry = () => this.#told || this.retry();
    const seen = () => document.visibilityState === "visible" && retry();
    addEventListener("online", retry);
    addEventListener("pageshow", retry);
    document.addEventListener("visibilitychange", seen);
    this.#page = () => {
      removeEventListener("online", retry);
      removeEventListener("pageshow", retry);
      document.removeEventListener("visibilitychange", seen);
    };
  }
}

return { retryAfter, WsdSocket };
})();
