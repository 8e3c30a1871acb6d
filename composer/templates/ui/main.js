// Which view is shown, and the key that both of them ask with.

import { get, key, keepKey } from "./api.js";
import { byId, setText } from "./dom.js";
import * as live from "./live.js";
import * as playground from "./playground.js";

const VIEWS = { playground, live };
const dialog = byId("key-dialog");

// The part of the address after # is a view, and for the playground a request: #playground?model=a
function show() {
  const [name, query] = location.hash.slice(1).split(/\?(.*)/s);
  const chosen = Object.hasOwn(VIEWS, name) ? name : "playground";
  for (const [each, view] of Object.entries(VIEWS)) {
    const isShown = each === chosen;
    byId(each).hidden = !isShown;
    const link = document.querySelector(`nav a[href="#${each}"]`);
    if (isShown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (isShown) view.show(new URLSearchParams(query ?? ""));
    else view.hide();
  }
  document.title = `${chosen === "live" ? "Live" : "Playground"} – expert-composer`;
}

function openKey(why = "") {
  setText(byId("key-error"), why);
  byId("key").value = key();
  byId("key-forget").hidden = !key();
  if (!dialog.open) dialog.showModal();
  byId("key").select();
}

async function useKey(event) {
  event.preventDefault();
  const before = key();
  keepKey(byId("key").value.trim());
  try {
    await get("v1/models");
  } catch (error) {
    keepKey(before);
    setText(byId("key-error"), error.message);
    byId("key").select();
    return;
  }
  dialog.close();
  playground.refresh();
  show();
}

function forgetKey() {
  keepKey("");
  dialog.close();
  playground.refresh();
  show();
}

byId("key-button").addEventListener("click", () => openKey());
byId("key-form").addEventListener("submit", useKey);
byId("key-forget").addEventListener("click", forgetKey);
byId("key-close").addEventListener("click", () => dialog.close());
document.addEventListener("key-needed", (event) => openKey(event.detail));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  const isLive = byId("playground").hidden;
  byId(isLive ? "find" : "question").focus();
});
addEventListener("hashchange", show);
show();
