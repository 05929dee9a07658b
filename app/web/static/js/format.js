// Numbers, bytes and times as people read them.

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6
    ? String(Number(value.toPrecision(digits)))
    : value.toExponential(2);
}

/** Four digits, trailing zeros too, for a column. */
export const significant = (value) =>
  value && Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4 ? value.toPrecision(4) : number(value);

/** With as many places as its neighbours in a column. */
export const fixed = (value, places = 4) =>
  value === null || value === undefined ? "–" : value.toFixed(places);

export const percent = (value) =>
  value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) {
    count /= 1024;
    at += 1;
  }
  return `${at ? count.toFixed(count < 10 ? 1 : 0) : count} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const moment = (text) => (text ? exact.format(new Date(text)) : "–");

export function ago(text) {
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export const short = (id) => (id ? id.slice(0, 12) : "–");
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
export const words = (name) => String(name).replaceAll("_", " ");
