// Addresses to views. A view gets its element, what the address names, and a signal that ends with it.

import { announce, h, replace } from "./dom.js";
import { problemNote } from "./problem.js";

const routes = [];
let ending = new AbortController();

export function route(pattern, title, show) {
  const names = [...pattern.matchAll(/:(\w+)/g)].map((match) => match[1]);
  routes.push({
    match: new RegExp(`^${pattern.replace(/:\w+/g, "([^/]+)")}$`),
    names,
    title,
    show,
  });
}

export function go(address) {
  history.pushState(null, "", address);
  return render();
}

export function start() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (
      !link ||
      event.defaultPrevented ||
      event.button ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey
    )
      return;
    const to = new URL(link.href, location.href);
    const stays = to.pathname === location.pathname && to.hash;
    if (
      to.origin !== location.origin ||
      stays ||
      link.download ||
      link.target ||
      !found(to.pathname)
    )
      return;
    event.preventDefault();
    go(to.pathname + to.search);
  });
  addEventListener("popstate", () => render());
  return render({ isFirst: true });
}

function found(path) {
  for (const each of routes) {
    const match = each.match.exec(path);
    if (match)
      return {
        each,
        values: Object.fromEntries(
          each.names.map((name, i) => [name, decodeURIComponent(match[i + 1])]),
        ),
      };
  }
  return null;
}

async function render({ isFirst = false } = {}) {
  ending.abort();
  ending = new AbortController();
  const { signal } = ending;
  const main = document.getElementById("main");
  const here = found(location.pathname);
  const title = here?.each.title ?? "Not found";
  document.title = `${title} · adapter-safety`;
  markCurrent();
  const view = h("div", {}, h("h1", { tabindex: "-1" }, title));
  replace(main, view);
  if (!isFirst) {
    scrollTo(0, 0);
    view.querySelector("h1").focus({ preventScroll: true });
    announce(title);
  }
  if (here) await shown(here, view, signal);
}

async function shown({ each, values }, view, signal) {
  try {
    await each.show(view, { ...values, query: new URLSearchParams(location.search), signal });
  } catch (error) {
    if (!signal.aborted) view.append(problemNote(error));
  }
}

function markCurrent() {
  for (const link of document.querySelectorAll(".top nav a")) {
    const path = new URL(link.href).pathname;
    const isHere =
      path === location.pathname || (path === "/" && location.pathname.startsWith("/jobs/"));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
