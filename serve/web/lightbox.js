// A dialog that enlarges one hit, with buttons for the previous and the next.

import { element } from "./element.js";
import { formatScore, loadPhoto } from "./results.js";

export class Lightbox {
  #hits = [];
  #index = 0;

  // `onSimilar(hit)` is called by "More like this", `onClose(index)` with the last hit.
  constructor(dialog, { onSimilar, onClose }) {
    this.dialog = dialog;
    this.onSimilar = onSimilar;
    this.#part("previous").addEventListener("click", () => this.#step(-1));
    this.#part("next").addEventListener("click", () => this.#step(1));
    this.#part("close").addEventListener("click", () => dialog.close());
    this.#part("similar").addEventListener("click", () => this.#searchSimilar());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => this.#handleKey(event));
    dialog.addEventListener("close", () => onClose(this.#index));
  }

  enableSimilar(isSupported) {
    this.#part("similar").hidden = !isSupported;
  }

  open(hits, index) {
    this.#hits = hits;
    this.#show(index);
    if (!this.dialog.open) this.dialog.showModal();
  }

  #show(index) {
    const hit = this.#hits[index];
    this.#index = index;
    const image = element("img", { alt: hit.text ?? `Photo ${hit.photo_id}` });
    const frame = this.#part("frame");
    URL.revokeObjectURL(frame.querySelector("img")?.src); // a blob URL if it was fetched with a key
    frame.replaceChildren(image);
    loadPhoto(image, hit.uri, () => frame.replaceChildren("No thumbnail for this photo."));
    this.#part("title").textContent = hit.text ?? hit.photo_id;
    const facts = [hit.category, `score ${formatScore(hit)}`, `${index + 1} of ${this.#hits.length}`];
    this.#part("facts").textContent = (hit.text ? [...facts, hit.photo_id] : facts).join(" · ");
    this.#part("previous").disabled = index === 0;
    this.#part("next").disabled = index === this.#hits.length - 1;
  }

  #step(difference) {
    const index = this.#index + difference;
    if (index >= 0 && index < this.#hits.length) this.#show(index);
  }

  #searchSimilar() {
    this.dialog.close();
    this.onSimilar(this.#hits[this.#index]);
  }

  #handleKey(event) {
    const action = { ArrowLeft: () => this.#step(-1), ArrowRight: () => this.#step(1) }[event.key];
    if (event.key.toLowerCase() === "m" && !this.#part("similar").hidden) this.#searchSimilar();
    action?.();
  }

  #part(name) {
    return this.dialog.querySelector(`#lightbox-${name}`);
  }
}
