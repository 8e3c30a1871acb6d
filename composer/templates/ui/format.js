// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat([], { timeStyle: "medium" });

export const count = (n) => (Math.abs(n) < 10000 ? whole.format(n) : short.format(n));

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function usd(value) {
  if (value === null || value === undefined) return "?";
  if (value === 0) return "$0";
  if (value >= 100) return `$${whole.format(Math.round(value))}`;
  if (value >= 0.1) return `$${value.toFixed(2)}`;
  const digits = Math.min(10, 1 - Math.floor(Math.log10(value)));
  return `$${value.toFixed(digits)}`;
}

export function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
}

export const milliseconds = (value) => (value === null ? "–" : seconds(value / 1000));
export const fixed = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "?");
export const atMinute = (iso) => clock.format(new Date(iso));
export const atSecond = (iso) => clockSeconds.format(new Date(iso));
