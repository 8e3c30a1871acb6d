// Ask the server, with the key of this tab where there is one.

const KEY = "expert-composer-key";
const BASE = new URL(".", location.href);

export const address = (path) => new URL(path, BASE).href;

// Some browsers keep nothing, in private windows for example: then this page remembers.
let remembered = "";

export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? remembered;
  } catch {
    return remembered;
  }
}

export function keepKey(value) {
  remembered = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    return;
  }
}

export class ApiError extends Error {
  constructor(status, said, headers) {
    super(said.message ?? "no reason was given");
    Object.assign(this, { status, code: said.code ?? null, type: said.type ?? null });
    this.param = said.param ?? null;
    this.requestId = headers?.get("x-request-id") ?? null;
    this.retryAfter = headers?.get("retry-after") ?? null;
  }
}

// Return the response to a request, or throw an ApiError; a connection that fails has status 0.
export async function ask(path, { body, signal } = {}) {
  const headers = key() ? { authorization: `Bearer ${key()}` } : {};
  const request = { headers, signal, cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(address(path), request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The server cannot be reached.", type: "connection" });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export const get = async (path, options) => (await ask(path, options)).json();
export const post = async (path, body, options) => (await ask(path, { body, ...options })).json();

async function refusal(response) {
  try {
    return new ApiError(response.status, (await response.json()).error, response.headers);
  } catch {
    const message = `The answer is not one of this API: ${response.status} ${response.statusText}`;
    return new ApiError(response.status, { message }, response.headers);
  }
}

// Give the events of a stream as JSON values; one without [DONE] at its end was cut off.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(200, event.error, response.headers);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError(200, { message: "The stream ended early.", type: "connection" }, response.headers);
}
