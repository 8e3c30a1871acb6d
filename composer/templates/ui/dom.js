// Build elements. Texts become text nodes, never HTML: whatever a model wrote stays a text.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#${name}` }));
}

export function button(label, props, ...children) {
  return el("button", { type: "button", "aria-label": label, title: label, ...props }, ...children);
}

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Change what is shown only where it differs: what a user reads or has in focus stays put.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function pressOne(group, chosen) {
  for (const each of group.querySelectorAll("button")) {
    each.setAttribute("aria-pressed", String(each === chosen));
  }
}
