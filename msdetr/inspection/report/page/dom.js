// Making elements. Text from the data set only ever enters as text nodes and attributes.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null));
  return element;
}

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG_NAMESPACE, name), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function fixed(value, digits) {
  return Number.isFinite(value) ? value.toFixed(digits) : "–";
}

// A number of any size in about six characters.
function significant(value) {
  if (!Number.isFinite(value)) return "–";
  const isSmall = value !== 0 && Math.abs(value) < 0.01;
  return isSmall ? value.toExponential(1) : String(Number(value.toPrecision(value < 0 ? 2 : 3)));
}

function percent(share) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%` : "–";
}

function plural(count, singular, several = `${singular}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? singular : several}`;
}
