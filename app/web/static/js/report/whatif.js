// What another threshold would do: said at once, confirmed by the service, and made into a job.

import { get, post, token } from "../api.js";
import { debounced, framed, h, replace } from "../dom.js";
import { number, plural } from "../format.js";
import { tried } from "../problem.js";
import { go } from "../router.js";
import { summarised } from "./decide.js";

const CONFIRM_AFTER_MS = 300;
const LISTED = 60;

export function whatIf(job, decisions, { onWarnings, signal }) {
  const said = h("p", {});
  const confirmed = h("p", { class: "small quiet", role: "status" });
  const list = h("details", { hidden: true });
  const trouble = h("div", {});
  const patch = h("button", { type: "button", class: "primary" }, "Patch with this");
  const back = h(
    "button",
    { type: "button", onclick: () => decisions.reset() },
    "Back to the job's own",
  );
  const confirm = debounced(
    () => confirming(job, decisions, confirmed, onWarnings, signal),
    CONFIRM_AFTER_MS,
  );
  let shown = null;
  const draw = framed(() => {
    const isSame = shown === decisions.threshold;
    shown = decisions.threshold;
    back.hidden = decisions.threshold === null;
    patch.hidden = hasNothingNew(job, decisions);
    if (isSame) return;
    told(said, list, decisions);
    confirmed.textContent = decisions.threshold === null ? "" : "asking the service …";
    confirm();
  });
  decisions.onChange(draw);
  patch.addEventListener("click", () => tried(trouble, patch, () => patchWith(job, decisions)));
  back.hidden = true;
  patch.hidden = hasNothingNew(job, decisions);
  said.textContent = "This is what the job decided.";
  return h(
    "div",
    { class: "stack tight what-if" },
    said,
    confirmed,
    list,
    trouble,
    h("div", { class: "row no-print" }, patch, back),
  );
}

/** The patch of the job itself is there already; of a score there is none. */
const hasNothingNew = (job, { edge, threshold }) =>
  edge === null || (threshold === null && job.kind === "patch");

function told(said, list, decisions) {
  const { changed, layers, now, threshold } = decisions;
  if (threshold === null) {
    said.textContent = "This is what the job decided.";
    list.hidden = true;
    return;
  }
  const count = now.filter((decision) => decision === "projected").length;
  const more = changed.filter((i) => now[i] === "projected").length;
  const less = changed.length - more;
  const difference = [more && `${more} more`, less && `${less} fewer`].filter(Boolean).join(", ");
  said.textContent = `At ${number(threshold)}, ${count} of ${plural(layers.length, "module")} would be projected${difference ? `: ${difference} than the job did.` : ", as the job did."}`;
  list.hidden = !changed.length;
  const names = changed
    .slice(0, LISTED)
    .map((i) => h("li", {}, h("code", {}, layers[i].module), ` → ${now[i]}`));
  const open = list.open;
  replace(
    list,
    h("summary", {}, `${plural(changed.length, "module")} decided otherwise`),
    open &&
      h(
        "ul",
        { class: "small" },
        names,
        changed.length > LISTED &&
          h("li", {}, `and ${changed.length - LISTED} more; the table's filter shows them all`),
      ),
  );
  list.ontoggle = () => {
    if (list.open && !list.querySelector("ul")) told(said, list, decisions);
  };
}

/** The service's own word, beside the page's. */
async function confirming(job, decisions, confirmed, onWarnings, signal) {
  const { threshold } = decisions;
  if (threshold === null) {
    onWarnings(decisions.report);
    return;
  }
  try {
    const report = await get(`/v1/jobs/${job.id}/report?format=json&threshold=${threshold}`, {
      signal,
    });
    if (decisions.threshold !== threshold) return;
    const own = summarised(decisions.layers, decisions.now, threshold);
    const agrees = ["projected", "kept", "skipped"].every(
      (name) => report.summary[name] === own[name],
    );
    confirmed.textContent = agrees
      ? "✓ The service decides the same."
      : "The service decides otherwise: read its own numbers before you patch.";
    onWarnings(report);
  } catch (error) {
    if (!signal.aborted) confirmed.textContent = `Not confirmed: ${error.message}`;
  }
}

async function patchWith(job, decisions) {
  const method = Object.fromEntries(
    Object.entries(decisions.report.method).filter(([, value]) => value !== null),
  );
  method.select = { by: "threshold", value: decisions.edge };
  const body = {
    kind: "patch",
    adapter: job.adapter,
    chat_model: job.chat_model,
    method,
    ...(job.base_model && { base_model: job.base_model }),
    ...(job.recipe?.gate && { require: job.recipe.require, gate: asked(job.recipe.gate) }),
  };
  const made = await post("/v1/jobs", body, { "Idempotency-Key": token() });
  go(`/jobs/${made.id}`);
}

const asked = (gate) =>
  Object.fromEntries(Object.entries(gate).filter(([, value]) => value !== null));
