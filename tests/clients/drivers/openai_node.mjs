// The openai package of npm; its base address and key come from the environment.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_FOLDER, "index.js"));
const { OpenAI } = require("openai");
const client = new OpenAI();
const hello = [{ role: "user", content: "hello there" }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};

const scenarios = {
  async chat() {
    const done = await client.chat.completions.create({ model: "gpt-4o-mini", messages: hello });
    assert.equal(done.choices[0].message.content, "hello there");
    assert.equal(done.usage.total_tokens, 4);
  },
  async stream() {
    const fields = { model: "gpt-4o-mini", messages: hello, stream: true };
    let text = "";
    for await (const chunk of await client.chat.completions.create(fields)) {
      text += chunk.choices[0].delta.content ?? "";
    }
    assert.equal(text, "hello there");
  },
  async tools() {
    const messages = [{ role: "user", content: "tool" }];
    const fields = { model: "gpt-tools", tools: [weather] };
    const { choices } = await client.chat.completions.create({ ...fields, messages });
    const [call] = choices[0].message.tool_calls;
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
    const result = { role: "tool", tool_call_id: call.id, content: "rain" };
    const all = [...messages, choices[0].message, result];
    const done = await client.chat.completions.create({ ...fields, messages: all });
    assert.equal(done.choices[0].message.content, "one two");
  },
  async embeddings() {
    const model = "text-embedding-3-small";
    const found = await client.embeddings.create({ model, input: ["a", "b"] });
    assert.deepEqual(found.data.map((one) => one.embedding.length), [512, 512]);
  },
};

await scenarios[process.argv[2]]();
