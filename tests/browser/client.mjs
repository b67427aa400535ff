// Runs client-story.js against a server that echoes, in Node or in a page of a real browser.
//
//   node client.mjs URL node
//   node client.mjs URL BROWSER [--option...]      such as chromium or firefox-esr
//
// Prints what the story says, one line each, and gives it what comes on stdin. The last line
// begins with "ok" where all went well; else the reason is on stderr and the status is 1. No
// driver is between: the browser opens a page of a small server here, as anybody's would.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [url, where, ...more] = process.argv.slice(2);
if (!where) {
  console.error("usage: node client.mjs URL node|BROWSER [--option...]");
  process.exit(2);
}
const DEADLINE_MS = 120_000;
const client = new URL("../../clients/js/", import.meta.url);

/** What came on stdin and nobody has taken, and who waits for a line. */
const lines = [];
const waiting = [];
createInterface({ input: process.stdin }).on("line", (line) => {
  lines.push(line.trim());
  waiting.splice(0).forEach((look) => look());
});
async function told(wanted) {
  while (!lines.includes(wanted)) await new Promise((look) => waiting.push(look));
  lines.splice(lines.indexOf(wanted), 1);
}

let clean = () => {};
function end(error) {
  clean();
  if (error) console.error(`client.mjs: ${error}`);
  process.exit(error ? 1 : 0);
}
setTimeout(() => end(`no end within ${DEADLINE_MS} ms`), DEADLINE_MS).unref();

if (where === "node") {
  const { WsdSocket } = await import(new URL("wsd.js", client));
  const { story } = await import("./client-story.js");
  await story(WsdSocket, { url, say: (line) => console.log(line), told }).then(
    () => end(),
    (error) => end(error.message),
  );
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>client</title>
<script src="/wsd.global.js"></script>
<script type="module">
import { WsdSocket } from "/wsd.js";
import { story } from "/client-story.js";
const post = (path, body) => fetch(path, { method: "POST", body });
// Lines go out in their order.
let posted = Promise.resolve();
const say = (line) => { posted = posted.then(() => post("/say", line)); };
try {
  const both = [WsdSocket, Wsd.WsdSocket];
  if (typeof both[1] !== "function") throw new Error("the script tag gave no Wsd.WsdSocket");
  await story(new URLSearchParams(location.search).has("global") ? both[1] : both[0], {
    url: ${JSON.stringify(url)}, say, told: (line) => post("/told", line),
  });
  await posted;
  post("/end", "");
} catch (error) {
  post("/end", String(error.message || error));
}
</script>`;
const FILES = {
  "/wsd.js": new URL("wsd.js", client),
  "/wsd.global.js": new URL("wsd.global.js", client),
  "/client-story.js": new URL("client-story.js", import.meta.url),
};
const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://a").pathname;
  if (path === "/") {
    return response.setHeader("content-type", "text/html").end(PAGE);
  }
  if (FILES[path]) {
    return response.setHeader("content-type", "text/javascript").end(readFileSync(FILES[path]));
  }
  let body = "";
  for await (const part of request) body += part;
  if (path === "/say") console.log(body);
  else if (path === "/told") await told(body);
  else if (path === "/end") setTimeout(() => end(body), 50);
  else response.statusCode = 404;
  response.end();
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const query = more.includes("--global") ? "?global" : "";
const page = `http://127.0.0.1:${server.address().port}/${query}`;

const profile = mkdtempSync(join(tmpdir(), "wsd-client-"));
let options;
if (where.includes("firefox")) {
  // Nothing of a first start, and no visit to its maker.
  const preferences = {
    "browser.shell.checkDefaultBrowser": false,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": false,
    "toolkit.telemetry.reportingpolicy.firstRun": false,
    "app.update.enabled": false,
    "network.captive-portal-service.enabled": false,
    "network.connectivity-service.enabled": false,
    "browser.safebrowsing.update.enabled": false,
    "extensions.getAddons.cache.enabled": false,
    "services.settings.server": "data:,",
  };
  const text = Object.entries(preferences)
    .map(([key, value]) => `user_pref(${JSON.stringify(key)}, ${JSON.stringify(value)});\n`);
  writeFileSync(join(profile, "user.js"), text.join(""));
  options = ["--headless", "--no-remote", "--profile", profile, page];
} else {
  options = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    `--user-data-dir=${profile}`, page,
  ];
}
const browser = spawn(where, options, {
  stdio: "ignore", detached: true, env: { ...process.env, HOME: profile },
});
clean = () => {
  // With the processes that it has started.
  try { process.kill(-browser.pid, "SIGKILL"); } catch { /* It has ended. */ }
  rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
};
browser.on("error", (error) => end(error.message));
browser.on("exit", (status) => end(`${where} ended with ${status}`));
