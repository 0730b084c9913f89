// A dialog that enlarges one hit: the original photo and its page on the web, where the catalogue has them.

import { largePhoto } from "./api.js";
import { element } from "./element.js";
import { formatScore, loadPhoto } from "./results.js";

const MAX_ENLARGEMENT = 2.5; // of a small image; more shows its pixels

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
    this.#part("link").hidden = true;
    loadPhoto(image, hit.uri, () => frame.replaceChildren("No thumbnail for this photo.")).then(() => this.#enlarge(image, hit.uri));
    this.#part("title").textContent = hit.text ?? hit.photo_id;
    const facts = { Rank: `${index + 1} of ${this.#hits.length}`, Score: formatScore(hit), Category: hit.category, Photo: hit.photo_id };
    const entries = Object.entries(facts).map(([name, value]) => [createText("dt", name), createText("dd", value)]);
    this.#part("facts").replaceChildren(...entries.flat());
    this.#part("previous").disabled = index === 0;
    this.#part("next").disabled = index === this.#hits.length - 1;
  }

  // Replaces the thumbnail, which stays if the server is full or the original cannot be read.
  async #enlarge(image, uri) {
    image.style.maxWidth = `${MAX_ENLARGEMENT * image.naturalWidth}px`;
    const photo = await largePhoto(uri).catch(() => null);
    if (photo === null) return;
    if (!image.isConnected) return URL.revokeObjectURL(photo.source); // another hit is shown by now
    URL.revokeObjectURL(image.src);
    image.src = photo.source;
    await image.decode().catch(() => {});
    image.style.maxWidth = `${MAX_ENLARGEMENT * image.naturalWidth}px`;
    this.#part("link").hidden = photo.link === null;
    this.#part("link").href = photo.link ?? "";
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

function createText(tag, textContent) {
  return element(tag, { textContent });
}
