// Statistics over all images: figures, charts and a table of the layers.

const RANK_BINS = [[1, 1], [2, 2], [3, 3], [4, 6], [7, 10], [11, 20], [21, Infinity]];

const FIGURES = [
  ["Positives per target", (s) => fixed(s.mean, 2)],
  ["Targets without positives", (s) => percent(s.without / s.targets)],
  ["Mean IoU of positives", (s) => fixed(s.iou, 2)],
  ["Mean probability of positives", (s) => fixed(s.probability, 2)],
  ["1:1 picks among the positives", (s) => percent(s.picked)],
  ["Queries serving two targets", (s) => `${s.shared}`],
  ["Images that hit the cap", (s) => percent(s.hitsCap / s.images)],
  ["Positives 1:1 trains as background", (s) => percent(s.background)],
];

const COLUMNS = [
  ["Layer", (s, layer) => `${layer}`],
  ["Mean", (s) => fixed(s.mean, 2)],
  ["p10", (s) => fixed(s.p10, 1)],
  ["p90", (s) => fixed(s.p90, 1)],
  ["Small", (s) => fixed(s.small, 2)],
  ["Medium", (s) => fixed(s.medium, 2)],
  ["Large", (s) => fixed(s.large, 2)],
  ["None", (s) => `${s.without}`],
  ["lost", (s) => `${s.lost}`],
  ["cap", (s) => `${s.capped}`],
  ["Shared", (s) => `${s.shared}`],
  ["1:1 in", (s) => percent(s.picked)],
  ["Backgr.", (s) => percent(s.background)],
  ["At cap", (s) => `${s.hitsCap}`],
  ["IoU", (s) => fixed(s.iou, 2)],
  ["Prob.", (s) => fixed(s.probability, 2)],
];

// Not every scheme has a cap, or targets that lose their queries to others.
function applicable(report, entries) {
  const { hasCap = true, causes = ["lost_to_target", "dropped_by_cap"] } = report.scheme ?? {};
  const absent = {
    "Images that hit the cap": !hasCap,
    "At cap": !hasCap,
    cap: !causes.includes("dropped_by_cap"),
    lost: !causes.includes("lost_to_target"),
  };
  return entries.filter(([name]) => !absent[name]);
}

function figureCards(report, now, recipe) {
  return applicable(report, FIGURES).map(([name, format]) => {
    const [value, before] = [format(now), recipe && format(recipe)];
    const changed = before !== null && before !== value;
    return el("div", { class: changed ? "card changed" : "card" },
      el("span", {}, name), el("b", {}, value),
      el("small", {}, recipe ? `recipe ${before}` : "\u00a0"));
  });
}

function shareOf(values, test) {
  return values.length ? values.filter(test).length / values.length : 0;
}

function countBars(now, recipe, k) {
  const top = Math.max(k, ...now.counts, ...(recipe ? recipe.counts : [0]));
  return Array.from({ length: top + 1 }, (_, n) => ({
    label: `${n}`,
    now: shareOf(now.counts, (count) => count === n),
    recipe: recipe && shareOf(recipe.counts, (count) => count === n),
  }));
}

function rankBars(now, recipe) {
  return RANK_BINS.map(([low, high]) => {
    const inside = ({ pickRank }) => pickRank >= low && pickRank <= high;
    return {
      label: high === Infinity ? `>${low - 1}` : low === high ? `${low}` : `${low}–${high}`,
      now: shareOf(now.chosen, inside),
      recipe: recipe && shareOf(recipe.chosen, inside),
    };
  });
}

function reasonBars(report, now, recipe) {
  const short = report.scheme?.reasons.map(asWords) ??
    ["other target", "cap", "threshold", "beyond n", "over k"];
  const total = (summary, name) =>
    summary.chosen.reduce((sum, record) => sum + record.reasons[name], 0) / (summary.targets || 1);
  return reasonNames(report).map((name, index) => ({
    label: short[index],
    now: total(now, name),
    recipe: recipe && total(recipe, name),
  }));
}

function chartsOf(report, now, recipe, { settings, layer }) {
  const series = (pick) => ({ now: now.map(pick), recipe: recipe && recipe.map(pick) });
  const [here, before] = [now[layer], recipe && recipe[layer]];
  const points = here.chosen.flatMap(({ ious, probabilities }) =>
    ious.map((iou, index) => [iou, probabilities[index]]));
  return [
    barChart({ title: "Positives per target", caption: `layer ${layer}, share of targets`,
      axis: "positives", bars: countBars(here, before, settings.k ?? 1), format: shareText }),
    layerChart({ title: "Positives per target, by layer", caption: "mean over targets",
      series: series((s) => s.mean), format: shortNumber, current: layer }),
    layerChart({ title: "Targets without positives, by layer", caption: "share of targets",
      series: series((s) => (s.targets ? s.without / s.targets : NaN)),
      format: shareText, current: layer }),
    scatterChart({ title: "Positives by IoU and probability",
      caption: report.settings ? `layer ${layer}; line: score = threshold` : `layer ${layer}`, points, settings }),
    barChart({ title: "Why candidates are not paired",
      caption: `layer ${layer}, per target, of its ${LISTED} best queries`,
      axis: "first reason that holds", bars: reasonBars(report, here, before),
      format: shortNumber }),
    barChart({ title: "Rank of the one-to-one pick",
      caption: `layer ${layer}, in the one-to-many order, share of targets`,
      axis: "rank by score", bars: rankBars(here, before), format: shareText }),
  ];
}

function layerTable(report, now, current) {
  const columns = applicable(report, COLUMNS);
  const head = el("tr", {}, columns.map(([name]) => el("th", { scope: "col" }, name)));
  const rows = now.map((summary, layer) => el("tr", { class: layer === current ? "current" : "" },
    columns.map(([, format]) => el("td", { class: "number" }, format(summary, layer)))));
  return el("table", { class: "layers" }, el("thead", {}, head), el("tbody", {}, rows));
}

// recipe is null while the settings are the recipe's own.
function showSummary(report, now, recipe, view) {
  const cards = figureCards(report, now[view.layer], recipe && recipe[view.layer]);
  byId("figures").replaceChildren(...cards);
  byId("chart-key").hidden = recipe === null;
  byId("charts").replaceChildren(...chartsOf(report, now, recipe, view));
  byId("layer-table").replaceChildren(layerTable(report, now, view.layer));
  const here = now[view.layer];
  byId("scope").textContent = `layer ${view.layer} · ${plural(here.targets, "target")} in ` +
    plural(here.images, "image");
}
