// What the assignments say about every target, and statistics over many targets.

const LISTED = 20;
const REASONS = ["lost_to_target", "dropped_by_cap", "below_threshold", "beyond_count", "over_k"];

// The assignment of a layer: stored, or made with the settings.
function resultOf(layer, settings) {
  return layer.stored ?? assign(layer, settings, LISTED);
}

function reasonNames(report) {
  return report.scheme?.reasons ?? REASONS;
}

function reasonKind(text) {
  return text === null ? null : text.split(":")[0];
}

function rankOf(row, query) {
  let rank = 1;
  for (let q = 0; q < row.length; q++) {
    if (row[q] > row[query] || (row[q] === row[query] && q < query)) rank++;
  }
  return rank;
}

// A target's best queries that are not paired with it, each with the name of the reason.
function rejectedOf({ layer, result, settings, report }, target) {
  if (result.stored) {
    return result.rows[target].filter((row) => row.reason && row.rank <= LISTED)
      .map(({ query, rank, reason }) => ({ query, rank, why: report.scheme.reasons[reason - 1] }));
  }
  const rows = [];
  for (let rank = 1; rank <= Math.min(LISTED, result.length); rank++) {
    const query = result.best[target * result.length + rank - 1];
    const why = reasonKind(reason(result, settings, target, query, rank));
    if (why) rows.push({ query, rank, why });
  }
  return rows;
}

function pickRankOf(layer, result, target) {
  const pick = layer.picks[target];
  if (pick < 0) return NaN;
  if (result.stored) return storedRow(result, target, pick).rank;
  const row = target * layer.numQueries;
  return rankOf(result.scores.subarray(row, row + layer.numQueries), pick);
}

// Why a target has no positive: its own positives fell to the cap, or none chose it.
function causeOf(result, target) {
  if (result.stored) return result.causes[target];
  if (result.numPositives[target] > 0) return null;
  const dropped = result.positive.some((flag, q) => flag && result.candidate[q] === target);
  return dropped ? "dropped_by_cap" : "lost_to_target";
}

// Whether a query is the one-to-one pick of a target of the same class.
function sameClassPick({ picks, classOfTarget }, target, query) {
  return picks.some((pick, t) => pick === query && classOfTarget[t] === classOfTarget[target]);
}

function targetRecord(scene, target) {
  const { layer, result, report } = scene;
  const row = target * layer.numQueries;
  const classRow = layer.classOfTarget[target] * layer.numQueries;
  const pairs = Array.from(result.pairs[target]);
  const reasons = Object.fromEntries(reasonNames(report).map((name) => [name, 0]));
  for (const { why } of rejectedOf(scene, target)) reasons[why]++;
  return {
    pairs,
    reasons,
    cause: causeOf(result, target),
    ious: pairs.map((query) => layer.iou[row + query]),
    probabilities: pairs.map((query) => layer.probability[classRow + query]),
    pickRank: pickRankOf(layer, result, target),
    pickPaired: pairs.includes(layer.picks[target]),
    background: pairs.filter((query) => !sameClassPick(layer, target, query)).length,
    shared: false,
  };
}

// Records of one image and layer: per target, and whether the cap removed positives.
function layerRecord(layer, settings, report) {
  const result = resultOf(layer, settings);
  const targets = Array.from({ length: layer.numTargets }, (_, target) =>
    targetRecord({ layer, result, settings, report }, target),
  );
  const uses = new Map();
  for (const { pairs } of targets) {
    for (const query of pairs) uses.set(query, (uses.get(query) ?? 0) + 1);
  }
  for (const record of targets) record.shared = record.pairs.some((query) => uses.get(query) > 1);
  return {
    targets,
    shared: [...uses.values()].filter((count) => count > 1).length,
    hitsCap: result.stored
      ? result.hitsCap : result.positive.some((flag, q) => flag && !result.kept[q]),
  };
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : NaN;
}

// Linear interpolation between order statistics, as numpy.quantile does.
function quantile(values, share) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

// Statistics of one decoder layer over all images, for the targets that `accepts` takes.
function summarise(report, records, layer, accepts) {
  const chosen = [];
  let [shared, hitsCap, images] = [0, 0, 0];
  records.forEach((record, image) => {
    const taken = record[layer].targets
      .map((target, t) => ({ ...target, size: report.images[image].targets[t].size, image, t }))
      .filter(({ t }) => accepts(report.images[image].targets[t]));
    chosen.push(...taken);
    if (!taken.length && report.images[image].targets.length) return;
    images++;
    shared += record[layer].shared;
    hitsCap += record[layer].hitsCap;
  });
  const counts = chosen.map((record) => record.pairs.length);
  const picked = chosen.filter((record) => record.pickRank > 0);
  const bySize = (size) => chosen.filter((r) => r.size === size).map((r) => r.pairs.length);
  return {
    chosen,
    counts,
    targets: chosen.length,
    images,
    mean: mean(counts),
    p10: quantile(counts, 0.1),
    p90: quantile(counts, 0.9),
    small: mean(bySize("small")),
    medium: mean(bySize("medium")),
    large: mean(bySize("large")),
    without: counts.filter((count) => count === 0).length,
    lost: chosen.filter((record) => record.cause === "lost_to_target").length,
    capped: chosen.filter((record) => record.cause === "dropped_by_cap").length,
    shared,
    hitsCap,
    picked: mean(picked.map((record) => Number(record.pickPaired))),
    background: report.sharesClassHead && report.hasOneToMany
      ? chosen.reduce((sum, record) => sum + record.background, 0) / counts.reduce((a, b) => a + b, 0)
      : NaN,
    iou: mean(chosen.flatMap((record) => record.ious)),
    probability: mean(chosen.flatMap((record) => record.probabilities)),
  };
}
