// The hits as a grid: photos that stay keep their picture and glide to their new place.

import { photo } from "./api.js";
import { element } from "./element.js";

const TRIES = 4; // of a photo
const GLIDE = { duration: 180, easing: "ease-out" };

export class Results {
  #cells = new Map(); // photo_id → { item, button, image, rank, score, words }
  hits = [];

  // `opened(place)` is called for the hit that was chosen.
  constructor(list, opened) {
    this.list = list;
    this.opened = opened;
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.#reach(this.#place(event.target)));
  }

  // The hit that has the focus, if any.
  get focused() {
    return this.hits[this.#place(document.activeElement)] ?? null;
  }

  show(hits) {
    const focus = this.#place(document.activeElement);
    const held = this.focused?.photo_id;
    const before = this.#corners();
    const old = this.#cells;
    this.#cells = new Map(hits.map((hit) => [hit.photo_id, old.get(hit.photo_id) ?? cell(hit)]));
    for (const [id, gone] of old) if (!this.#cells.has(id)) URL.revokeObjectURL(gone.image.src);
    this.hits = hits;
    hits.forEach((hit, place) => this.#fill(this.#cells.get(hit.photo_id), hit, place));
    this.list.replaceChildren(...[...this.#cells.values()].map(({ item }) => item));
    this.#glide(before);
    const kept = hits.findIndex((hit) => hit.photo_id === held);
    if (focus >= 0) this.focus(kept >= 0 ? kept : Math.min(focus, hits.length - 1), { preventScroll: true });
    else this.#reach(0);
  }

  focus(place, options) {
    this.#buttons()[place]?.focus(options);
  }

  #fill({ button, rank, score, words }, hit, place) {
    rank.textContent = place + 1;
    score.textContent = scoreOf(hit);
    words.textContent = hit.text ?? hit.photo_id; // another version of the gallery may say something else
    button.onclick = () => this.opened(place);
  }

  #buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  #place(target) {
    return this.#buttons().indexOf(target);
  }

  // Tab reaches one hit of the grid; arrows lead to the others.
  #reach(place) {
    this.#buttons().forEach((button, i) => (button.tabIndex = i === place ? 0 : -1));
  }

  #key(event) {
    const place = this.#place(event.target);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columns(), ArrowDown: this.#columns() };
    const ends = { Home: 0, End: this.hits.length - 1 };
    const next = ends[event.key] ?? place + steps[event.key];
    if (event.ctrlKey || event.metaKey || !(next >= 0 && next < this.hits.length)) return;
    event.preventDefault();
    this.focus(next);
  }

  #columns() {
    const [first, ...rest] = this.#buttons().map((button) => button.parentElement.offsetTop);
    return 1 + rest.filter((top) => top === first).length;
  }

  #corners() {
    const items = [...this.list.children];
    return new Map(items.map((item) => [item, [item.offsetLeft, item.offsetTop]]));
  }

  #glide(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const item of this.list.children) {
      const [left, top] = before.get(item) ?? [item.offsetLeft, item.offsetTop];
      const [x, y] = [left - item.offsetLeft, top - item.offsetTop];
      if (!before.has(item)) item.animate([{ opacity: 0 }, {}], GLIDE);
      else if (x || y) item.animate([{ transform: `translate(${x}px, ${y}px)` }, {}], GLIDE);
    }
  }
}

export function scoreOf(hit) {
  return hit.score.toFixed(3);
}

function cell(hit) {
  const image = element("img", { alt: "", decoding: "async" });
  const frame = element("span", { className: "frame" }, image);
  const rank = element("span", { className: "rank" });
  const score = element("span", { className: "score" });
  const line = element("span", { className: "line" }, element("span", { textContent: hit.category }), " ", score);
  const words = element("span", { className: "words" });
  const button = element("button", { type: "button", className: "hit" });
  button.append(frame, rank, " ", element("span", { className: "caption" }, line, " ", words)); // also its name
  showPhoto(image, hit.uri, () => frame.replaceChildren("no picture"));
  return { item: element("li", {}, button), button, image, rank, score, words };
}

// Puts a photo into an <img>; `missing()` is called where there is none to show. A full server is asked again.
export async function showPhoto(image, uri, missing) {
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      image.src = await photo(uri, tries > 0); // an <img> does not say why it has no picture
      await image.decode();
      image.classList.add("there");
      return;
    } catch (error) {
      if (tries > 0 && !error.retryAfter) break;
      await pause(error.retryAfter ?? 0);
    }
  }
  missing();
}

function pause(seconds) {
  return new Promise((resume) => setTimeout(resume, 1000 * seconds));
}
