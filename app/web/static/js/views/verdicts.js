// Verdicts on pushes to a hub, where this service issues any.

import { chip, h, select } from "../dom.js";
import { ago, moment, words } from "../format.js";
import { listing } from "./pages.js";

const NAMES = ["pass", "patched", "review", "inconclusive", "refused"];

export async function showVerdicts(view, { signal }) {
  const wanted = select([["", "Any verdict"], ...NAMES.map((name) => [name, name])], "", {
    "aria-label": "Verdict",
  });
  const list = listing({
    path: "/v1/verdicts",
    parameters: () => ({ verdict: wanted.value }),
    caption: "Verdicts, newest first",
    signal,
    titles: ["Repository", "Verdict", "Why", "Actions", "Job", "Received"],
    row: line,
    empty: "No verdicts yet.",
  });
  wanted.addEventListener("change", list.again);
  try {
    await list.load();
  } catch (error) {
    if (error.status !== 404) throw error;
    view.append(
      h(
        "p",
        { class: "panel empty after-title" },
        "This service watches no hub, so it issues no verdicts.",
      ),
    );
    return;
  }
  view.append(
    h(
      "section",
      { class: "panel stack after-title", "aria-label": "Verdicts" },
      h("div", { class: "row" }, wanted),
      list.element,
    ),
  );
}

function line(verdict) {
  const actions = verdict.actions.map((action) =>
    h("div", {}, `${words(action.kind)}: ${action.state} `, link(action)),
  );
  return [
    [
      h("code", {}, verdict.repo),
      h(
        "div",
        { class: "small quiet" },
        `${verdict.ref.replace("refs/heads/", "")} ${verdict.sha.slice(0, 10)}`,
      ),
    ],
    [
      verdict.verdict ? chip(verdict.verdict) : chip(verdict.state),
      verdict.dry_run && h("div", { class: "small quiet" }, "dry run"),
    ],
    [verdict.why, verdict.trouble && h("div", { class: "small quiet" }, verdict.trouble)],
    actions.length ? actions : "–",
    verdict.links.job ? h("a", { href: verdict.links.job.replace("/v1", "") }, "report") : "–",
    h(
      "time",
      { datetime: verdict.received_at, title: moment(verdict.received_at) },
      ago(verdict.received_at),
    ),
  ];
}

/** Only to the web: an address is another's word. */
function link(action) {
  if (!/^https?:\/\//.test(action.url ?? "")) return null;
  return h(
    "a",
    { href: action.url, target: "_blank", rel: "noreferrer noopener" },
    action.number ? `#${action.number}` : "open",
  );
}
