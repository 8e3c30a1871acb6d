// The conversation: what is asked of which model, and the answers as they come.

import { get, post } from "./api.js";
import { byId, el } from "./dom.js";
import { openCode } from "./snippets.js";
import { dryRun } from "./decision.js";
import { Turn } from "./turn.js";

const form = byId("settings");
const question = byId("question");
const send = byId("send");
const scroller = byId("scroller");
let turns = [];
let running = null;
let generation = null;

export function show(link) {
  if (link.size) fill(link);
  if (!byId("model").dataset.isLoaded) refresh();
  if (matchMedia("(min-width: 56rem)").matches) question.focus({ preventScroll: true });
}

export function hide() {}

// Read which names may stand under "model"; an edit of the file changes them.
export async function refresh() {
  try {
    const { data } = await get("v1/models");
    fillModels(data);
  } catch (error) {
    if (error.status === 401) keyNeeded(error);
    else notice(error);
  }
}

function fillModels(data) {
  const model = byId("model");
  const isLinked = model.dataset.wanted !== undefined;
  const wanted = model.dataset.wanted ?? model.value;
  const isExpert = (each) => each.kind === "llm";
  const group = (label, models) =>
    el("optgroup", { label }, ...models.map(({ id }) => el("option", { value: id }, id)));
  const answers = data.filter((each) => !["retriever", "reranker"].includes(each.kind));
  const groups = [
    group("Compositions", answers.filter((each) => !isExpert(each))),
    group("Experts", answers.filter(isExpert)),
  ];
  model.replaceChildren(...groups.filter((each) => each.children.length));
  model.dataset.isLoaded = "yes";
  delete model.dataset.wanted;
  const isListed = answers.some(({ id }) => id === wanted);
  // A link may name what no list holds, a router with a threshold: the server knows whether it is.
  if (wanted && !isListed && isLinked) model.append(el("option", { value: wanted }, wanted));
  if (isListed || isLinked) model.value = wanted;
}

function fill(link) {
  for (const name of ["system", "temperature", "max_tokens", "retrieval"]) {
    if (link.has(name)) form.elements[name].value = link.get(name);
  }
  if (link.has("prompt")) question.value = link.get("prompt");
  if (link.has("model")) {
    byId("model").dataset.wanted = link.get("model");
    delete byId("model").dataset.isLoaded;
  }
}

// What is asked for: the settings, the answered turns so far, and a question.
function request(text, before = turns) {
  const messages = [];
  const system = form.elements.system.value;
  if (system.trim()) messages.push({ role: "system", content: system });
  for (const turn of before) {
    if (!turn.text) continue;
    messages.push({ role: "user", content: turn.question }, { role: "assistant", content: turn.text });
  }
  messages.push({ role: "user", content: text });
  const body = { model: byId("model").value, messages };
  for (const name of ["temperature", "max_tokens"]) {
    const { value } = form.elements[name];
    if (value !== "") body[name] = Number(value);
  }
  const retrieval = form.elements.retrieval.value;
  if (retrieval) body.retrieval = retrieval;
  return body;
}

async function submit(event) {
  event?.preventDefault();
  const text = question.value;
  if (running) return;
  if (!text.trim() || !isValid()) return question.focus();
  question.value = "";
  await run(text, request(text));
}

async function run(text, body) {
  const turn = new Turn(text, body, { retry, follow });
  turns.push(turn);
  byId("empty").hidden = true;
  byId("log").append(turn.node);
  follow(true);
  setRunning(turn);
  try {
    await turn.run();
  } finally {
    setRunning(null);
    follow();
  }
  if (turn.error?.status === 401) keyNeeded(turn.error);
  if (generation !== null && turn.generation !== null && generation !== turn.generation) refresh();
  generation = turn.generation ?? generation;
}

function retry(turn) {
  if (running) return;
  const before = turns.slice(0, turns.indexOf(turn));
  turns = turns.filter((each) => each !== turn);
  turn.node.remove();
  run(turn.question, request(turn.question, before));
  question.focus();
}

function setRunning(turn) {
  running = turn;
  byId("log").setAttribute("aria-busy", String(turn !== null));
  send.textContent = turn ? "Stop" : "Send";
  send.type = turn ? "button" : "submit";
  send.classList.toggle("stop", turn !== null);
  byId("dry").disabled = turn !== null;
}

// Stay at the end of the conversation, unless the reader has gone up.
function follow(isForced = false) {
  const { scrollHeight, scrollTop, clientHeight } = scroller;
  if (isForced || scrollHeight - scrollTop - clientHeight < 120) scroller.scrollTop = scrollHeight;
}

async function dry() {
  const text = question.value || turns.at(-1)?.question || "";
  if (!text.trim() || !isValid()) return question.focus();
  byId("empty").hidden = true;
  const node = el("article", { class: "turn dry", "aria-label": "Who would answer" });
  byId("log").append(node);
  try {
    node.append(dryRun(text, await post("v1/route", request(text))));
  } catch (error) {
    node.remove();
    if (error.status === 401) keyNeeded(error);
    else notice(error);
  }
  follow(true);
}

function isValid() {
  if (!form.checkValidity()) byId("more").open = true;
  return form.reportValidity();
}

function notice(error) {
  byId("log").append(el("p", { class: "alert" }, error.message));
}

function keyNeeded(error) {
  document.dispatchEvent(new CustomEvent("key-needed", { detail: error.message }));
}

function startAnew() {
  running?.stop();
  turns = [];
  byId("log").replaceChildren();
  byId("empty").hidden = false;
  question.focus();
}

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
byId("ask").addEventListener("submit", submit);
send.addEventListener("click", (event) => {
  if (!running) return;
  event.preventDefault();
  running.stop();
  question.focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.stop();
});
byId("dry").addEventListener("click", dry);
byId("new").addEventListener("click", startAnew);
byId("request").addEventListener("click", () =>
  openCode(request(question.value || turns.at(-1)?.question || "Hello", question.value ? turns : turns.slice(0, -1))));
byId("examples").addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  question.value = event.target.textContent;
  question.focus();
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("focus", () => byId("playground").hidden || refresh());
if (!matchMedia("(min-width: 56rem)").matches) byId("more").open = false;
