// Show an answer while it grows: fenced code, inline code and bold, all built from text nodes.
// Links, images and HTML stay the text that they are.

import { button, el, icon } from "./dom.js";

const INLINE = /`([^`\n]+)`|\*\*(\S(?:[^\n*]*\S)?)\*\*/g;

export class RichText {
  #text = "";
  #blocks = [];
  #isDue = false;

  constructor() {
    this.node = el("div", { class: "rich" });
  }

  get text() {
    return this.#text;
  }

  add(piece) {
    this.#text += piece;
    if (this.#isDue) return;
    this.#isDue = true;
    // At most once a frame. A hidden page has no frames, but timers.
    (document.hidden ? setTimeout : requestAnimationFrame)(() => this.show());
  }

  // Draw what is new: only the last block can have changed.
  show() {
    this.#isDue = false;
    const found = blocks(this.#text);
    const from = Math.max(0, Math.min(this.#blocks.length, found.length) - 1);
    for (const old of this.#blocks.splice(from)) old.remove();
    for (const block of found.slice(from)) {
      const node = block.isCode ? codeBlock(block) : el("p", {}, ...inline(block.text));
      this.#blocks.push(node);
      this.node.append(node);
    }
  }
}

// Split a text at its fences; an open fence goes to the end. Blank lines part paragraphs.
function blocks(text) {
  const found = [];
  let prose = [];
  let code = null;
  const flush = () => {
    for (const part of prose.join("\n").split(/\n{2,}/)) {
      if (part.trim()) found.push({ isCode: false, text: part.replace(/^\n+|\s+$/g, "") });
    }
    prose = [];
  };
  for (const line of text.split("\n")) {
    const fence = /^\s{0,3}```\s*([\w+#.-]*)/.exec(line);
    if (code === null && fence) {
      flush();
      code = { isCode: true, language: fence[1], lines: [] };
      found.push(code);
    } else if (code !== null && /^\s{0,3}```\s*$/.test(line)) code = null;
    else (code === null ? prose : code.lines).push(line);
  }
  flush();
  return found;
}

function* inline(text) {
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    yield text.slice(last, match.index);
    yield match[1] === undefined ? el("strong", {}, ...inline(match[2])) : el("code", {}, match[1]);
    last = match.index + match[0].length;
  }
  yield text.slice(last);
}

function codeBlock({ language, lines }) {
  const code = lines.join("\n");
  const copy = button("Copy this code", { class: "icon-button", click: () => copyText(code, copy) }, icon("copy"));
  return el(
    "figure", { class: "code" },
    el("figcaption", {}, language || "code", copy),
    el("pre", { tabindex: "0" }, el("code", {}, code)),
  );
}

// Copy, and say so on the button; a page that is not on this machine or https may not copy.
export async function copyText(text, node) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Select it and copy";
  }
  node.title = said;
  node.setAttribute("aria-label", said);
  return said;
}
