// From cosines to decisions, as the service decides them (app/jobs/decide.py): at once, in the page.

/** A report under a threshold of the reader's, or as its job left it. */
export class Decisions {
  constructor(report) {
    this.report = report;
    this.layers = report.layers;
    this.stored = this.layers.map((layer) => layer.decision);
    this.listeners = [];
    this.chosen = null; // index of the module that is looked at
    this.reset();
  }

  reset() {
    this.threshold = null;
    this.now = this.stored;
    this.tell();
  }

  decideBy(threshold) {
    this.threshold = threshold;
    this.now = decided(this.layers, threshold);
    this.tell();
  }

  choose(index) {
    this.chosen = index;
    this.tell();
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  tell() {
    for (const listener of this.listeners) listener(this);
  }

  /** The cosine that parts projected from kept, where there is one. */
  get edge() {
    return this.threshold ?? this.report.summary.threshold;
  }

  get changed() {
    return this.now === this.stored
      ? []
      : this.layers.flatMap((_, i) => (this.now[i] === this.stored[i] ? [] : [i]));
  }
}

export function decided(layers, threshold) {
  return layers.map((layer) => {
    if (layer.decision === "skipped") return "skipped";
    return layer.cosine !== null && layer.cosine <= threshold ? "projected" : "kept";
  });
}

export function summarised(layers, decisions, threshold) {
  const count = { projected: 0, kept: 0, skipped: 0 };
  let sum = 0;
  let known = 0;
  layers.forEach((layer, i) => {
    count[decisions[i]] += 1;
    const pdst = pdstOf(layer, decisions[i]);
    if (pdst !== null) {
      sum += pdst;
      known += 1;
    }
  });
  return { ...count, threshold, mean_pdst: known ? sum / known : null };
}

export function pdstOf(layer, decision) {
  if (decision === "skipped") return layer.pdst;
  return decision === "projected" ? layer.pdst_if_selected : layer.pdst_if_kept;
}

/** The range of a slider and its histogram: every cosine and the threshold in force, on round numbers. */
export function rangeOf(cosines, threshold) {
  const all = threshold === null ? cosines : [...cosines, threshold];
  const low = all.length ? Math.min(...all) : 0;
  const high = all.length ? Math.max(...all) : 1;
  const step = 10 ** Math.floor(Math.log10(Math.max(high - low, 1e-3) / 300));
  const pad = 5 * step;
  const down = Math.max(-1, Math.floor((low - pad) / step) * step);
  const up = Math.min(1, Math.ceil((high + pad) / step) * step);
  return { low: tidy(down), high: tidy(up), step: tidy(step) };
}

export const tidy = (value) => Number(value.toFixed(9));
