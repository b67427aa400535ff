// A page that chats over one WebSocket, in a real Chromium.
//
//   node page.mjs PAGE-URL WORDS ANSWER
//
// Tells the page's prompt a name, types WORDS into its input, and waits for a line that has
// ANSWER. Prints "ok" and exits 0, or tells what was wrong and exits 1. CHROMIUM names the
// browser (default /usr/bin/chromium).

import { chromium } from "playwright-core";

const [url, words, answer] = process.argv.slice(2);
const DEADLINE_MS = 20_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.on("dialog", (dialog) => dialog.accept("Ada"));
  page.on("pageerror", (error) => console.error(`the page: ${error.message}`));
  // Pages say that their socket is open, in one of two ways.
  const said = page.waitForEvent("console", (message) => message.text().includes("open"));
  page.on("console", (message) => console.error(`the console: ${message.text()}`));
  await page.goto(url);
  const shown = page.waitForFunction(() => document.body.dataset.state === "open");
  await Promise.any([said, shown]);
  said.catch(() => {});
  shown.catch(() => {});
  await page.locator("#input").fill(words);
  await page.keyboard.press("Enter");
  await page.locator("div", { hasText: answer }).first().waitFor();
  console.log("ok");
} catch (error) {
  console.error(`page.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
