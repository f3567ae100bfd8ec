// Charts as plain SVG. Where two settings are compared, "now" is blue and the recipe's is black.

const CHART = { width: 360, height: 210, left: 40, right: 12, top: 12, bottom: 34 };

// A round step that divides 0..value into at most five parts.
function niceStep(value) {
  if (!(value > 0)) return 0.25;
  const power = 10 ** Math.floor(Math.log10(value / 5));
  return [1, 2, 2.5, 5, 10].find((step) => 5 * step * power >= value * 0.9999) * power;
}

function niceScale(value) {
  const step = niceStep(value);
  const count = Math.max(Math.ceil(value / step - 1e-4), 1);
  return { top: count * step, ticks: Array.from({ length: count + 1 }, (_, i) => i * step) };
}

function chartFrame(title, caption, marks) {
  const drawing = svg("svg", {
    viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": title,
  }, marks);
  return el("figure", {}, el("figcaption", {}, el("b", {}, title), el("span", {}, caption)), drawing);
}

function scaleY(top) {
  const height = CHART.height - CHART.top - CHART.bottom;
  return (value) => CHART.top + height * (1 - value / top);
}

function axisY({ top, ticks }, format) {
  const y = scaleY(top);
  return ticks.map((value) => svg("g", { class: "grid" },
    svg("line", { x1: CHART.left, x2: CHART.width - CHART.right, y1: y(value), y2: y(value) }),
    svg("text", { x: CHART.left - 6, y: y(value) + 4, class: "end" }, format(value))));
}

function axisTitle(text) {
  const middle = (CHART.left + CHART.width - CHART.right) / 2;
  return svg("text", { x: middle, y: CHART.height - 3, class: "middle axis" }, text);
}

function shortNumber(value) {
  return String(Number(value.toFixed(2)));
}

function shareText(value) {
  return `${shortNumber(Math.round(1000 * value) / 10)}%`;
}

// bars: {label, now, recipe|null}; values are shares or numbers.
function barChart({ title, caption, axis, bars, format }) {
  const scale = niceScale(Math.max(...bars.flatMap((bar) => [bar.now, bar.recipe ?? 0])));
  const y = scaleY(scale.top);
  const step = (CHART.width - CHART.left - CHART.right) / bars.length;
  const every = Math.ceil(bars.length / 14);
  const marks = bars.map((bar, index) => {
    const x = CHART.left + index * step;
    const label = index % every === 0 ? bar.label : "";
    return svg("g", {},
      svg("title", {}, `${bar.label}: ${format(bar.now)}`),
      svg("rect", {
        x: x + step * 0.15, width: step * 0.7, y: y(bar.now), height: y(0) - y(bar.now),
        class: "now",
      }),
      bar.recipe === null ? null : svg("line", {
        x1: x + step * 0.06, x2: x + step * 0.94, y1: y(bar.recipe), y2: y(bar.recipe),
        class: "recipe",
      }),
      svg("text", { x: x + step / 2, y: CHART.height - 19, class: "middle" }, label));
  });
  return chartFrame(title, caption, [axisY(scale, format), marks, axisTitle(axis)]);
}

function polyline(points, kind) {
  const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return svg("g", { class: `curve ${kind}` }, svg("polyline", { points: path }),
    points.map(([cx, cy]) => svg("circle", { cx, cy, r: kind === "now" ? 3.5 : 2.5 })));
}

// series: {now: [values by layer], recipe: [values]|null}
function layerChart({ title, caption, series, format, current }) {
  const all = [...series.now, ...(series.recipe ?? [])].filter(Number.isFinite);
  const scale = niceScale(Math.max(...all, 0));
  const y = scaleY(scale.top);
  const step = (CHART.width - CHART.left - CHART.right) / series.now.length;
  const x = (layer) => CHART.left + (layer + 0.5) * step;
  const points = (values) => values.map((value, layer) => [x(layer), y(value)])
    .filter((point) => point.every(Number.isFinite));
  const ticks = series.now.map((_, layer) => svg("text", {
    x: x(layer), y: CHART.height - 19, class: layer === current ? "middle strong" : "middle",
  }, `${layer}`));
  const band = svg("rect", {
    x: x(current) - step / 2, width: step, y: CHART.top, height: y(0) - CHART.top, class: "band",
  });
  return chartFrame(title, caption, [
    band, axisY(scale, format), ticks, axisTitle("decoder layer"),
    series.recipe ? polyline(points(series.recipe), "recipe") : null,
    polyline(points(series.now), "now"),
  ]);
}

// Positives by IoU and probability, with the line where the score equals the threshold.
function scatterChart({ title, caption, points, settings }) {
  const y = scaleY(1);
  const width = CHART.width - CHART.left - CHART.right;
  const x = (value) => CHART.left + width * value;
  const path = points.map(([iou, p]) => `M${x(iou).toFixed(1)},${y(p).toFixed(1)}h0`).join("");
  const ticks = niceScale(1).ticks.map((value) =>
    svg("text", { x: x(value), y: CHART.height - 19, class: "middle" }, shortNumber(value)));
  return chartFrame(title, caption, [
    axisY(niceScale(1), shortNumber), ticks, axisTitle("IoU (across), probability (up)"),
    svg("path", { d: path, class: "points" }), thresholdLine(settings, x, y),
  ]);
}

function thresholdLine({ threshold, iouWeight, classWeight }, x, y) {
  if (threshold === undefined) return null;
  const ends = [];
  const add = (iou, p) => iou >= 0 && iou <= 1 && p >= 0 && p <= 1 && ends.push([iou, p]);
  if (classWeight > 0) for (const iou of [0, 1]) add(iou, (threshold - iouWeight * iou) / classWeight);
  if (iouWeight > 0) for (const p of [0, 1]) add((threshold - classWeight * p) / iouWeight, p);
  if (ends.length < 2) return null;
  const [first, last] = [ends[0], ends.at(-1)];
  return svg("line", {
    x1: x(first[0]), y1: y(first[1]), x2: x(last[0]), y2: y(last[1]), class: "threshold",
  });
}
