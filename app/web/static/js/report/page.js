// A report, whatever kind of job it is of.

import { h, replace } from "../dom.js";
import { Decisions } from "./decide.js";
import { moduleDetail } from "./detail.js";
import { frontierSections } from "./frontier.js";
import { heatMap } from "./heatmap.js";
import { histogram } from "./histogram.js";
import { layerTable } from "./layers.js";
import { downloads, provenance } from "./provenance.js";
import { summaryTiles, warningList } from "./summary.js";
import { evaluationSection, plainReport, servingSection } from "./tables.js";
import { whatIf } from "./whatif.js";

export function reportPage(job, report, signal) {
  if (report.layers) return decidedReport(job, report, signal);
  return h(
    "div",
    { class: "stack" },
    warningList(report),
    otherParts(report),
    downloads(job),
    provenance(job, report),
  );
}

function otherParts(report) {
  if (report.kind === "evaluate") return evaluationSection({ ...report, warnings: [] });
  return report.kind === "frontier" ? frontierSections(report) : plainReport(report);
}

function decidedReport(job, report, signal) {
  const decisions = new Decisions(report);
  const warnings = h("div", {}, warningList(report));
  const onWarnings = (of) => {
    warnings.style.minHeight = `${warnings.offsetHeight}px`; // so that the slider stays where the pointer is
    replace(warnings, warningList(of));
  };
  const detail = moduleDetail(decisions);
  return h(
    "div",
    { class: "stack" },
    warnings,
    summaryTiles(decisions),
    h(
      "div",
      { class: "cockpit" },
      heatMap(decisions, { onHover: detail.hover, signal }),
      h(
        "div",
        { class: "stack" },
        h(
          "section",
          { class: "panel stack", "aria-labelledby": "histogram-title" },
          histogram(decisions),
          whatIf(job, decisions, { onWarnings, signal }),
        ),
        detail.element,
      ),
    ),
    layerTable(decisions, signal),
    evaluationSection(report.evaluation, "Measured before and after"),
    servingSection(report),
    downloads(job),
    provenance(job, report),
    h("p", { class: "hint" }, report.claim),
  );
}
