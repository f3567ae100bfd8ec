// The left-hand side: filters and the list of images.

function causeFilters(report) {
  const texts = { lost_to_target: "lost to others", dropped_by_cap: "cut by the cap" };
  const names = report.scheme?.causes ?? Object.keys(texts);
  const filterOf = (name) => [`… ${texts[name] ?? asWords(name)}`, (record) => record.cause === name];
  return Object.fromEntries(names.map((name) => [name, filterOf(name)]));
}

const targetFilters = (report) => ({
  "": ["any", () => true],
  with: ["with positives", (record) => record.pairs.length > 0],
  without: ["without positives", (record) => record.pairs.length === 0],
  ...causeFilters(report),
  shared: ["sharing a query", (record) => record.shared],
  unpicked: ["1:1 pick not 1:n", (record) => !record.pickPaired],
});

function countBy(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function option(value, text) {
  return el("option", { value }, text);
}

function buildFilters(report, change) {
  const targets = report.images.flatMap((image) => image.targets);
  const names = [...countBy(targets.map((target) => target.name))].sort((a, b) =>
    a[0].localeCompare(b[0]));
  byId("filter-category").append(option("", `all (${names.length})`),
    ...names.map(([name, count]) => option(name, `${name} (${count})`)));
  const sizes = countBy(targets.map((target) => target.size));
  byId("filter-size").append(option("", "all"), ...["small", "medium", "large"].map((size) =>
    option(size, `${size} (${sizes.get(size) ?? 0})`)));
  byId("filter-cause").append(...Object.entries(targetFilters(report)).map(([value, [text]]) =>
    option(value, text)));
  for (const name of ["category", "size", "cause", "file"]) {
    byId(`filter-${name}`).addEventListener("input", (event) => change(name, event.target.value));
  }
}

// Whether a target passes the filters that do not depend on the assignment.
function acceptsTarget(filter, target) {
  return (!filter.category || target.name === filter.category) &&
    (!filter.size || target.size === filter.size);
}

function matchesTarget(filter, target, record) {
  return acceptsTarget(filter, target) && (!record || targetFilters(report)[filter.cause][1](record));
}

function passesImage(filter, image, record) {
  const file = filter.file.trim().toLowerCase();
  if (file && !`${image.file} ${image.id}`.toLowerCase().includes(file)) return false;
  if (!filter.category && !filter.size && !filter.cause) return true;
  return image.targets.some((target, t) => matchesTarget(filter, target, record?.targets[t]));
}

function imageItem(image, index, choose) {
  return el("li", { "data-image": index },
    el("button", { onclick: () => choose(index), title: image.file },
      el("span", { class: "thumb" }),
      el("span", { class: "what" },
        el("b", {}, image.file.split("/").at(-1)), el("small", {}, ""))));
}

function noteOfImage(image, record) {
  const targets = plural(image.targets.length, "target");
  if (!record) return targets;
  const without = record.targets.filter((target) => target.pairs.length === 0).length;
  return without ? `${targets} · ${without} without` : targets;
}

// Thumbnails are made when they come into view.
function watchThumbnails(items, store) {
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      const picture = store.picture(Number(target.dataset.image));
      if (picture) target.querySelector(".thumb").append(el("img", { src: picture, alt: "" }));
    }
  }, { rootMargin: "200px" });
  items.forEach((item) => watcher.observe(item));
}

function buildList(report, store, choose) {
  const items = report.images.map((image, index) => imageItem(image, index, choose));
  byId("images").append(...items);
  watchThumbnails(items, store);
  return function update({ current, visible, recordOf }) {
    items.forEach((item, index) => {
      item.hidden = !visible.includes(index);
      item.classList.toggle("current", index === current);
      item.querySelector("small").textContent = noteOfImage(report.images[index], recordOf(index));
    });
    byId("image-count").textContent = visible.length === items.length
      ? plural(items.length, "image") : `${visible.length} of ${plural(items.length, "image")}`;
  };
}
