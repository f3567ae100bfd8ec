// Assignments of schemes that the browser cannot repeat, as the trace has them (layout:
// msdetr/inspection/report/stored.py).

// In the form of what assign() returns, as far as the page asks for it; `stored` tells the two apart.
function storedResult({ targets, hitsCap }, words) {
  const rows = targets.map((target) =>
    target.rows.map(([query, rank, score, strength, reason, word]) =>
      ({ query, rank, score, strength, reason, words: words[word] })));
  return {
    stored: true,
    rows,
    pairs: rows.map((list) => list.filter((row) => !row.reason).map((row) => row.query)),
    causes: targets.map((target) => target.cause),
    notes: targets.map((target) => target.note),
    hitsCap,
  };
}

function storedRow(result, target, query) {
  return result.rows[target].find((row) => row.query === query);
}

// "more_targets_than_queries" -> "more targets than queries".
function asWords(name) {
  return name.replaceAll("_", " ");
}
