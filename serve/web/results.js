// The grid of hits. A photo in consecutive results keeps its element and moves to its new position.

import { element, icon } from "./element.js";
import { acceptHold } from "./hold.js";
import { formatMatch } from "./match.js";
import { loadPhoto } from "./thumbnail.js";

const ANIMATION = { duration: 180, easing: "ease-out" };

export class Results {
  #cells = new Map(); // photo_id → the elements of `createCell`
  hits = [];

  // `onOpen(index)` is called when the user selects a hit, `onHold(hit)` when one is held, `onMark(hit, isLiked)`
  // for more or less like it.
  constructor(list, { onOpen, onHold, onMark }) {
    this.list = list;
    this.onOpen = onOpen;
    this.onMark = onMark;
    acceptHold(list, (target) => {
      const hit = target.closest(".hit") && this.hits[this.#indexOf(target)]; // none if it was replaced meanwhile
      if (hit) onHold(hit);
    });
    list.addEventListener("keydown", (event) => this.#handleKey(event));
    list.addEventListener("focusin", (event) => this.#setTabStop(this.#indexOf(event.target)));
  }

  // The focused hit, or null.
  get focused() {
    return this.hits[this.#indexOf(document.activeElement)] ?? null;
  }

  show(hits) {
    const focusIndex = this.#indexOf(document.activeElement);
    const focusId = this.focused?.photo_id;
    const oldPositions = this.#positions();
    const oldCells = this.#cells;
    this.#cells = new Map(hits.map((hit) => [hit.photo_id, oldCells.get(hit.photo_id) ?? createCell(hit)]));
    for (const [id, { image }] of oldCells) if (!this.#cells.has(id)) URL.revokeObjectURL(image.src);
    this.hits = hits;
    hits.forEach((hit, index) => this.#fill(this.#cells.get(hit.photo_id), hit, index));
    this.list.replaceChildren(...[...this.#cells.values()].map(({ item }) => item));
    this.#animate(oldPositions);
    const newIndex = hits.findIndex((hit) => hit.photo_id === focusId);
    if (focusIndex < 0) this.#setTabStop(0);
    else this.focus(newIndex >= 0 ? newIndex : Math.min(focusIndex, hits.length - 1), { preventScroll: true });
  }

  focus(index, options) {
    this.#buttons()[index]?.focus(options);
  }

  #fill({ button, rank, score, match, count, text, like, unlike }, hit, index) {
    rank.textContent = index + 1;
    score.textContent = formatScore(hit);
    match.hidden = typeof hit.match !== "number";
    score.hidden = !match.hidden;
    match.firstChild.textContent = match.hidden ? "" : formatMatch(hit.match);
    count.hidden = !(hit.count > 1);
    count.firstChild.textContent = `+${hit.count - 1}`;
    text.textContent = hit.text ?? hit.photo_id; // may differ in another gallery version
    button.onclick = () => this.onOpen(index);
    for (const [mark, isLiked] of [[like, true], [unlike, false]]) {
      mark.ariaLabel = `${isLiked ? "More" : "Less"} like result ${index + 1}`;
      mark.onclick = () => this.onMark(hit, isLiked);
    }
  }

  #buttons() {
    return [...this.list.querySelectorAll(".hit")];
  }

  // Of the hit that an element belongs to, or -1.
  #indexOf(target) {
    return [...this.list.children].indexOf(target.closest("li"));
  }

  // Roving tabindex: Tab reaches one hit and its marks, arrow keys reach the others.
  #setTabStop(index) {
    for (const [i, item] of [...this.list.children].entries()) {
      for (const button of item.querySelectorAll("button")) button.tabIndex = i === index ? 0 : -1;
    }
  }

  #handleKey(event) {
    const index = this.#indexOf(event.target);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columnCount(), ArrowDown: this.#columnCount() };
    const ends = { Home: 0, End: this.hits.length - 1 };
    const next = ends[event.key] ?? index + steps[event.key];
    if (event.ctrlKey || event.metaKey || !(next >= 0 && next < this.hits.length)) return;
    event.preventDefault();
    this.focus(next);
  }

  #columnCount() {
    const [first, ...others] = this.#buttons().map((button) => button.parentElement.offsetTop);
    return 1 + others.filter((top) => top === first).length;
  }

  #positions() {
    const items = [...this.list.children];
    return new Map(items.map((item) => [item, [item.offsetLeft, item.offsetTop]]));
  }

  #animate(oldPositions) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const item of this.list.children) {
      const [left, top] = oldPositions.get(item) ?? [item.offsetLeft, item.offsetTop];
      const [x, y] = [left - item.offsetLeft, top - item.offsetTop];
      if (!oldPositions.has(item)) item.animate([{ opacity: 0 }, {}], ANIMATION);
      else if (x || y) item.animate([{ transform: `translate(${x}px, ${y}px)` }, {}], ANIMATION);
    }
  }
}

export function formatScore(hit) {
  return hit.score.toFixed(3);
}

function createCell(hit) {
  const image = element("img", { alt: "", decoding: "async" });
  const frame = element("span", { className: "frame" }, image);
  const rank = element("span", { className: "rank" });
  const score = element("span", { className: "score" });
  const match = createMeasure("match", " probability of a match");
  const count = createMeasure("count", " near-duplicates");
  const category = element("span", { className: "category", textContent: hit.category });
  const line = element("span", { className: "line" }, rank, " ", category, " ", score, match);
  const text = element("span", { className: "text" });
  const button = element("button", { type: "button", className: "hit" });
  button.append(frame, element("span", { className: "caption" }, line, " ", text), " ", count); // the accessible name
  const [like, unlike] = [createMark("like", "More like this (+)"), createMark("unlike", "Less like this (-)")];
  const marks = element("span", { className: "marking" }, like, unlike);
  loadPhoto(image, hit.uri, () => frame.replaceChildren("no thumbnail"));
  return { item: element("li", {}, button, marks), button, image, rank, score, match, count, text, like, unlike };
}

// A number whose unit only screen readers need.
function createMeasure(className, unit) {
  return element("span", { className }, "…", element("span", { className: "visually-hidden", textContent: unit }));
}

function createMark(name, title) {
  return element("button", { type: "button", className: name, title }, icon(name));
}
