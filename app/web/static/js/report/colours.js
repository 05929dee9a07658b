// The tokens' colours for what is drawn on a canvas, read again when the theme changes, or paper is next.

const NAMES = [
  "surface",
  "sunken",
  "ink",
  "ink-2",
  "ink-3",
  "line",
  "line-strong",
  "projected",
  "kept",
  "skipped",
  "accent",
];

export function palette() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    NAMES.map((name) => [name, parsed(style.getPropertyValue(`--${name}`).trim())]),
  );
}

export function onTheme(act, signal) {
  for (const media of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(media).addEventListener("change", act, { signal });
  }
}

function parsed(hex) {
  const text = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex;
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

export const rgb = (colour) => `rgb(${colour.join(" ")})`;

export function mixed(from, to, share) {
  const part = Math.min(1, Math.max(0, share));
  return rgb(from.map((value, i) => Math.round(value + (to[i] - value) * part)));
}
