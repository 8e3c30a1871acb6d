// One question and its answer: streamed, then told whole from the decision log.

import { ask, events, get, post } from "./api.js";
import { hasFailed, passagesOf, story } from "./decision.js";
import { button, el, icon, setText } from "./dom.js";
import { plural, seconds, usd } from "./format.js";
import { copyText, RichText } from "./rich.js";
import { openCode } from "./snippets.js";

// A request is in the log half a second after its end.
const LOOKS = [800, 1500, 3000];
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export class Turn {
  #abort = new AbortController();
  #rich = new RichText();
  #times = {};
  #id = null;
  #usage = null;
  #headers = null;
  #retrieval = null;
  error = null;
  generation = null;

  constructor(question, body, { retry, follow }) {
    Object.assign(this, { question, body, follow });
    this.expert = el("strong", { class: "expert waiting" }, body.model);
    this.state = el("span", { class: "muted" }, "is being asked");
    this.alert = el("div", { class: "alert", hidden: true });
    this.facts = el("ul", { class: "facts" });
    this.passages = el("details", { class: "why", hidden: true });
    this.why = el("details", { class: "why", hidden: true }, el("summary", {}, "Why this expert"));
    this.tools = this.#tools(retry);
    this.node = el(
      "article", { class: "turn" },
      el("p", { class: "question" }, el("span", { class: "sr" }, "You: "), question),
      el(
        "div", { class: "answer" },
        el("p", { class: "who" }, this.expert, " ", this.state),
        this.#rich.node, this.alert,
        el("div", { class: "foot" }, this.facts, this.tools),
        this.passages, this.why,
      ),
    );
  }

  get text() {
    return this.error ? "" : this.#rich.text;
  }

  stop() {
    this.#abort.abort();
  }

  async run() {
    this.#times.began = performance.now();
    try {
      await this.#read();
      setText(this.state, "answered");
    } catch (error) {
      if (error.name === "AbortError") setText(this.state, "was stopped");
      else this.#fail(error);
    }
    this.#times.ended = performance.now();
    this.#rich.show();
    this.expert.classList.remove("waiting");
    this.#rich.node.hidden = !this.#rich.text;
    for (const each of this.tools.querySelectorAll(".of-answer")) each.disabled = !this.#rich.text;
    this.#tell();
    if (this.#retrieval) {
      this.passages.replaceChildren(...passagesOf(this.#retrieval));
      this.passages.hidden = false;
    }
    this.#explain();
  }

  async #read() {
    const body = { ...this.body, stream: true, stream_options: { include_usage: true } };
    const response = await ask("v1/chat/completions", { body, signal: this.#abort.signal });
    this.#headers = response.headers;
    this.generation = response.headers.get("x-composer-generation");
    setText(this.expert, response.headers.get("x-composer-expert") ?? this.body.model);
    setText(this.state, "is answering");
    for await (const event of events(response)) {
      this.#id = event.id ?? this.#id;
      this.#usage = event.usage ?? this.#usage;
      this.#retrieval = event.retrieval ?? this.#retrieval;
      const delta = event.choices?.[0]?.delta ?? {};
      const piece = delta.content ?? delta.refusal;
      if (delta.tool_calls) this.#add(JSON.stringify(delta.tool_calls));
      if (piece) this.#add(piece);
    }
  }

  #add(piece) {
    this.#times.first ??= performance.now();
    this.#rich.add(piece);
    requestAnimationFrame(() => this.follow());
  }

  #fail(error) {
    if (!error.status && error.type !== "connection") throw error;
    this.error = error;
    this.node.classList.add("failed");
    setText(this.state, "did not answer");
    const facts = [
      error.status >= 400 ? `HTTP ${error.status}` : null,
      error.code, error.param ? `field ${error.param}` : null,
      error.retryAfter ? `come again in ${error.retryAfter} s` : null,
      error.requestId,
    ];
    this.alert.replaceChildren(
      el("p", {}, error.message),
      el("p", { class: "muted" }, facts.filter(Boolean).join(" · ")),
    );
    this.alert.hidden = false;
  }

  // What took how long, and what it cost as soon as the log tells.
  #tell(record = null) {
    const { began, first, ended } = this.#times;
    const tokens = record ?? this.#usage;
    const calls = record?.steps?.length ?? Number(this.#headers?.get("x-composer-attempts") ?? 0);
    const failed = record
      ? record.steps.filter(hasFailed).length
      : Number(this.#headers?.get("x-composer-fallbacks") ?? 0);
    const facts = [
      record ? usd(record.cost) : null,
      tokens ? `${tokens.prompt_tokens} + ${tokens.completion_tokens} tokens` : null,
      first ? `first token ${seconds((first - began) / 1000)}` : null,
      `total ${seconds((ended - began) / 1000)}`,
      calls > 1 || failed ? `${plural(calls, "call")}, ${failed} failed` : null,
    ];
    this.facts.replaceChildren(...facts.filter(Boolean).map((fact) => el("li", {}, fact)));
  }

  async #explain() {
    const id = this.#headers?.get("x-request-id") ?? this.error?.requestId;
    if (!id || [401, 404, 403].includes(this.error?.status)) return;
    for (const ms of LOOKS) {
      await wait(ms);
      try {
        const record = await get(`v1/decisions/${encodeURIComponent(id)}`);
        this.#tell(record);
        if (record.expert) setText(this.expert, record.expert);
        if (record.decision || record.steps.length) {
          this.why.append(story(record));
          this.why.hidden = false;
          this.follow();
        }
        return;
      } catch (error) {
        if (error.status !== 404) return;
      }
    }
  }

  #tools(retry) {
    const grade = (quality, label, name) => button(
      label, { class: "icon-button of-answer", "aria-pressed": "false", "data-quality": String(quality), click: (event) => this.#grade(quality, event.currentTarget) }, icon(name),
    );
    const copy = button("Copy the answer", { class: "icon-button of-answer", click: () => copyText(this.#rich.text, copy) }, icon("copy"));
    return el(
      "div", { class: "tools" },
      grade(1, "Good answer", "up"), grade(0, "Bad answer", "down"), copy,
      button("Use from code", { class: "icon-button", click: () => openCode(this.body) }, icon("code")),
      button("Ask again", { class: "icon-button", click: () => retry(this) }, icon("again")),
      this.graded = el("span", { class: "muted", role: "status" }),
    );
  }

  async #grade(quality, pressed) {
    if (!this.#id) return setText(this.graded, "There is no answer to grade");
    try {
      await post("v1/feedback", { id: this.#id, quality });
      for (const each of this.tools.querySelectorAll("[data-quality]")) {
        each.setAttribute("aria-pressed", String(each === pressed));
      }
      setText(this.graded, "Noted");
    } catch (error) {
      setText(this.graded, error.message);
    }
  }
}
