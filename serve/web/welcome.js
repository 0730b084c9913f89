// The examples, as buttons that show what they draw.

import { element } from "./element.js";
import { EXAMPLES } from "./examples.js";

const SVG = "http://www.w3.org/2000/svg";

// `chosen(example)` is called with the one that is pressed.
export function fillExamples(list, chosen) {
  list.append(...EXAMPLES.map((example) => element("li", {}, button(example, chosen))));
}

function button(example, chosen) {
  const words = element("span", { className: "words", textContent: example.words });
  const name = element("span", { className: "name", textContent: example.name });
  const made = element("button", { type: "button", className: "example" }, drawing(example.strokes), name, words);
  made.addEventListener("click", () => chosen(example));
  return made;
}

function drawing(strokes) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  picture.setAttribute("viewBox", "0 0 1 1");
  picture.setAttribute("aria-hidden", "true");
  path.setAttribute("d", strokes.map((stroke) => `M${stroke.map((point) => point.join(" ")).join("L")}`).join(""));
  picture.append(path);
  return picture;
}
