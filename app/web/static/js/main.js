import { forgetKey, showWhetherKept } from "./key.js";
import { route, start, go } from "./router.js";
import { showCompare } from "./views/compare.js";
import { showDocs } from "./views/docs.js";
import { showHome } from "./views/home.js";
import { showJob } from "./views/job.js";
import { showKeys } from "./views/keys.js";
import { showVerdicts } from "./views/verdicts.js";
import { showWebhooks } from "./views/webhooks.js";

route("/", "Patch an adapter", showHome);
route("/jobs/:id", "Job", showJob);
route("/compare", "Compare two reports", showCompare);
route("/verdicts", "Verdicts", showVerdicts);
route("/webhooks", "Webhooks", showWebhooks);
route("/docs", "API", showDocs);
route("/keys", "API keys", showKeys);

document.getElementById("forget-key").addEventListener("click", () => {
  forgetKey();
  go("/");
});
for (const name of ["dragover", "drop"]) {
  // a file that misses its place would take the page away
  document.addEventListener(name, (event) => event.preventDefault());
}
showWhetherKept();
start();
