// Reading what the page carries: an index in JSON, and per image a deflated block of 16-bit
// numbers (layout: msdetr/inspection/report/payload.py) and a JPEG.

const STEPS = 65535;
const NO_QUERY = 65535;

function textOf(id) {
  const element = document.getElementById(id);
  return element ? element.textContent : null;
}

function bytesFromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// All high bytes come first, then all low bytes: they deflate better apart.
function joinBytePlanes(bytes) {
  const length = bytes.length / 2;
  const values = new Uint16Array(length);
  for (let i = 0; i < length; i++) values[i] = (bytes[i] << 8) | bytes[length + i];
  return values;
}

// A layer's values are stored as zigzag-coded differences from the layer before.
function undoDifferences(values, numLayers) {
  const size = values.length / numLayers;
  for (let i = 0; i < values.length; i++) {
    const difference = (values[i] >>> 1) ^ -(values[i] & 1);
    values[i] = i < size ? values[i] : values[i - size] + difference;
  }
  return values;
}

function toFloats(values) {
  const floats = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) floats[i] = values[i] / STEPS;
  return floats;
}

// Cuts an image's block into its parts, in the order of their names.
function splitBlock(values, sizes) {
  const parts = {};
  let start = 0;
  for (const [name, size] of Object.entries(sizes)) {
    parts[name] = values.subarray(start, start + size);
    start += size;
  }
  return parts;
}

function targetPlanes(boxes) {
  const count = boxes.length;
  const planes = new Float32Array(4 * count);
  boxes.forEach((box, t) => box.forEach((value, axis) => (planes[axis * count + t] = value)));
  return planes;
}

// One decoder layer of an image, in the form that assign() takes, and its one-to-one picks.
function layerOf(parts, index, shape, stored) {
  const { numQueries, numTargets, numClasses } = shape;
  const slice = (name, size) => parts[name].subarray(index * size, (index + 1) * size);
  const boxes = toFloats(slice("boxes", 4 * numQueries));
  return {
    numQueries,
    numTargets,
    boxes,
    classOfTarget: shape.classOfTarget,
    probability: toFloats(slice("probabilities", numClasses * numQueries)),
    iou: pairwiseIou(boxes, numQueries, shape.targets, numTargets),
    order: slice("order", numQueries),
    picks: Array.from(slice("pickQueries", numTargets), (query) => (query === NO_QUERY ? -1 : query)),
    pickBoxes: toFloats(slice("pickBoxes", 4 * numTargets)),
    pickProbabilities: toFloats(slice("pickProbabilities", numTargets)),
    stored: stored && storedResult(stored.layers[index], stored.words),
  };
}

async function decodeImage(index, report) {
  const image = report.images[index];
  const { numLayers, numQueries } = report;
  const numTargets = image.targets.length;
  const classes = [...new Set(image.targets.map((target) => target.label))];
  const shape = {
    numQueries,
    numTargets,
    numClasses: classes.length,
    classOfTarget: image.targets.map((target) => classes.indexOf(target.label)),
    targets: targetPlanes(image.targets.map((target) => target.box)),
  };
  const block = document.getElementById(`block-${index}`);
  const values = joinBytePlanes(await inflate(bytesFromBase64(block.textContent)));
  block.remove();
  const parts = splitBlock(values, {
    boxes: numLayers * 4 * numQueries,
    probabilities: numLayers * classes.length * numQueries,
    order: numLayers * numQueries,
    pickQueries: numLayers * numTargets,
    pickBoxes: numLayers * 4 * numTargets,
    pickProbabilities: numLayers * numTargets,
  });
  undoDifferences(parts.boxes, numLayers);
  undoDifferences(parts.probabilities, numLayers);
  return Array.from({ length: numLayers }, (_, layer) => layerOf(parts, layer, shape, image.stored));
}

// Decodes every image once; later calls share the result.
function openStore(report) {
  const decoded = new Map();
  return {
    layers(index) {
      if (!decoded.has(index)) decoded.set(index, decodeImage(index, report));
      return decoded.get(index);
    },
    picture(index) {
      const jpeg = textOf(`jpeg-${index}`);
      return jpeg ? `data:image/jpeg;base64,${jpeg}` : null;
    },
  };
}
