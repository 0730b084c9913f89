// The examples of the welcome page: photos of the gallery, or a drawing for the first of a category.

import { DRAWINGS } from "./drawings.js";
import { element } from "./element.js";
import { createThumbnail } from "./thumbnail.js";

const SVG = "http://www.w3.org/2000/svg";

// `examples` from /v1/info. `onSelect({ photoId, text, strokes })` is called when the user clicks one.
export function fillExamples(list, examples, onSelect) {
  const isFirst = ({ category }, index) => examples.findIndex((other) => other.category === category) === index;
  const drawings = examples.map((example, index) => (isFirst(example, index) ? drawingOf(example.category) : undefined));
  const buttons = examples.map((example, index) => createButton(example, drawings[index], onSelect));
  list.replaceChildren(...buttons.map((button) => element("li", {}, button)));
}

function drawingOf(category) {
  return DRAWINGS[category.toLowerCase().replace(/s$/, "")]; // undefined without one
}

function createButton({ photo_id: photoId, category, text }, strokes, onSelect) {
  const frame = element("span", { className: "frame" }, strokes ? renderSvg(strokes) : createThumbnail(photoId));
  const name = element("span", { className: "name", textContent: category });
  const description = element("span", { className: "text", textContent: text ?? "Photos like this one" });
  const button = element("button", { type: "button", className: "example" }, frame, name, " ", description);
  button.addEventListener("click", () => onSelect({ photoId, text, strokes }));
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
