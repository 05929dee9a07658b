// Which of the files that were dropped or chosen are an adapter.

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
const ARCHIVE = /\.(zip|tar|tar\.gz|tgz)$/i;

/** [{path, file}] -> {form, name, config}, or throws an Error that says what is missing. */
export function adapterAmong(found) {
  const archive = found.length === 1 && ARCHIVE.test(found[0].file.name) ? found[0].file : null;
  const form = new FormData();
  if (archive) {
    form.append("archive", archive, archive.name);
    return { form, name: archive.name, config: null };
  }
  const parts = nearestParts(found);
  form.append("config", parts.config, CONFIG);
  form.append("weights", parts.weights, WEIGHTS);
  if (parts.readme) form.append("readme", parts.readme, "README.md");
  return { form, name: parts.folder || WEIGHTS, config: parts.config };
}

/** Of several folders with an adapter (checkpoints of a training) the outermost. */
function nearestParts(found) {
  const folders = new Map();
  for (const { path, file } of found) {
    const cut = path.lastIndexOf("/");
    const folder = cut < 0 ? "" : path.slice(0, cut);
    if (!folders.has(folder)) folders.set(folder, new Map());
    folders.get(folder).set(path.slice(cut + 1), file);
  }
  const whole = [...folders]
    .filter(([, files]) => files.has(CONFIG) && files.has(WEIGHTS))
    .sort(([one], [other]) => one.split("/").length - other.split("/").length);
  if (!whole.length) throw new Error(missing(found));
  const [folder, files] = whole[0];
  return {
    folder,
    config: files.get(CONFIG),
    weights: files.get(WEIGHTS),
    readme: files.get("README.md"),
  };
}

function missing(found) {
  const names =
    found
      .slice(0, 4)
      .map(({ file }) => file.name)
      .join(", ") || "nothing";
  return `An adapter is ${CONFIG} and ${WEIGHTS}, their folder, or one archive (zip, tar, tar.gz). Found: ${names}${found.length > 4 ? " and more" : ""}.`;
}

export const chosen = (list) =>
  Array.from(list, (file) => ({ path: file.webkitRelativePath || file.name, file }));

/** Of a drop, folders read through. */
export async function dropped(transfer) {
  const entries = Array.from(transfer.items ?? [], (item) => item.webkitGetAsEntry?.()).filter(
    Boolean,
  );
  if (!entries.length) return chosen(transfer.files);
  return (await Promise.all(entries.map((entry) => walked(entry, "")))).flat();
}

async function walked(entry, prefix) {
  const path = prefix + entry.name;
  if (entry.isFile) return [{ path, file: await new Promise((yes, no) => entry.file(yes, no)) }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((yes, no) => reader.readEntries(yes, no));
    if (!some.length) return found;
    for (const each of some) found.push(...(await walked(each, `${path}/`)));
  }
}
