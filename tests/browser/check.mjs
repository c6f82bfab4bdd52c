// An operator's way through the dashboard, in Chromium. Usage: node check.mjs TUNNEL TCP SECRET HOSTILE_KEY
// TUNNEL is the unix socket behind a loopback port, as `ssh -L` makes it. HUBSYNCD_SCREENSHOTS=FOLDER keeps pictures.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [tunnel, tcp, secret, hostile] = process.argv.slice(2);
const pictures = process.env.HUBSYNCD_SCREENSHOTS;
const TRIGGER = "/api/admin/cron/batch-sync-hubspot";
const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
assert.ok(executablePath, "there is no Chromium");

const profile = mkdtempSync(join(tmpdir(), "hubsyncd-browser-"));
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--crash-dumps-dir=${profile}`,
  ],
});

// A page in which every error that the browser notes is kept: of scripts, of the content security policy.
async function open(options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.errors = [];
  page.asked = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => page.errors.push(message.text()));
  page.on("request", (request) => page.asked.push(request.url()));
  return page;
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

// As many pixels wide as the window, not wider.
async function fits(page, width) {
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
}

const checks = {
  async "the overview loads, says how things are, and asks nobody else"() {
    const page = await open({ viewport: { width: 1280, height: 900 } });
    const answer = await page.goto(tunnel);
    assert.equal(answer.status(), 200);
    assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
    assert.match(await page.title(), /hubsyncd/);
    assert.equal(await page.locator(".tile", { hasText: "Refused" }).locator(".value").innerText(), "2");
    // Drawn: a path that an unclosed one swallows has no size.
    const drawn = await page.evaluate(() =>
      [...document.querySelectorAll("svg[role=img]")].map((svg) =>
        [...svg.querySelectorAll("path.line")].filter((path) => path.getBoundingClientRect().width > 0).length));
    assert.deepEqual(drawn, [1, 2]);
    assert.equal(await page.locator("script").count(), 0);
    const banner = await page.locator(".banner").evaluate((banner) => getComputedStyle(banner).borderLeftWidth);
    assert.equal(banner, "8px", "the style sheet is in force");
    const elsewhere = page.asked.filter((url) => !url.startsWith(tunnel) && !url.startsWith("data:"));
    assert.deepEqual(elsewhere, []);
    assert.deepEqual(page.errors, []);
    await picture(page, "overview-light");
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(dark, "rgb(14, 17, 22)");
    await picture(page, "overview-dark");
    await page.setViewportSize({ width: 390, height: 844 });
    await fits(page, 390);
    await picture(page, "overview-phone-dark");
    for (const path of ["failures", "changes", "runs"]) {
      await page.goto(`${tunnel}/dashboard/${path}`);
      await fits(page, 390);
      await picture(page, `${path}-phone-dark`);
    }
  },

  async "a hostile row is text"() {
    const page = await open({ viewport: { width: 1280, height: 900 } });
    for (const path of ["/", "/dashboard/failures"]) {
      await page.goto(tunnel + path);
      assert.match(await page.title(), /· hubsyncd$/);
      assert.equal(await page.locator("script, main img").count(), 0);
      const texts = await page.locator("code").allInnerTexts();
      assert.ok(texts.some((text) => text.includes(hostile)), `${path}: ${texts}`);
      assert.deepEqual(page.errors, []);
    }
    await picture(page, "failures-light");
    await page.locator("tbody").getByRole("link", { name: hostile }).click();
    await page.locator(".record").waitFor();
    assert.ok((await page.locator(".record").innerText()).includes(hostile));
    assert.equal(await page.locator("script, main img").count(), 0);
    assert.ok((await page.locator("table").innerText()).includes("•••"));
    assert.deepEqual(page.errors, []);
    await picture(page, "record-light");
    await page.setViewportSize({ width: 390, height: 844 });
    await fits(page, 390);
    await picture(page, "record-phone-light");
  },

  async "without scripts a failure is retried by its cause and goes, and one that is refused again stays"() {
    const page = await open({ javaScriptEnabled: false });
    await page.goto(tunnel);
    await page.getByRole("link", { name: "Failures" }).click();
    assert.equal(await page.locator(".cause").count(), 2);
    const cause = page.locator(".cause", { hasText: "things plain" });
    await cause.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("status").waitFor();
    assert.match(await page.getByRole("status").innerText(), /^1 record is tried again/);
    assert.equal(new URL(page.url()).pathname, "/dashboard/failures");
    await within("the retried record is no longer refused", async () => {
      await page.goto(`${tunnel}/dashboard/failures`);
      return (await page.locator(".cause").count()) === 1;
    });
    const left = page.locator("tbody tr");
    assert.ok((await left.innerText()).includes(hostile));
    const attempts = async () => Number(await left.locator("td[data-label=Attempts]").innerText());
    const before = await attempts();
    await left.getByRole("button", { name: "Try again" }).click();
    await within("the hostile row was tried again", async () => {
      await page.goto(`${tunnel}/dashboard/failures`);
      return (await attempts()) > before;
    });
    assert.deepEqual(page.errors, []);
  },

  async "the button begins a sweep, and the runs show it"() {
    const page = await open();
    await page.goto(tunnel);
    await page.getByRole("button", { name: "Sweep now" }).click();
    assert.match(await page.getByRole("status").innerText(), /The sweep that you asked for/);
    await within("the run is complete", async () => {
      await page.goto(`${tunnel}/dashboard/runs`);
      return /complete/.test(await page.locator("tbody").innerText());
    });
    await picture(page, "runs-light");
    assert.deepEqual(page.errors, []);
  },

  async "a page of another site can neither post nor get what acts"() {
    const form = (id, to) => `<form id=${id} method=post action="${tunnel}${to}"><button>${id}</button></form>`;
    const body = `${form("sweep", "/sweep")} ${form("retry", "/dashboard/retry")} ${form("trigger", TRIGGER)}
      <a href="${tunnel}${TRIGGER}">coins</a>`;
    for (const act of ["sweep", "retry", "trigger", "coins"]) {
      const page = await open();
      await page.route("http://evil.example/**", (route) => route.fulfill({ contentType: "text/html", body }));
      await page.goto("http://evil.example/");
      const refused = page.waitForResponse((answer) => answer.url().startsWith(tunnel));
      await page.getByText(act, { exact: true }).click();
      assert.equal((await refused).status(), 403, act);
    }
  },

  async "over TCP the secret buys a session for the pages and for nothing else"() {
    const page = await open({ viewport: { width: 390, height: 844 } });
    const answer = await page.goto(tcp);
    assert.equal(answer.status(), 401);
    await fits(page, 390);
    await picture(page, "sign-in-phone-light");
    await page.getByLabel("Cron secret").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    assert.match(await page.getByRole("alert").innerText(), /not the secret/);
    await page.getByLabel("Cron secret").fill(secret);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator(".banner").waitFor();
    const cookies = await page.context().cookies();
    assert.deepEqual(cookies.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, "Strict"]]);
    await page.getByRole("link", { name: "Runs" }).click();
    await page.getByText("Runs, the newest first").waitFor();
    for (const path of ["/status", "/failures", "/metrics", TRIGGER]) {
      assert.equal((await page.goto(tcp + path)).status(), 401, path);
    }
    const stranger = await open();
    for (const path of ["/", "/dashboard/failures", "/dashboard/changes", "/dashboard/runs"]) {
      assert.equal((await stranger.goto(tcp + path)).status(), 401, path);
    }
  },

  async "the overview loads again by itself"() {
    const page = await open({ javaScriptEnabled: false });
    await page.goto(`${tunnel}/?sweep=started`);
    await page.waitForURL(`${tunnel}/`, { timeout: 30_000 });
  },
};

async function within(what, happens) {
  const deadline = Date.now() + 20_000;
  while (!(await happens())) assert.ok(Date.now() < deadline, `waited in vain until ${what}`);
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
process.exitCode = failed > 0 ? 1 : 0;
