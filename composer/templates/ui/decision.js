// Why an expert was chosen: candidates with their numbers, calls that were made, passages found.

import { el } from "./dom.js";
import { fixed, plural, seconds, usd } from "./format.js";

const FEW = 6;

// The whole story of a logged request.
export function story(record) {
  const { decision, steps } = record;
  return el(
    "div", { class: "story" },
    decision ? chosen(decision) : null,
    steps.length ? calls(steps) : null,
    el("p", { class: "muted small" }, `${record.request_id} · generation ${record.generation}`),
  );
}

// What a request would lead to, without asking.
export function dryRun(question, decision) {
  return el(
    "div", { class: "answer" },
    el("p", { class: "who" }, el("strong", { class: "expert" }, decision.experts[0] ?? "nobody"),
      el("span", { class: "muted" }, " would answer, nobody was asked")),
    el("p", { class: "quoted" }, question),
    el("div", { class: "story" }, chosen(decision)),
  );
}

function chosen(decision) {
  const facts = [
    decision.router ? `router ${decision.router}` : null,
    decision.otherwise ? `otherwise ${decision.otherwise}` : null,
    ...Object.entries(decision.details ?? {}).filter(([, value]) => hasWorth(value)).map(([name, value]) => `${name} ${plain(value)}`),
  ];
  return el(
    "div", {},
    el("p", { class: "because" }, decision.reason),
    facts.some(Boolean) ? el("p", { class: "muted small" }, facts.filter(Boolean).join(" · ")) : null,
    decision.candidates?.length ? candidates(decision) : null,
    decision.retrieval ? retrieved(decision.retrieval) : null,
  );
}

function candidates(decision) {
  const primary = decision.experts[0];
  const rank = (c) => (c.expert === primary ? 2 : c.excluded ? 0 : 1);
  const ranked = [...decision.candidates].sort(
    (a, b) => rank(b) - rank(a) || (b.utility ?? -Infinity) - (a.utility ?? -Infinity),
  );
  const rows = ranked.map((candidate) => row(candidate, decision));
  const table = (some) => el(
    "table", { class: "candidates" },
    el("thead", {}, el("tr", {}, ...["Expert", "Quality", "Cost", "Utility"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...some),
  );
  if (rows.length <= FEW + 2) return table(rows);
  return el(
    "div", {},
    table(rows.slice(0, FEW)),
    el("details", { class: "rest" }, el("summary", {}, `${rows.length - FEW} more candidates`), table(rows.slice(FEW))),
  );
}

function row(candidate, decision) {
  const isPrimary = candidate.expert === decision.experts[0];
  const isUsd = !decision.cost_unit || decision.cost_unit.toLowerCase() === "usd";
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", Math.max(0, Math.min(1, candidate.quality ?? 0)));
  const cost = candidate.cost === null ? "?" : isUsd ? usd(candidate.cost) : `${fixed(candidate.cost, 2)} ${decision.cost_unit}`;
  return el(
    "tr", { class: isPrimary ? "chosen" : candidate.excluded ? "excluded" : null },
    el("th", { scope: "row" }, candidate.expert, candidate.excluded ? el("span", { class: "reason" }, candidate.excluded) : null),
    el("td", { "data-label": "Quality" }, bar, `${fixed(candidate.quality)} ± ${fixed(candidate.error)}`),
    el("td", { "data-label": "Cost" }, cost),
    el("td", { "data-label": "Utility" }, fixed(candidate.utility)),
  );
}

// An expert that was stopped did not fail.
export const hasFailed = (step) => Boolean(step.error) && step.error !== "CancelledError";

function calls(steps) {
  const line = (step) => el(
    "li", { class: hasFailed(step) ? "failed" : null },
    el("strong", {}, step.expert),
    step.error && !hasFailed(step) ? ` was stopped after ${seconds(step.seconds)}` :
    step.error ? ` failed with ${step.error} after ${seconds(step.seconds)}` : ` answered in ${seconds(step.seconds)}`,
    ` · ${step.usage.prompt_tokens} + ${step.usage.completion_tokens} tokens${step.is_estimated ? " (estimated)" : ""} · ${usd(step.cost)}`,
  );
  return el("div", {}, el("h3", {}, "Calls"), el("ol", { class: "calls" }, ...steps.map(line)));
}

// What was put before the question, for a disclosure: its summary, the reason, the passages.
export function passagesOf({ store, reason, passages, citations }) {
  const cited = new Set(citations.map(({ passage }) => passage));
  const line = (passage) => el(
    "li", { value: passage.index },
    el("strong", {}, passage.title || passage.id),
    el("span", { class: "muted" }, ` ${[passage.store, passage.source, fixed(passage.score), cited.has(passage.index) ? "cited" : null].filter(Boolean).join(" · ")}`),
    el("p", {}, passage.text),
  );
  const what = passages.length ? `${plural(passages.length, "passage")} from ${store}` : "No passages";
  return [
    el("summary", {}, what),
    el(
      "div", { class: "story" },
      el("p", { class: "because" }, reason),
      passages.length ? el("ol", { class: "passages" }, ...passages.map(line)) : null,
    ),
  ];
}

function retrieved({ stage, reason, arms }) {
  const rows = arms.map(({ arm, quality, cost }) => el("li", {}, el("strong", {}, arm), ` quality ${fixed(quality)}, price ${fixed(cost)}`));
  return el(
    "div", { class: "also" },
    el("h3", {}, "Passages"),
    el("p", {}, reason, el("span", { class: "muted" }, ` · decided by the ${stage}`)),
    rows.length ? el("ol", { class: "calls" }, ...rows) : null,
  );
}

function hasWorth(value) {
  return value && (typeof value !== "object" || Object.keys(value).length > 0);
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value && typeof value === "object") return Object.entries(value).map(([k, v]) => `${k} ${plain(v)}`).join(", ");
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(2) : String(value);
}
