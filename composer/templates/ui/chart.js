// Bars over time, changed in place. What they show is said in words too.

import { el, setText, svg } from "./dom.js";

const HEIGHT = 96;

export class Bars {
  #bars = [];
  #size = 0;

  constructor(title) {
    this.title = el("h4", {}, title);
    this.total = el("span", { class: "total" });
    this.svg = svg("svg", { preserveAspectRatio: "none", role: "img", class: "bars" });
    this.top = el("span", { class: "tick top" });
    this.from = el("span", {});
    this.to = el("span", {}, "now");
    this.node = el(
      "figure", { class: "chart" },
      el("figcaption", {}, this.title, this.total),
      el("div", { class: "plot" }, this.top, this.svg),
      el("div", { class: "axis", "aria-hidden": "true" }, this.from, this.to),
    );
  }

  // points: {value, bad, label}, oldest first; bad is the part of the value that failed.
  draw(points, { top, total, from, words }) {
    if (this.#size !== points.length) this.#build(points.length);
    const most = Math.max(...points.map((point) => point.value)) || 1;
    points.forEach((point, i) => {
      const { good, bad, title } = this.#bars[i];
      const share = (value) => (value / most) * HEIGHT;
      const height = point.value ? Math.max(1.5, share(point.value)) : 0;
      const failed = Math.min(height, share(point.bad ?? 0));
      place(good, HEIGHT - height, height - failed);
      place(bad, HEIGHT - failed, failed);
      setText(title, point.label);
    });
    setText(this.top, points.some((point) => point.value) ? top(most) : "");
    setText(this.total, total);
    setText(this.from, from);
    this.svg.setAttribute("aria-label", words);
  }

  #build(size) {
    this.#size = size;
    this.svg.setAttribute("viewBox", `0 0 ${size * 10} ${HEIGHT}`);
    this.#bars = Array.from({ length: size }, (_, i) => {
      const bar = (name) => svg("rect", { x: i * 10 + 1, width: 8, class: name });
      const title = svg("title");
      return { good: bar("good"), bad: bar("failed"), title };
    });
    this.svg.replaceChildren(...this.#bars.map(({ good, bad, title }) => svg("g", {}, title, good, bad)));
  }
}

function place(bar, y, height) {
  bar.setAttribute("y", y);
  bar.setAttribute("height", height);
}
