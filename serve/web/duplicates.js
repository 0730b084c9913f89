// The near-duplicates of a hit, in the lightbox: thumbnails, one of which is shown large.

import { element } from "./element.js";
import { createThumbnail } from "./thumbnail.js";

export class Duplicates {
  // `onSelect(photoId)` is called when the user selects one.
  constructor(section, onSelect) {
    this.section = section;
    this.onSelect = onSelect;
  }

  // The hit itself is the first. The server lists at most 100 others.
  show({ photo_id: photoId, count = 1, duplicates = [] }) {
    const isCut = duplicates.length < count - 1;
    const heading = `${count - 1} near-${count === 2 ? "duplicate" : "duplicates"}`;
    this.section.hidden = count === 1;
    this.section.querySelector("h3").textContent = isCut ? `${heading}, the first ${duplicates.length}` : heading;
    const photoIds = count === 1 ? [] : [photoId, ...duplicates];
    const buttons = photoIds.map((id, index) => this.#createButton(id, index === 0));
    this.section.querySelector("ul").replaceChildren(...buttons.map((button) => element("li", {}, button)));
  }

  #createButton(photoId, isPressed) {
    const button = element("button", { type: "button", ariaLabel: `Show ${photoId}`, ariaPressed: String(isPressed) });
    button.append(createThumbnail(photoId));
    button.addEventListener("click", () => this.#select(button, photoId));
    return button;
  }

  #select(selected, photoId) {
    for (const button of this.section.querySelectorAll("button")) button.ariaPressed = String(button === selected);
    this.onSelect(photoId);
  }
}
