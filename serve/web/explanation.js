// A dialog that explains a hit: which strokes and which words raised its score.

import { explain } from "./api.js";
import { Canvas } from "./canvas.js";
import { element } from "./element.js";
import { createThumbnail } from "./thumbnail.js";

const POSITIONS = [["top", "middle", "bottom"], ["left", "centre", "right"]];

export class Explanation {
  #query = null; // the explained one
  #cells = [];

  constructor(dialog) {
    this.dialog = dialog;
    this.drawing = dialog.querySelector("canvas");
    this.canvas = new Canvas(this.drawing, () => this.#draw());
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  }

  // Explains a hit of `query`, as `search` takes it.
  async open(query, { photo_id: photoId }) {
    this.#query = query;
    this.drawing.hidden = query.drawing.strokes.length === 0 && query.drawing.image === null;
    this.#show("Comparing …");
    this.dialog.querySelector(".frame").replaceChildren(createThumbnail(photoId));
    if (!this.dialog.open) this.dialog.showModal();
    const show = (...answer) => query === this.#query && this.#show(...answer); // another hit may be explained by now
    try {
      const { score, cells, words } = await explain(query, photoId);
      show(`Score ${score.toFixed(3)}. Each part counts by what the score would lose without it.`, cells ?? [], words);
    } catch (error) {
      show(error.message);
    }
  }

  #show(message, cells = [], words = []) {
    this.#cells = cells;
    this.dialog.querySelector("[role=status]").textContent = message;
    this.drawing.ariaLabel = cells.length ? `Heat map of the drawing. ${describeStrongest(cells)}` : "The drawing";
    const max = Math.max(...words.map(([, contribution]) => Math.abs(contribution)));
    this.dialog.querySelector("ul").replaceChildren(...words.map((word) => createWord(...word, max)));
    this.canvas.requestDraw();
  }

  #draw() {
    const { strokes, image } = this.#query.drawing;
    this.canvas.clear();
    if (image) this.canvas.drawImage(image.bitmap);
    if (this.#cells.length) this.canvas.drawHeat(this.#cells);
    this.canvas.drawStrokes(strokes, this.#query.width);
  }
}

function describeStrongest(cells) {
  const values = cells.flat();
  const index = values.indexOf(Math.max(...values));
  const indices = [Math.floor(index / cells.length), index % cells.length];
  const names = indices.map((at, axis) => POSITIONS[axis][Math.floor((3 * at) / cells.length)]);
  return `The strongest part is at the ${names.join(" ")}: ${formatContribution(values[index])}.`;
}

function createWord(word, contribution, max) {
  const number = element("span", { className: "number", textContent: formatContribution(contribution) });
  const item = element("li", { className: contribution < 0 ? "lowered" : "raised" }, word, " ", number);
  item.style.setProperty("--share", Math.abs(contribution) / max || 0);
  return item;
}

function formatContribution(contribution) {
  return `${contribution < 0 ? "−" : "+"}${Math.abs(contribution).toFixed(3)}`;
}
