// The table of experts: one row each, changed in place, sorted and narrowed by the reader.

import { byId, el, setText } from "./dom.js";
import { count, milliseconds, plural, usd } from "./format.js";

const load = (expert) => expert.in_flight; // those that wait included
const COLUMNS = [
  { name: "Expert", of: (e) => e.name, isText: true },
  { name: "Tier", of: (e) => e.tier ?? "", isText: true },
  { name: "Load", of: load },
  { name: "Breaker", of: (e) => (e.breaker === "closed" ? 0 : 1) },
  { name: "Requests", of: (e) => e.requests },
  { name: "Errors", of: (e) => e.errors },
  { name: "Mean", of: (e) => e.mean_ms ?? -1 },
  { name: "Spend", of: (e) => e.usd },
];
const rows = new Map();
let experts = [];
let sorted = null;
let isDown = false;

export function drawExperts(found = experts) {
  experts = found;
  const most = Math.max(...experts.map((expert) => expert.usd), 0);
  const names = new Set(experts.map((expert) => expert.name));
  for (const [name, row] of rows) if (!names.has(name)) rows.delete(name) && row.node.remove();
  for (const expert of experts) update(expert, most);
  const wanted = byId("find").value.trim().toLowerCase();
  const shown = ordered().filter((e) => `${e.name} ${e.kind} ${e.backend}`.toLowerCase().includes(wanted));
  place(shown.map((expert) => rows.get(expert.name).node));
  const isNarrowed = shown.length !== experts.length;
  setText(byId("found"), isNarrowed ? `${shown.length} of ${plural(experts.length, "expert")}` : plural(experts.length, "expert"));
}

function update(expert, most) {
  if (!rows.has(expert.name)) rows.set(expert.name, newRow(expert));
  const { cells, sub, bar, breaker } = rows.get(expert.name);
  setText(sub, `${expert.kind} · ${expert.backend}`);
  setText(cells.Tier, expert.tier ?? "–");
  setText(cells.Load, loadText(expert));
  cells.Load.classList.toggle("active", load(expert) > 0);
  setText(breaker, expert.breaker ?? "–");
  breaker.className = expert.breaker ? `chip ${expert.breaker}` : "";
  setText(cells.Requests, count(expert.requests));
  setText(cells.Errors, count(expert.errors));
  cells.Errors.classList.toggle("bad", expert.errors > 0);
  setText(cells.Mean, milliseconds(expert.mean_ms));
  setText(cells.Spend.firstChild, usd(expert.usd));
  bar.style.setProperty("--share", most ? expert.usd / most : 0);
}

function loadText({ in_flight, waiting }) {
  if (in_flight === null) return "–"; // a retriever
  if (!in_flight) return "idle";
  return waiting ? `${count(in_flight - waiting)} + ${count(waiting)} waiting` : count(in_flight);
}

function newRow(expert) {
  const cells = Object.fromEntries(COLUMNS.slice(1).map(({ name }) => [name, el("td", { "data-label": name })]));
  const sub = el("span", { class: "sub" });
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  const breaker = el("span", {});
  cells.Spend.append(el("span", {}), bar);
  cells.Breaker.append(breaker);
  const head = el("th", { scope: "row" }, el("span", { class: "name" }, expert.name), sub);
  return { cells, sub, bar, breaker, node: el("tr", {}, head, ...Object.values(cells)) };
}

function ordered() {
  if (!sorted) return experts;
  const { of, isText } = sorted;
  const compare = isText ? (a, b) => of(a).localeCompare(of(b)) : (a, b) => of(a) - of(b);
  return [...experts].sort((a, b) => (isDown ? -1 : 1) * compare(a, b));
}

// Touch the table only where the order differs: a row with a selection in it stays.
function place(nodes) {
  const body = byId("experts");
  const isSame = nodes.length === body.children.length && nodes.every((node, i) => body.children[i] === node);
  if (!isSame) body.replaceChildren(...nodes);
}

function sortBy(column, heads) {
  isDown = sorted === column ? !isDown : !column.isText;
  sorted = column;
  heads.forEach((head, i) => {
    if (COLUMNS[i] === column) head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  drawExperts();
}

const heads = COLUMNS.map((column) => el(
  "th", { scope: "col" }, el("button", { type: "button", click: () => sortBy(column, heads) }, column.name),
));
byId("columns").append(...heads);
byId("find").addEventListener("input", () => drawExperts());
