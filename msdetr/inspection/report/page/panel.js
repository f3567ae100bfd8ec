// The right-hand side: the targets of the image, or the candidates of the chosen target.

const REASON_TEXT = {
  dropped_by_cap: "dropped by cap",
  below_threshold: "below threshold",
  over_k: "over k",
};

function describeReason(why, scene, target) {
  const [kind, other] = why.split(":");
  if (kind === "lost_to_target") return `prefers ${scene.nameOf(Number(other))}`;
  if (kind === "beyond_count") return `beyond n = ${scene.result.numPositives[target]}`;
  return REASON_TEXT[kind];
}

function stateOfTarget(record, settings) {
  if (record.cause && !settings.k) return `none: ${asWords(record.cause)}`;
  if (record.cause === "lost_to_target") return "none: best queries prefer other targets";
  if (record.cause === "dropped_by_cap") return "none: dropped by the cap";
  if (record.shared) return "shares a query with another target";
  return record.pairs.length === settings.k ? "all k" : "";
}

function dots(count, k) {
  const shown = Math.max(k, count);
  const circles = Array.from({ length: Math.min(shown, 20) }, (_, i) =>
    el("i", { class: i < count ? "dot full" : "dot" }));
  return el("span", { class: "dots", "aria-hidden": "true" }, circles);
}

function targetTable(image, record, settings, { choose, matches }) {
  const rows = image.targets.map((target, t) => {
    const entry = record.targets[t];
    const button = el("button", { class: "link", onclick: () => choose(t) }, target.name);
    return el("tr", { class: matches(t) ? "" : "faded", "data-target": t },
      el("td", { class: "number" }, `${t}`),
      el("td", {}, button, el("small", {}, target.size)),
      el("td", {}, el("b", {}, `${entry.pairs.length}`), dots(entry.pairs.length, settings.k ?? 0),
        el("small", {}, stateOfTarget(entry, settings))));
  });
  const head = el("tr", {}, ...["#", "Target", "Positives"].map((text) =>
    el("th", { scope: "col" }, text)));
  return el("table", { class: "targets" }, el("thead", {}, head), el("tbody", {}, rows));
}

function scoreBar(candidate, scale, threshold) {
  if (candidate.strength !== undefined) {
    const style = `width:${100 * candidate.strength}%`;
    return el("span", { class: "score-bar" }, el("span", { class: "iou-part", style }));
  }
  const width = (value) => `width:${(100 * value) / scale}%`;
  return el("span", { class: "score-bar" },
    el("span", { class: "iou-part", style: width(candidate.iouPart) }),
    el("span", { class: "class-part", style: width(candidate.classPart) }),
    el("span", { class: "threshold", style: `left:${(100 * threshold) / scale}%` }));
}

// A row per listed query; the one-to-one pick is added where it ranks lower.
function candidatesOf(scene, target) {
  const { layer, result, settings } = scene;
  const row = target * layer.numQueries;
  const classRow = layer.classOfTarget[target] * layer.numQueries;
  const pick = layer.picks[target];
  if (result.stored) {
    return result.rows[target].map(({ query, reason, words, ...rest }) => ({
      ...rest, query, why: reason ? words : null, words, isPick: query === pick,
      iou: layer.iou[row + query], probability: layer.probability[classRow + query],
    }));
  }
  const describe = (query, rank) => ({
    query,
    rank,
    score: result.scores[row + query],
    iou: layer.iou[row + query],
    probability: layer.probability[classRow + query],
    iouPart: f32(f32(settings.iouWeight) * layer.iou[row + query]),
    classPart: f32(f32(settings.classWeight) * layer.probability[classRow + query]),
    why: reason(result, settings, target, query, rank),
    isPick: query === pick,
  });
  const count = Math.min(LISTED, result.length);
  const best = result.best.subarray(target * result.length, target * result.length + count);
  const rows = Array.from(best, (query, index) => describe(query, index + 1));
  if (pick >= 0 && !best.includes(pick)) {
    rows.push(describe(pick, rankOf(result.scores.subarray(row, row + layer.numQueries), pick)));
  }
  return rows;
}

function candidateRow(candidate, scene, target, hover) {
  const { query, why } = candidate;
  const scale = Math.max(scene.settings.iouWeight + scene.settings.classWeight, 1e-6);
  const state = why
    ? el("span", { class: "why" }, candidate.words ?? describeReason(why, scene, target))
    : el("span", { class: "chip positive" }, "paired");
  return el("tr", {
    class: why ? "rejected" : "paired", "data-query": query,
    onmouseenter: () => hover(query), onmouseleave: () => hover(null),
  },
  el("td", { class: "number" }, `${candidate.rank}`),
  el("td", { class: "number" },
    candidate.isPick ? el("span", { class: "chip pick" }, "1:1") : null, `${query}`),
  el("td", { class: "score" }, scoreBar(candidate, scale, scene.settings.threshold),
    el("b", {}, candidate.words === undefined
      ? fixed(candidate.score, 3) : significant(candidate.score))),
  el("td", { class: "number" }, fixed(candidate.iou, 2)),
  el("td", { class: "number" }, fixed(candidate.probability, 2)),
  el("td", {}, state));
}

function candidateTable(scene, target, hover) {
  const rows = candidatesOf(scene, target);
  const heads = ["Rank", "Query", "Score", "IoU", "Prob.", "State"];
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)));
  const widths = ["w-rank", "w-query", "w-score", "w-iou", "w-probability", "w-state"];
  const columns = el("colgroup", {}, widths.map((name) => el("col", { class: name })));
  return el("table", { class: "candidates" }, columns, el("thead", {}, head),
    el("tbody", {}, rows.map((row) => candidateRow(row, scene, target, hover))));
}

function explainCount({ result, settings, record }, target) {
  if (result.stored) {
    const { pairs, cause } = record.targets[target];
    const note = result.notes[target] && `${result.notes[target]}: `;
    return `${note}${plural(pairs.length, "query is", "queries are")} paired` +
      `${cause ? ` (${asWords(cause)})` : ""}.`;
  }
  const chosenBy = result.numPositives[target];
  if (chosenBy === 0) return "No positive query chooses this target, so none is paired.";
  const choosing = plural(chosenBy, "positive query chooses", "positive queries choose");
  const limit = chosenBy > settings.k ? `, k allows ${settings.k}` : "";
  const pairs = result.pairs[target].length;
  const best = pairs === 1 ? "best query is" : `${pairs} best queries are`;
  return `n = ${choosing} this target${limit}: its ${best} paired.`;
}

function pickNote({ image, layer }, layerIndex, target) {
  if (layer.picks[target] < 0) return "One-to-one: no query (more targets than queries).";
  const cost = image.pickCosts[layerIndex][target];
  const probability = fixed(layer.pickProbabilities[target], 2);
  return `One-to-one pick: query ${layer.picks[target]}, cost ${fixed(cost, 2)}, ` +
    `probability ${probability} in its own branch.`;
}
