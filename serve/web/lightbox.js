// A dialog that enlarges one hit: the original photo and its page on the web, where the catalogue has them.

import { largePhoto } from "./api.js";
import { Duplicates } from "./duplicates.js";
import { element } from "./element.js";
import { formatMatch } from "./match.js";
import { formatScore } from "./results.js";
import { loadPhoto, photoUri } from "./thumbnail.js";

const MAX_ENLARGEMENT = 2.5; // of a small image; more shows its pixels

export class Lightbox {
  #hits = [];
  #index = 0;

  // `onSimilar(hit)` is called by "Use as query", `onExplain(hit)` by "Why this?", `onMark(hit, isLiked)` for more
  // or less like it, and `onClose(index)` with the last hit.
  constructor(dialog, { onSimilar, onExplain, onMark, onClose }) {
    this.dialog = dialog;
    this.onSimilar = onSimilar;
    this.onExplain = onExplain;
    this.onMark = onMark;
    this.duplicates = new Duplicates(this.#part("duplicates"), (photoId) => this.#showPhoto(photoUri(photoId), photoId));
    this.#part("like").addEventListener("click", () => this.#mark(true));
    this.#part("unlike").addEventListener("click", () => this.#mark(false));
    this.#part("previous").addEventListener("click", () => this.#step(-1));
    this.#part("next").addEventListener("click", () => this.#step(1));
    this.#part("close").addEventListener("click", () => dialog.close());
    this.#part("similar").addEventListener("click", () => this.#closeWith(this.onSimilar));
    this.#part("explain").addEventListener("click", () => this.#closeWith(this.onExplain));
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
    this.#part("title").textContent = hit.text ?? hit.photo_id;
    this.duplicates.show(hit);
    this.#showPhoto(hit.uri, hit.photo_id);
    this.#part("previous").disabled = index === 0;
    this.#part("next").disabled = index === this.#hits.length - 1;
  }

  // The hit, or one of its near-duplicates.
  #showPhoto(uri, photoId) {
    const hit = this.#hits[this.#index];
    const image = element("img", { alt: hit.text ?? `Photo ${photoId}` });
    const frame = this.#part("frame");
    URL.revokeObjectURL(frame.querySelector("img")?.src); // a blob URL if it was fetched with a key
    frame.replaceChildren(image);
    this.#part("link").hidden = true;
    loadPhoto(image, uri, () => frame.replaceChildren("No thumbnail for this photo.")).then(() => this.#enlarge(image, uri));
    const facts = { Rank: `${this.#index + 1} of ${this.#hits.length}`, Score: formatScore(hit), Category: hit.category, Photo: photoId };
    if (typeof hit.match === "number") facts.Match = formatMatch(hit.match);
    const entries = Object.entries(facts).map(([name, value]) => [createText("dt", name), createText("dd", value)]);
    this.#part("facts").replaceChildren(...entries.flat());
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

  #mark(isLiked) {
    this.dialog.close();
    this.onMark(this.#hits[this.#index], isLiked);
  }

  #closeWith(action) {
    this.dialog.close();
    action(this.#hits[this.#index]);
  }

  #handleKey(event) {
    const [left, right] = [() => this.#step(-1), () => this.#step(1)];
    const action = { ArrowLeft: left, ArrowRight: right, "+": () => this.#mark(true), "-": () => this.#mark(false) }[event.key];
    if (event.key.toLowerCase() === "m" && !this.#part("similar").hidden) this.#closeWith(this.onSimilar);
    if (event.key.toLowerCase() === "x") this.#closeWith(this.onExplain);
    action?.();
  }

  #part(name) {
    return this.dialog.querySelector(`#lightbox-${name}`);
  }
}

function createText(tag, textContent) {
  return element(tag, { textContent });
}
