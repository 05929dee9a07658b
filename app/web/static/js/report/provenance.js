// What it was made of, by digest and commit; and the files to take away.

import { download } from "../api.js";
import { facts, h } from "../dom.js";
import { keptKey } from "../key.js";
import { tried } from "../problem.js";
import { section } from "./tables.js";

const FORMATS = { json: "JSON", csv: "CSV", markdown: "Markdown", html: "HTML", sarif: "SARIF" };
const ENDINGS = { json: "json", csv: "csv", markdown: "md", html: "html", sarif: "sarif" };

export function downloads(job) {
  const trouble = h("div", {});
  const name = `report-${job.id.slice(0, 12)}`;
  const reports = Object.entries(FORMATS).map(([format, title]) =>
    fileLink(
      `${job.links.report}?format=${format}`,
      `Report, ${title}`,
      `${name}.${ENDINGS[format]}`,
      trouble,
    ),
  );
  const rest = [
    ["adapter", "Patched adapter, zip", `adapter-${job.id.slice(0, 12)}.zip`],
    ["transcripts", "Transcripts", `transcripts-${job.id.slice(0, 12)}.jsonl`],
  ]
    .filter(([link]) => job.links[link])
    .map(([link, title, file]) => fileLink(job.links[link], title, file, trouble));
  return section("Downloads", h("div", { class: "downloads no-print" }, rest, reports), trouble);
}

/** A plain link; with a key, which a link cannot send, fetched and saved. */
function fileLink(path, title, name, trouble) {
  const link = h("a", { class: "button", href: path, download: name }, title);
  link.addEventListener("click", (event) => {
    if (!keptKey()) return;
    event.preventDefault();
    tried(trouble, link, () => download(path, name));
  });
  return link;
}

export function provenance(job, report) {
  const { method } = report;
  return section(
    "Provenance",
    facts([
      ["Job", h("code", {}, job.id)],
      report.adapter && ["Adapter", h("code", {}, report.adapter.id)],
      report.adapter?.base_model_name_or_path && [
        "Trained on",
        h("code", {}, report.adapter.base_model_name_or_path),
      ],
      ...model("Base model", report.base_model),
      ...model("Chat model", report.chat_model),
      method && [
        "Method",
        h(
          "code",
          {},
          Object.entries(method)
            .filter(([, value]) => value !== null)
            .map(
              ([key, value]) =>
                `${key}: ${
                  typeof value === "object"
                    ? Object.values(value)
                        .filter((each) => each !== null)
                        .join(" ")
                    : value
                }`,
            )
            .join(", "),
        ),
      ],
      report.versions && [
        "Versions",
        Object.entries(report.versions)
          .map(([key, value]) => `${key} ${value}`)
          .join(", "),
      ],
      ["Schema", h("a", { href: "/v1/schemas/report" }, `version ${report.schema_version}`)],
    ]),
  );
}

function model(name, reference) {
  if (!reference) return [];
  return [
    [name, h("code", {}, reference.id)],
    reference.revision && [`${name}, commit`, h("code", {}, reference.revision)],
    reference.digest && [`${name}, SHA-256`, h("code", {}, reference.digest)],
  ];
}
