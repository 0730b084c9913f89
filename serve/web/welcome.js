// The example queries of the welcome page, as buttons with their drawing.

import { element } from "./element.js";
import { EXAMPLES } from "./examples.js";

const SVG = "http://www.w3.org/2000/svg";

// `onSelect(example)` is called when the user clicks one.
export function fillExamples(list, onSelect) {
  list.append(...EXAMPLES.map((example) => element("li", {}, createButton(example, onSelect))));
}

function createButton(example, onSelect) {
  const text = element("span", { className: "text", textContent: example.text });
  const name = element("span", { className: "name", textContent: example.name });
  const drawing = renderSvg(example.strokes);
  const button = element("button", { type: "button", className: "example" }, drawing, name, text);
  button.addEventListener("click", () => onSelect(example));
  return button;
}

function renderSvg(strokes) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", strokes.map((stroke) => `M${stroke.map((point) => point.join(" ")).join("L")}`).join(""));
  svg.append(path);
  return svg;
}
