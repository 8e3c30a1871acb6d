// The live view: asked every two seconds while it is looked at.

import { get } from "./api.js";
import { Bars } from "./chart.js";
import { byId, el, pressOne, setText } from "./dom.js";
import { drawExperts } from "./experts.js";
import { atMinute, atSecond, count, plural, usd } from "./format.js";

const EVERY = 2000;
const TILES = ["Generation", "Running now", "Requests", "Failed", "Spend today"];
const requests = new Bars("Requests");
const spend = new Bars("Spend");
let isShown = false;
let timer = 0;
let asking = null;
let last = null;

export function show() {
  isShown = true;
  poll();
}

export function hide() {
  isShown = false;
  clearTimeout(timer);
  asking?.abort();
}

async function poll() {
  clearTimeout(timer);
  if (!isShown || document.hidden) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    last = await get("admin/status", { signal: mine.signal });
    byId("live-error").hidden = true;
    draw(last);
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error);
    if (error.status === 401 || error.status === 403) return;
  }
  if (asking === mine) timer = setTimeout(poll, EVERY);
}

function fail(error) {
  setText(byId("live-state"), "Not up to date");
  const node = byId("live-error");
  const hint = error.status === 403 ? " Use one made with 'expert-composer keys create NAME --admin'." : "";
  setText(node, error.message + hint);
  node.hidden = false;
  if (error.status === 401) {
    document.dispatchEvent(new CustomEvent("key-needed", { detail: error.message }));
  }
}

function draw(status) {
  setText(byId("live-state"), "Up to date, every 2 s");
  drawReload(status.last_reload);
  drawTiles(status);
  drawCharts(status);
  drawExperts(status.experts);
}

function drawReload(reload) {
  const node = byId("refused");
  const isRefused = reload !== null && !reload.ok;
  if (isRefused && node.dataset.time !== reload.time + reload.error) {
    node.dataset.time = reload.time + reload.error;
    node.replaceChildren(
      el("p", {}, el("strong", {}, "The last edit was refused"), ` at ${atSecond(reload.time)}; the last good one serves on.`),
      el("pre", {}, reload.error),
    );
  }
  if (!isRefused) delete node.dataset.time;
  node.hidden = !isRefused;
}

function drawTiles(status) {
  const hour = total(status.minutes);
  const reload = status.last_reload;
  const edit = reload === null ? "no edit since the start" : reload.ok ? `edited ${atSecond(reload.time)}` : "last edit refused";
  const waiting = sum(status.experts, "waiting");
  const busy = sum(status.experts, "in_flight") - waiting;
  tile("Generation", status.generation, edit);
  tile("Running now", count(busy), waiting ? `${count(waiting)} waiting` : "none waiting");
  tile("Requests", count(hour.requests), "last hour");
  tile("Failed", count(hour.errors), `of ${plural(hour.requests, "request")}`, hour.errors > 0);
  tile("Spend today", usd(status.today.usd), `${usd(hour.usd)} last hour`);
}

function tile(name, value, note, isBad = false) {
  const tiles = byId("tiles");
  let node = [...tiles.children].find((each) => each.dataset.name === name);
  if (!node) {
    node = el("div", { "data-name": name }, el("dt", {}, name), el("dd", {}), el("dd", { class: "note" }));
    tiles.append(node);
  }
  setText(node.children[1], String(value));
  setText(node.children[2], note);
  node.classList.toggle("bad", isBad);
}

function drawCharts(status) {
  const span = byId("live").querySelector('.switch [aria-pressed="true"]').dataset.span;
  const points = status[span];
  const whole = total(points);
  const from = atMinute(points[0].time);
  const each = span === "minutes" ? "a minute" : "an hour";
  setText(requests.title, `Requests ${each}`);
  setText(spend.title, `Spend ${each}`);
  requests.draw(
    points.map((p) => ({ value: p.requests, bad: p.errors, label: `${atMinute(p.time)}: ${plural(p.requests, "request")}, ${p.errors} failed` })),
    { top: count, total: count(whole.requests), from, words: `${plural(whole.requests, "request")} since ${from}, ${whole.errors} failed` },
  );
  spend.draw(
    points.map((p) => ({ value: p.usd, label: `${atMinute(p.time)}: ${usd(p.usd)}` })),
    { top: usd, total: usd(whole.usd), from, words: `${usd(whole.usd)} since ${from}` },
  );
}

const sum = (items, name) => items.reduce((all, item) => all + item[name], 0);
const total = (points) => ({ requests: sum(points, "requests"), errors: sum(points, "errors"), usd: sum(points, "usd") });

// Their places are kept from the start, so that nothing moves once the numbers come.
for (const name of TILES) tile(name, "–", "\u00a0");
byId("chart-requests").append(requests.node);
byId("chart-spend").append(spend.node);
byId("live").querySelector(".switch").addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  pressOne(event.currentTarget, pressed);
  if (last) drawCharts(last);
});
document.addEventListener("visibilitychange", poll);
