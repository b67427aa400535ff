/** How far a socket is. `waiting`: for the next try. `closed`: for good. */
export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

export type Message = string | ArrayBuffer | ArrayBufferView | Blob;

/** How a connection ended. */
export interface Close {
  /** The close code (RFC 6455 section 7.4); 1006 where there was no close frame. */
  code: number;
  reason: string;
  wasClean: boolean;
  /** Why this client gave the connection up by itself, where it did. */
  why?: "timeout" | "silence" | "error" | "token";
  /** What the url or token callback threw. */
  error?: unknown;
  /** True for `close()`. */
  byUs?: boolean;
}

/** What the callbacks for url and token are told. */
export interface Again {
  /** Tries since the last connection that lasted. */
  tries: number;
  /** How the last connection ended; `null` before the first. */
  close: Close | null;
}

/** What signs a client in; `null` and `undefined`: nobody is signed in. */
export type Token = string | null | undefined;

export interface Options {
  /** Subprotocols to offer. */
  protocols?: string | string[];
  /**
   * Asked before each try for the token in the query of the address, so that each connection has
   * a fresh one. `null` or `undefined` closes for good: nobody is signed in any more. A rejected
   * promise is a failed try.
   */
  token?: string | ((again: Again) => Token | Promise<Token>) | null;
  /** The query parameter of the token. Default `"token"`. */
  tokenParam?: string;
  /** Bound of the first wait, in milliseconds; it doubles with each try. Default 500. */
  backoffMin?: number;
  /** The longest wait, in milliseconds, but for what the server asks. Default 30,000. */
  backoffMax?: number;
  /** For a connection to be open, token included, in milliseconds. Default 15,000. */
  openTimeout?: number;
  /** After so many milliseconds open, the waits begin anew. Default 5,000. */
  stableAfter?: number;
  /**
   * A connection on which nothing came for so many milliseconds is given up. Browsers do not show
   * a server's pings, so use it only where the server sends messages regularly. Default 0: off.
   */
  silence?: number;
  /**
   * Close codes of the server that are final. Default `[1000, 1008]`; 1008 with the reason
   * `expired` is not, where a callback gives token or address.
   */
  final?: number[];
  /** Messages that may wait for a connection. Default 256. */
  queueMessages?: number;
  /** Bytes that may wait; a character of text counts as 3. Default 1 MiB. */
  queueBytes?: number;
  /** Bytes in the browser's own buffer beyond which messages are queued. Default 1 MiB. */
  bufferedMax?: number;
  /** What binary messages come as. Default `"arraybuffer"`. */
  binaryType?: "arraybuffer" | "blob";
  /** A WebSocket to use in place of the global one, as in Node before version 22. */
  WebSocket?: typeof globalThis.WebSocket;
  /** For tests: numbers from 0 to 1 in place of `Math.random`. */
  random?: () => number;
}

export interface StateEvent {
  state: State;
  before: State;
  tries: number;
  /** How the last connection ended. */
  close: Close | null;
  /** When the next try begins, as `Date.now()` counts, in `waiting`. */
  retryAt?: number;
  /** How long that is from now, in milliseconds. */
  retryIn?: number;
}

export interface Events {
  /** A connection is open. What its listeners send goes before what has waited. */
  open: { first: boolean; protocol: string };
  message: { data: string | ArrayBuffer | Blob };
  state: StateEvent;
  /** Closed for good. */
  close: Close;
}

/** A WebSocket that comes back. It connects as soon as it is made. */
export class WsdSocket {
  constructor(
    url: string | URL | ((again: Again) => string | URL | Promise<string | URL>),
    options?: Options,
  );
  readonly state: State;
  /** When the next try begins, as `Date.now()` counts; `null` unless `waiting`. */
  readonly retryAt: number | null;
  /** What waits for a connection. */
  readonly queued: { messages: number; bytes: number };
  /** Calls `listener` at each event of that name. The answer ends that. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  /** Sends or queues. `false`: the queue is full, or the socket closed for good. */
  send(data: Message): boolean;
  /** Tries at once, where a next try is waited for. */
  retry(): void;
  /**
   * Closes for good. What was queued is dropped. Where there is a connection whose WebSocket throws
   * since code or reason may not be sent, `close` throws as well, and nothing has changed.
   */
  close(code?: number, reason?: string): void;
}

/** The wait that a close reason asks for (`retry after N ms`), in milliseconds, or `null`. */
export function retryAfter(reason: string | null | undefined): number | null;
