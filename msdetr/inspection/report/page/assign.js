// One-to-many assignment of one image and decoder layer, step by step as in
// msdetr/assignment/one_to_many.py. Every operation is rounded to float32, as it is there, so
// that equal values give equal assignments, ties included.

const f32 = Math.fround;
const SMALLEST_NORMAL = 2 ** -126;

// boxes: Float32Array [4, Q], planes of (cx, cy, w, h). Returns planes of corners and the area.
function cornerPlanes(boxes, length) {
  const [x0, y0, x1, y1, area] = Array.from({ length: 5 }, () => new Float32Array(length));
  for (let i = 0; i < length; i++) {
    const halfWidth = f32(boxes[2 * length + i] * 0.5);
    const halfHeight = f32(boxes[3 * length + i] * 0.5);
    x0[i] = boxes[i] - halfWidth;
    y0[i] = boxes[length + i] - halfHeight;
    x1[i] = boxes[i] + halfWidth;
    y1[i] = boxes[length + i] + halfHeight;
    area[i] = f32(x1[i] - x0[i]) * f32(y1[i] - y0[i]);
  }
  return { x0, y0, x1, y1, area };
}

function overlap(low, high, otherLow, otherHigh) {
  return Math.max(f32(Math.min(high, otherHigh) - Math.max(low, otherLow)), 0);
}

// IoU of all pairs, Float32Array [T, Q], from box planes [4, Q] and [4, T].
function pairwiseIou(boxes, numQueries, targetBoxes, numTargets) {
  const query = cornerPlanes(boxes, numQueries);
  const target = cornerPlanes(targetBoxes, numTargets);
  const iou = new Float32Array(numTargets * numQueries);
  for (let t = 0; t < numTargets; t++) {
    for (let q = 0; q < numQueries; q++) {
      const width = overlap(query.x0[q], query.x1[q], target.x0[t], target.x1[t]);
      const height = overlap(query.y0[q], query.y1[q], target.y0[t], target.y1[t]);
      const intersection = f32(width * height);
      if (intersection === 0) continue;
      const union = f32(f32(query.area[q] + target.area[t]) - intersection);
      iou[t * numQueries + q] = intersection / Math.max(union, SMALLEST_NORMAL);
    }
  }
  return iou;
}

// score = class_weight * probability + iou_weight * IoU, Float32Array [T, Q].
function pairwiseScores(layer, settings) {
  const { iou, probability, classOfTarget, numQueries, numTargets } = layer;
  const classWeight = f32(settings.classWeight);
  const iouWeight = f32(settings.iouWeight);
  const scores = new Float32Array(numTargets * numQueries);
  for (let t = 0; t < numTargets; t++) {
    const row = t * numQueries;
    const classRow = classOfTarget[t] * numQueries;
    for (let q = 0; q < numQueries; q++) {
      scores[row + q] = f32(probability[classRow + q] * classWeight) + f32(iou[row + q] * iouWeight);
    }
  }
  return scores;
}

// Each query's best target; the lowest on ties.
function candidates(scores, numTargets, numQueries) {
  const candidate = new Int32Array(numQueries);
  const candidateScore = new Float32Array(numQueries).fill(-Infinity);
  for (let t = 0; t < numTargets; t++) {
    for (let q = 0; q < numQueries; q++) {
      if (scores[t * numQueries + q] > candidateScore[q]) {
        candidate[q] = t;
        candidateScore[q] = scores[t * numQueries + q];
      }
    }
  }
  return { candidate, candidateScore };
}

// The `count` best queries of every target, Int32Array [T, count]; the lowest first on ties.
function bestQueries(scores, numTargets, numQueries, count) {
  const best = new Int32Array(numTargets * count);
  for (let t = 0; t < numTargets; t++) {
    const row = scores.subarray(t * numQueries, (t + 1) * numQueries);
    const slots = best.subarray(t * count, (t + 1) * count);
    let filled = 0;
    for (let q = 0; q < numQueries; q++) {
      if (filled === count && !(row[q] > row[slots[count - 1]])) continue;
      let slot = filled < count ? filled++ : count - 1;
      for (; slot > 0 && row[q] > row[slots[slot - 1]]; slot--) slots[slot] = slots[slot - 1];
      slots[slot] = q;
    }
  }
  return best;
}

// Of the positives, those with the smallest random numbers stay: floor(fraction * Q) of them.
function capPositives(positive, order, fraction) {
  if (fraction === null) return positive;
  let room = Math.floor(fraction * positive.length);
  const kept = new Uint8Array(positive.length);
  for (const q of order) {
    if (positive[q] && room > 0) {
      kept[q] = 1;
      room--;
    }
  }
  return kept;
}

// All decisions of the assignment. `listed` is how many of a target's best queries are ranked.
function assign(layer, settings, listed = 1) {
  const { numQueries, numTargets } = layer;
  const scores = pairwiseScores(layer, settings);
  const { candidate, candidateScore } = candidates(scores, numTargets, numQueries);
  const length = Math.min(Math.max(settings.k, listed), numQueries);
  const best = bestQueries(scores, numTargets, numQueries, length);
  const threshold = f32(settings.threshold);
  const above = new Uint8Array(numQueries);
  for (let q = 0; q < numQueries; q++) above[q] = candidateScore[q] >= threshold;
  const positive = above.slice();
  for (let t = 0; t < numTargets; t++) positive[best[t * length]] = 1;
  const kept = capPositives(positive, layer.order, settings.maxPositiveFraction);
  const numPositives = new Int32Array(numTargets);
  if (numTargets) kept.forEach((flag, q) => (numPositives[candidate[q]] += flag));
  const pairs = Array.from(numPositives, (n, t) =>
    best.subarray(t * length, t * length + Math.min(n, settings.k, length)),
  );
  return { scores, candidate, above, positive, kept, numPositives, best, length, pairs };
}

// Why a query is not paired with a target: the first reason that holds; null where it is.
function reason(result, settings, target, query, rank) {
  if (rank <= result.pairs[target].length) return null;
  if (result.candidate[query] !== target) return `lost_to_target:${result.candidate[query]}`;
  if (result.positive[query] && !result.kept[query]) return "dropped_by_cap";
  if (!result.above[query]) return "below_threshold";
  if (rank > result.numPositives[target]) return "beyond_count";
  return "over_k";
}
