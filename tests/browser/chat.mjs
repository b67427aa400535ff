// Two tabs of a real Chromium chat across two workers of a running wsd.
//
//   node chat.mjs URL [--screenshot FILE] [--kill] [--reload] [--self-signed] [--tabs N]
//
// Tabs are opened until two of them sit on different workers, at most N (20). They chat both ways
// and each sees the other in its list; links can be clicked, another room is another room, and a
// tab that is loaded anew still shows what was said. With --kill it then prints "ready FD WORKER"
// with the fd and the worker of the first tab, waits for a line "killed" on stdin, and checks that
// this tab comes back by itself, that the other never lost its connection, that both are listed
// once, and that both chat again. With --reload it prints "reload", waits for a line "reloaded",
// and checks that both tabs kept their connections. Prints "ok …" and exits 0, or tells what was
// wrong and exits 1. CHROMIUM names the browser (default /usr/bin/chromium).

import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    screenshot: { type: "string" },
    kill: { type: "boolean", default: false },
    reload: { type: "boolean", default: false },
    "self-signed": { type: "boolean", default: false },
    tabs: { type: "string", default: "20" },
  },
});
const [url] = positionals;
if (!url) {
  console.error("usage: node chat.mjs URL [--screenshot FILE] [--kill] [--tabs N]");
  process.exit(2);
}
const DEADLINE_MS = 20_000;
const complaints = [];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
try {
  const [ada, bob] = await twoWorkers();
  await chat(ada, bob, "Hello from worker", "And hello back from worker");
  await sayMarkup(ada, bob);
  await sayLinks(ada, bob);
  await enterAnotherRoom(ada, bob);
  await loadAnew(ada, bob);
  if (options.screenshot) await ada.page.screenshot({ path: options.screenshot });
  if (options.reload) await surviveReload(ada, bob);
  if (options.kill) await surviveKill(ada, bob);
  check(complaints.length === 0, `the console said: ${complaints.join("; ")}`);
  console.log(`ok workers ${ada.worker} and ${bob.worker}`);
} catch (error) {
  console.error(`chat.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
// An open stdin would keep the process.
process.exit();

// --- the steps

async function twoWorkers() {
  const ada = await openTab("Ada");
  for (let tab = 1; tab < Number(options.tabs); tab += 1) {
    const bob = await openTab("Bob");
    if (bob.worker !== ada.worker) return [ada, bob];
    await bob.context.close();
  }
  throw new Error(`${options.tabs} tabs all sat on worker ${ada.worker}`);
}

// Each tab has a context, and so a localStorage, of its own: it is another person.
async function openTab(nick) {
  const context = await browser.newContext({
    viewport: { width: 1180, height: 760 },
    ignoreHTTPSErrors: options["self-signed"],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.on("pageerror", (error) => complaints.push(`${nick}: ${error.message}`));
  page.on("console", (message) => {
    // A refused connection is what a reconnecting page must live with.
    const expected = message.text().includes("WebSocket connection to");
    if (message.type() === "error" && !expected) complaints.push(`${nick}: ${message.text()}`);
  });
  await page.goto(url);
  await page.getByLabel("Name", { exact: true }).fill(nick);
  await page.getByRole("button", { name: "Join" }).click();
  await connected(page);
  return { nick, context, page, ...(await place(page)) };
}

async function chat(ada, bob, ...words) {
  for (const [from, to, text] of [[ada, bob, words[0]], [bob, ada, words[1]]]) {
    const line = `${text} ${from.worker}`;
    await from.page.getByLabel("Message", { exact: true }).fill(line);
    await from.page.getByRole("button", { name: "Send" }).click();
    const shown = to.page.locator(`.message[data-fd="${from.fd}"] .text`, { hasText: line });
    await shown.waitFor();
    const own = from.page.locator(".message.mine .text", { hasText: line });
    await own.waitFor();
  }
  for (const [one, other] of [[ada, bob], [bob, ada]]) {
    await one.page.locator(`#people li[data-nick="${other.nick}"]`).waitFor();
    await one.page.locator(`#people li.self[data-nick="${one.nick}"]`).waitFor();
  }
}

async function sayMarkup(from, to) {
  const markup = "<img src=x onerror=alert(1)> is shown as it was typed";
  await say(from, markup);
  await to.page.locator(".message .text", { hasText: markup }).waitFor();
  const elements = await to.page.locator("#log img").count();
  check(elements === 0, "markup of a message became an element");
}

async function sayLinks(from, to) {
  const words = "See https://example.org/a?b=1#c, not javascript:alert(1) or http://[.";
  await say(from, words);
  const text = to.page.locator(".message .text", { hasText: words });
  await text.waitFor();
  const links = await text.locator("a").evaluateAll((all) =>
    all.map((link) => [link.getAttribute("href"), link.textContent, link.rel, link.target]));
  const [url, safe] = ["https://example.org/a?b=1#c", "noopener noreferrer nofollow"];
  const wanted = JSON.stringify([[url, url, safe, "_blank"]]);
  check(JSON.stringify(links) === wanted, `the links are ${JSON.stringify(links)}`);
}

// Bob goes elsewhere: he hears nothing of the lobby, and has what he heard when he is back.
async function enterAnotherRoom(ada, bob) {
  await enter(bob, "cats & dogs");
  await ada.page.locator(`#people li[data-nick="Bob"]`).waitFor({ state: "detached" });
  await say(ada, "Is anybody in the lobby?");
  await say(bob, "Nobody but me is with the cats");
  await bob.page.locator(".message.mine", { hasText: "with the cats" }).waitFor();
  check(await bob.page.locator(".message").count() === 1, "a room has more than was said in it");
  await enter(bob, "lobby");
  await bob.page.locator(".message", { hasText: "Hello from worker" }).waitFor();
  check(await shows(bob, "in the lobby?") === 0, "a message reached one who was elsewhere");
  await ada.page.locator(`#people li[data-nick="Bob"]`).waitFor();
  check(await shows(ada, "with the cats") === 0, "a message left its room");
}

// Again where it comes to the other's worker, since they are to be on two.
async function loadAnew(tab, other) {
  for (let time = 0; time < Number(options.tabs); time += 1) {
    await tab.page.reload();
    await connected(tab.page);
    await tab.page.locator(".message.mine", { hasText: "in the lobby?" }).waitFor();
    check(await shows(tab, "in the lobby?") === 1, "a message is shown twice");
    Object.assign(tab, await place(tab.page));
    if (tab.worker !== other.worker) return;
  }
  throw new Error(`loaded anew ${options.tabs} times, always on worker ${other.worker}`);
}

async function surviveReload(ada, bob) {
  console.log("reload");
  await line("reloaded");
  await chat(ada, bob, "Before and after, on worker", "Here all the time, on worker");
  for (const tab of [ada, bob]) {
    const { fd } = await place(tab.page);
    check(fd === tab.fd, `${tab.nick} lost the connection to a reload`);
  }
}

async function surviveKill(ada, bob) {
  console.log(`ready ${ada.fd} ${ada.worker}`);
  await line("killed");
  const old = ada.fd;
  await ada.page.waitForFunction((fd) => document.body.dataset.fd !== fd, old);
  await connected(ada.page);
  Object.assign(ada, await place(ada.page));
  check((await place(bob.page)).fd === bob.fd, "the other tab lost its connection");
  for (const tab of [ada, bob]) {
    await tab.page.waitForFunction(() => document.getElementById("count").textContent === "2");
  }
  await chat(ada, bob, "Back again, on worker", "Never left worker");
}

// --- the means

async function say(from, words) {
  await from.page.getByLabel("Message", { exact: true }).fill(words);
  await from.page.keyboard.press("Enter");
}

async function enter(tab, room) {
  await tab.page.getByLabel("Room", { exact: true }).fill(room);
  await tab.page.getByRole("button", { name: "Enter" }).click();
  const hash = `#${encodeURIComponent(room)}`;
  await tab.page.waitForFunction((hash) => location.hash === hash, hash);
}

async function shows(tab, words) {
  return tab.page.locator(".message .text", { hasText: words }).count();
}

async function connected(page) {
  await page.waitForFunction(() => document.body.dataset.state === "open");
}

async function place(page) {
  return page.evaluate(() => ({
    fd: document.body.dataset.fd,
    worker: document.body.dataset.worker,
  }));
}

async function line(wanted) {
  for await (const text of createInterface({ input: process.stdin })) {
    if (text.trim() === wanted) return;
  }
  throw new Error(`stdin ended before "${wanted}"`);
}

function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}
