// The picture with its boxes: targets, one-to-many positives, one-to-one picks, rejected.

const LABEL_HEIGHT = 17;
const MAX_ZOOM = 4;
const MANY_TARGETS = 12;
const ruler = document.createElement("canvas").getContext("2d");

// Width of a label's text, in pixels; its font is the one of .label in style.css.
function textWidth(text) {
  ruler.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

function boxAt(planes, length, index) {
  return [0, 1, 2, 3].map((axis) => planes[axis * length + index]);
}

function toRect([cx, cy, w, h], view) {
  return {
    x: (cx - w / 2) * view.width,
    y: (cy - h / 2) * view.height,
    width: w * view.width,
    height: h * view.height,
  };
}

function viewOf(image, stage) {
  const room = { width: stage.clientWidth, height: stage.clientHeight };
  const zoom = Math.min(room.width / image.width, room.height / image.height, MAX_ZOOM);
  return { width: image.width * zoom, height: image.height * zoom };
}

// Finds a free place for a label at one of a box's corners; null if all are taken.
function placeLabel(rect, width, taken, view) {
  const right = rect.x + rect.width - width;
  const bottom = rect.y + rect.height;
  const places = [
    [rect.x, rect.y - LABEL_HEIGHT],
    [right, rect.y - LABEL_HEIGHT],
    [rect.x, bottom],
    [right, bottom],
    [rect.x, rect.y],
    [right, rect.y],
    [rect.x, bottom - LABEL_HEIGHT],
    [right, bottom - LABEL_HEIGHT],
    [rect.x + rect.width, rect.y],
    [rect.x - width, rect.y],
    [rect.x + rect.width, bottom - LABEL_HEIGHT],
    [rect.x - width, bottom - LABEL_HEIGHT],
  ];
  const place = places.find(
    ([x, y]) =>
      x >= 0 && y >= 0 && x + width <= view.width && y + LABEL_HEIGHT <= view.height &&
      !taken.some((other) => x < other.x + other.width && x + width > other.x &&
        y < other.y + LABEL_HEIGHT && y + LABEL_HEIGHT > other.y),
  );
  if (!place) return null;
  const label = { x: place[0], y: place[1], width };
  taken.push(label);
  return label;
}

function drawLabel(text, kind, rect, taken, view) {
  const place = placeLabel(rect, textWidth(text) + 8, taken, view);
  if (!place) return null;
  return svg("g", { class: `label ${kind}` },
    svg("rect", { x: place.x, y: place.y, width: place.width, height: LABEL_HEIGHT, rx: 3 }),
    svg("text", { x: place.x + place.width / 2, y: place.y + 12.5 }, text));
}

function drawBox(kind, rect, attributes = {}) {
  const halo = svg("rect", { ...rect, class: "halo" });
  return svg("g", { class: `box ${kind}`, ...attributes }, halo, svg("rect", rect));
}

// What to draw for one target: boxes from back to front, and labels by importance.
function shapesOfTarget(scene, target, { detailed, shown }) {
  const { layer, result, image } = scene;
  const [boxes, labels] = [[], []];
  const pairs = Array.from(result.pairs[target]);
  const rect = (query) => toRect(boxAt(layer.boxes, layer.numQueries, query), scene.view);
  if (shown.rejected && detailed) {
    rejectedOf(scene, target).forEach(({ query, rank }) => {
      boxes.push(drawBox("rejected", rect(query), { "data-query": query }));
      labels.push([`${rank}`, "rejected", rect(query), 3]);
    });
  }
  if (shown.oneToMany) {
    pairs.toReversed().forEach((query) => {
      const width = 1 + 4 * strengthOf(scene, target, query);
      boxes.push(drawBox("positive", rect(query), { "data-query": query, style: `--width:${width}px` }));
    });
    if (detailed) pairs.forEach((q, i) => labels.push([`${i + 1}`, "positive", rect(q), 1]));
  }
  const truth = toRect(image.targets[target].box, scene.view);
  boxes.push(drawBox("target", truth, { "data-target": target }));
  // Names would cover a crowded picture; the table beside it has them.
  const crowded = !detailed && image.targets.length > MANY_TARGETS;
  const text = crowded ? scene.numberOf(target) : scene.nameOf(target);
  labels.push([text, "target", truth, detailed ? 0 : 2]);
  if (shown.oneToOne && layer.picks[target] >= 0) {
    const pick = toRect(boxAt(layer.pickBoxes, layer.numTargets, target), scene.view);
    boxes.push(drawBox("pick", pick, { "data-pick": target }));
    if (detailed) labels.push(["1:1", "pick", pick, 1]);
  }
  return { boxes, labels };
}

// How wide the line of a positive is, 0 to 1.
function strengthOf({ layer, result }, target, query) {
  if (result.stored) return storedRow(result, target, query).strength;
  return result.scores[target * layer.numQueries + query];
}

function drawStage(stage, scene, options) {
  scene.view = viewOf(scene.image, stage);
  const targets = scene.image.targets.map((_, index) => index);
  const chosen = options.target === null ? targets : [options.target];
  const faded = targets.filter((index) => !chosen.includes(index) || !options.matches(index));
  const drawing = svg("svg", {
    ...scene.view, viewBox: `0 0 ${scene.view.width} ${scene.view.height}`,
    role: "img", "aria-label": `Boxes on ${scene.image.file}`,
  });
  faded.forEach((index) => drawing.append(
    drawBox("target faded", toRect(scene.image.targets[index].box, scene.view)),
  ));
  const detailed = options.target !== null;
  const shapes = chosen.filter((index) => options.matches(index) || detailed)
    .map((index) => shapesOfTarget(scene, index, { detailed, shown: options.shown }));
  drawing.append(...shapes.flatMap(({ boxes }) => boxes));
  const taken = [];
  const labels = shapes.flatMap((shape) => shape.labels).sort((a, b) => a[3] - b[3]);
  for (const [text, kind, rect] of labels) {
    const label = drawLabel(text, kind, rect, taken, scene.view);
    if (label) drawing.append(label);
  }
  const picture = options.picture
    ? el("img", { src: options.picture, alt: scene.image.file, ...scene.view })
    : el("div", { class: "no-picture" }, "The image file was not found when the page was made.");
  const sheet = el("div", { class: "sheet" }, picture, drawing);
  sheet.style.width = `${scene.view.width}px`;
  sheet.style.height = `${scene.view.height}px`;
  stage.replaceChildren(sheet);
}

// The smallest target around a point of the drawing, or null.
function targetAt(image, view, x, y) {
  const hits = image.targets
    .map((target, index) => ({ index, ...toRect(target.box, view) }))
    .filter((r) => x >= r.x && y >= r.y && x <= r.x + r.width && y <= r.y + r.height)
    .sort((a, b) => a.width * a.height - b.width * b.height);
  return hits.length ? hits[0].index : null;
}
