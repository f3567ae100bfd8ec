// State, events, and what is drawn when.

const SLICE_MS = 12;
const report = JSON.parse(textOf("report"));
const store = openStore(report);
const state = {
  image: Math.max(report.images.findIndex((image) => image.targets.length), 0),
  layer: report.numLayers - 1,
  target: null,
  settings: { ...report.settings },  // none where the assignment is stored
  shown: { oneToOne: true, oneToMany: true, rejected: false },
  filter: { category: "", size: "", cause: "", file: "" },
};
// Records per image and layer, for the recipe's settings and for the present ones.
const records = { recipe: null, now: null };
let [updateList, generation, scene, drawn] = [null, 0, null, 0];

function isRecipe() {
  return Object.entries(report.settings ?? {}).every(([name, value]) => state.settings[name] === value);
}

function recordOf(image) {
  return records.now?.[image]?.[state.layer];
}

// Makes the records of all images in slices, so that the page stays responsive.
async function makeRecords(settings, isCurrent) {
  const made = [];
  let pause = performance.now() + SLICE_MS;
  for (let image = 0; image < report.images.length; image++) {
    for (const layer of await store.layers(image)) {
      (made[image] ??= []).push(layerRecord(layer, settings, report));
    }
    if (performance.now() > pause) {
      byId("progress").textContent = `computing ${image + 1} of ${report.images.length} images`;
      await new Promise((resolve) => setTimeout(resolve));
      if (!isCurrent()) return null;
      pause = performance.now() + SLICE_MS;
    }
  }
  return made;
}

async function recompute() {
  const mine = ++generation;
  const isCurrent = () => mine === generation;
  document.body.classList.add("computing");
  records.recipe ??= await makeRecords(report.settings, () => true);
  if (!isCurrent()) return;
  const made = isRecipe() ? records.recipe : await makeRecords({ ...state.settings }, isCurrent);
  if (!made) return;
  records.now = made;
  document.body.classList.remove("computing");
  byId("progress").textContent = "";
  showList();
  showStatistics();
  await draw();
}

function visibleImages() {
  return report.images.map((_, index) => index).filter((index) =>
    passesImage(state.filter, report.images[index], recordOf(index)));
}

function showList() {
  updateList({ current: state.image, visible: visibleImages(), recordOf });
}

function showStatistics() {
  if (!records.now) return;
  const accepts = (target) => acceptsTarget(state.filter, target);
  const over = (all) => Array.from({ length: report.numLayers }, (_, layer) =>
    summarise(report, all, layer, accepts));
  showSummary(report, over(records.now), isRecipe() ? null : over(records.recipe), state);
}

// Draws the present image; a later call overtakes an earlier one that still decodes.
async function draw() {
  const mine = ++drawn;
  const image = report.images[state.image];
  const layers = await store.layers(state.image);
  if (mine !== drawn) return;
  const settings = { ...state.settings };
  const results = layers.map((layer) => resultOf(layer, settings));
  scene = {
    report, image, settings, layer: layers[state.layer], result: results[state.layer],
    record: layerRecord(layers[state.layer], settings, report),
    numberOf: (t) => `#${t}`,
    nameOf: (t) => `${image.targets[t].name} #${t}`,
  };
  showStage();
  showPanel();
  showLayers(results);
  showCaption(image);
}

function showStage() {
  drawStage(byId("stage"), scene, {
    target: state.target, shown: state.shown, picture: store.picture(state.image),
    matches: (t) => matchesTarget(state.filter, scene.image.targets[t], scene.record.targets[t]),
  });
}

function showCaption(image) {
  byId("file-name").textContent = image.file;
  byId("file-note").textContent = `id ${image.id} · ${image.width} × ${image.height} px · ` +
    `${state.image + 1} of ${report.images.length}`;
}

function showPanel() {
  const { image, record, settings } = scene;
  const panel = byId("panel");
  if (state.target === null) {
    const matches = (t) => matchesTarget(state.filter, image.targets[t], record.targets[t]);
    panel.replaceChildren(
      el("h2", {}, "Targets of this image"),
      image.targets.length
        ? targetTable(image, record, settings, { choose: chooseTarget, matches })
        : el("p", { class: "hint" }, "This image has no target."),
      el("p", { class: "hint" }, "Click a target, here or in the picture, for its candidates."));
    return;
  }
  const target = image.targets[state.target];
  panel.replaceChildren(
    el("h2", {}, el("button", { class: "back", onclick: () => chooseTarget(null) }, "‹ all targets"),
      el("span", {}, scene.nameOf(state.target))),
    el("p", { class: "hint" },
      `${target.size} · annotation ${target.annotationId}. `,
      explainCount(scene, state.target), el("br"), pickNote(scene, state.layer, state.target)),
    report.settings ? el("p", { class: "key" }, el("i", { class: "iou-part" }), "IoU part",
      el("i", { class: "class-part" }), "class part", el("i", { class: "tick" }), "threshold") : "",
    candidateTable(scene, state.target, hover));
}

function hover(query) {
  const drawing = byId("stage").querySelector("svg");
  drawing.querySelector(".hover")?.remove();
  if (query === null) return;
  const { layer } = scene;
  drawing.append(drawBox("hover", toRect(boxAt(layer.boxes, layer.numQueries, query), scene.view)));
}

function showLayers(results) {
  const slider = byId("layer");
  slider.value = state.layer;
  byId("layer-ticks").replaceChildren(...results.map(({ pairs }, layer) => {
    const count = state.target === null
      ? pairs.reduce((sum, list) => sum + list.length, 0) : pairs[state.target].length;
    const kind = layer === state.layer ? "current" : "";
    return el("button", { class: kind, onclick: () => chooseLayer(layer), tabindex: -1 },
      el("b", {}, `${layer}`), el("small", {}, plural(count, "pair")));
  }));
}

function chooseImage(index) {
  [state.image, state.target] = [index, null];
  showList();
  byId("images").children[index].scrollIntoView({ block: "nearest", inline: "nearest" });
  return draw();
}

function chooseLayer(layer) {
  state.layer = layer;
  showList();
  showStatistics();
  return draw();
}

function chooseTarget(target) {
  state.target = target;
  return draw();
}

function changeSettings(changes) {
  Object.assign(state.settings, changes);
  showSettings();
  draw();
  recompute();
}

function showSettings() {
  const { k, threshold, iouWeight, classWeight, maxPositiveFraction } = state.settings;
  const values = { k, threshold, iouWeight, cap: maxPositiveFraction ?? 1 };
  for (const [name, value] of Object.entries(values)) byId(`set-${name}`).value = value;
  const limit = maxPositiveFraction === null
    ? "none" : `${fixed(100 * maxPositiveFraction, 0)}% = ${Math.floor(maxPositiveFraction * report.numQueries)} queries`;
  const short = (value) => String(Number(value.toFixed(4)));
  const texts = {
    k: `${k}`, threshold: short(threshold), cap: limit,
    iouWeight: `${short(iouWeight)} IoU + ${short(classWeight)} class`,
  };
  for (const [name, text] of Object.entries(texts)) byId(`value-${name}`).textContent = text;
  byId("reset").disabled = isRecipe();
}

function connectSettings() {
  const recipe = report.settings;
  byId("set-k").max = Math.min(Math.max(LISTED, recipe.k), report.numQueries);
  const read = {
    k: (value) => ({ k: value }),
    threshold: (value) => ({ threshold: value }),
    iouWeight: (value) => ({ iouWeight: value, classWeight: 1 - value }),
    cap: (value) => ({ maxPositiveFraction: value === 1 ? null : value }),
  };
  for (const [name, changes] of Object.entries(read)) {
    const slider = byId(`set-${name}`);
    slider.addEventListener("input", () => changeSettings(changes(slider.valueAsNumber)));
  }
  byId("reset").addEventListener("click", () => changeSettings(recipe));
}

function changeFilter(name, value) {
  state.filter[name] = value;
  const visible = visibleImages();
  showStatistics();
  if (visible.length && !visible.includes(state.image)) chooseImage(visible[0]);
  else {
    showList();
    draw();
  }
}

function step(direction) {
  const visible = visibleImages();
  const next = direction > 0
    ? visible.find((index) => index > state.image)
    : visible.findLast((index) => index < state.image);
  if (next !== undefined) chooseImage(next);
}

const KEYS = {
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  ArrowLeft: () => chooseLayer(Math.max(state.layer - 1, 0)),
  ArrowRight: () => chooseLayer(Math.min(state.layer + 1, report.numLayers - 1)),
  Escape: () => chooseTarget(null),
};

function onKey(event) {
  const typing = event.target.closest("input:not(#layer, [type=checkbox]), select, dialog");
  if (!KEYS[event.key] || typing || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  KEYS[event.key]();
}

function connect() {
  document.addEventListener("keydown", onKey);
  byId("layer").max = report.numLayers - 1;
  byId("layer").addEventListener("input", (event) => chooseLayer(event.target.valueAsNumber));
  document.body.style.setProperty("--layers", report.numLayers);
  for (const name of ["oneToOne", "oneToMany", "rejected"]) {
    byId(`show-${name}`).checked = state.shown[name];
    byId(`show-${name}`).addEventListener("input", (event) => {
      state.shown[name] = event.target.checked;
      showStage();
    });
  }
  byId("stage").addEventListener("click", (event) => {
    const area = event.currentTarget.querySelector(".sheet").getBoundingClientRect();
    const at = [event.clientX - area.left, event.clientY - area.top];
    chooseTarget(targetAt(scene.image, scene.view, ...at));
  });
  new ResizeObserver(() => scene && showStage()).observe(byId("stage"));
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  if (report.settings) connectSettings();
}

connect();
buildFilters(report, changeFilter);
updateList = buildList(report, store, chooseImage);
if (report.settings) showSettings();
showList();
draw().then(recompute);

// For tests, and for whoever wants the numbers in the browser's console.
window.matchReport = { report, state, store, records, assign, reason, pairwiseScores, changeSettings };
