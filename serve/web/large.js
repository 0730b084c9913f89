// One hit, large, with the way to its neighbours.

import { element } from "./element.js";
import { scoreOf, showPhoto } from "./results.js";

export class Large {
  #hits = [];
  #place = 0;

  // `liked(hit)` is called where more like it are asked for, `closed(place)` with the hit seen last.
  constructor(dialog, { liked, closed }) {
    this.dialog = dialog;
    this.liked = liked;
    this.#part("previous").addEventListener("click", () => this.#step(-1));
    this.#part("next").addEventListener("click", () => this.#step(1));
    this.#part("close").addEventListener("click", () => dialog.close());
    this.#part("like").addEventListener("click", () => this.#like());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => this.#key(event));
    dialog.addEventListener("close", () => closed(this.#place));
  }

  offerLike(offered) {
    this.#part("like").hidden = !offered;
  }

  open(hits, place) {
    this.#hits = hits;
    this.#show(place);
    if (!this.dialog.open) this.dialog.showModal();
  }

  #show(place) {
    const hit = this.#hits[place];
    this.#place = place;
    const image = element("img", { alt: hit.text ?? `Photo ${hit.photo_id}` });
    const frame = this.#part("frame");
    URL.revokeObjectURL(frame.querySelector("img")?.src); // fetched with a key, the last one is a blob
    frame.replaceChildren(image);
    showPhoto(image, hit.uri, () => frame.replaceChildren("There is no picture of this photo."));
    this.#part("title").textContent = hit.text ?? hit.photo_id;
    const facts = [hit.category, `score ${scoreOf(hit)}`, `${place + 1} of ${this.#hits.length}`];
    this.#part("facts").textContent = (hit.text ? [...facts, hit.photo_id] : facts).join(" · ");
    this.#part("previous").disabled = place === 0;
    this.#part("next").disabled = place === this.#hits.length - 1;
  }

  #step(by) {
    const place = this.#place + by;
    if (place >= 0 && place < this.#hits.length) this.#show(place);
  }

  #like() {
    this.dialog.close();
    this.liked(this.#hits[this.#place]);
  }

  #key(event) {
    const act = { ArrowLeft: () => this.#step(-1), ArrowRight: () => this.#step(1) }[event.key];
    if (event.key.toLowerCase() === "m" && !this.#part("like").hidden) this.#like();
    act?.();
  }

  #part(name) {
    return this.dialog.querySelector(`#large-${name}`);
  }
}
