// Elements and words. All text becomes a text node: nothing that a peer sent is ever read as HTML.
const data = JSON.parse(document.getElementById("run-data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const drawn = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
const swatch = (kind) => element("i", { class: `swatch ${kind}`, "aria-hidden": "true" });

function say(text) {
  byId("said").textContent = text;
}

const grouped = new Intl.NumberFormat("en-GB");
const whole = (value) => grouped.format(value);

function significant(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

function bytes(count, digits = 3) {
  let size = Math.abs(count);
  let unit = 0;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${significant(Number(size.toPrecision(digits)), digits)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995) return `${significant(seconds * 1000)} ms`;
  if (seconds < 60) return `${significant(seconds)} s`;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const rest = Math.floor(seconds % 60);
  if (hours < 1) return `${minutes} min${rest ? ` ${rest} s` : ""}`;
  if (hours < 48) return `${hours} h${minutes ? ` ${minutes} min` : ""}`;
  return `${significant(seconds / 86400)} d`;
}

const percent = (share, digits = 3) => `${significant(share * 100, digits)} %`;

function choice(name, legend, options, chosen, onChoice) {
  const group = element("fieldset", { class: "choice" }, element("legend", { class: "unseen" }, legend));
  for (const [value, label] of options) {
    const input = element("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onChoice(value) });
    group.append(element("label", {}, input, label));
  }
  return group;
}

function tick(label, checked, onChange) {
  const input = element("input", { type: "checkbox", checked, onchange: () => onChange(input.checked) });
  return element("label", { class: "tick" }, input, label);
}

// Beside a point of its holder, and never over the holder's edge.
function place(tip, holder, x, y) {
  const room = holder.clientWidth;
  const left = x > room / 2 ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(0, Math.min(left, room - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, y)}px`;
}
