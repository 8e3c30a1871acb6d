// A request as a command, as a program, and as a link to this page. Never with the key itself.

import { address } from "./api.js";
import { byId, pressOne, setText } from "./dom.js";
import { copyText } from "./rich.js";

const dialog = byId("code-dialog");
const FORMS = { curl, python, link };
let body = {};

export function openCode(request) {
  body = request;
  draw();
  dialog.showModal();
}

function draw() {
  const pressed = dialog.querySelector('.switch [aria-pressed="true"]');
  setText(byId("snippet"), FORMS[pressed.dataset.form](body));
  setText(byId("copied"), "");
}

function curl(request) {
  const json = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  return `curl ${address("v1/chat/completions")} \\
  -H 'content-type: application/json' \\
  -H "authorization: Bearer $OPENAI_API_KEY" \\
  -d '${json}'`;
}

function python({ model, messages, retrieval, ...rest }) {
  // A JSON string is a Python string too, and so are numbers.
  const turns = messages.map((turn) => `        {"role": ${JSON.stringify(turn.role)}, "content": ${JSON.stringify(turn.content)}},\n`);
  const options = Object.entries(rest).map(([name, value]) => `    ${name}=${JSON.stringify(value)},\n`);
  // Not a name of OpenAI's, so their client takes it only as a part of the body.
  if (retrieval) options.push(`    extra_body={"retrieval": ${JSON.stringify(retrieval)}},\n`);
  return `import os

from openai import OpenAI

client = OpenAI(
    base_url=${JSON.stringify(address("v1"))},
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
done = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[
${turns.join("")}    ],
${options.join("")})
print(done.model, done.choices[0].message.content)`;
}

// The link holds the settings and the last question, not the turns before it.
function link({ model, messages, ...rest }) {
  const system = messages.find((turn) => turn.role === "system");
  const query = new URLSearchParams({ model, ...rest, prompt: messages.at(-1).content });
  if (system) query.set("system", system.content);
  return `${address("ui")}#playground?${query}`;
}

dialog.querySelector(".switch").addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  pressOne(event.currentTarget, pressed);
  draw();
});
byId("code-copy").addEventListener("click", async () => {
  const copy = byId("code-copy");
  setText(byId("copied"), await copyText(byId("snippet").textContent, copy));
  copy.removeAttribute("aria-label");
  copy.removeAttribute("title");
});
byId("code-close").addEventListener("click", () => dialog.close());
