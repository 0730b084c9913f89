// Photos marked as "more like this" or "less like this": a row of buttons, each of which removes its mark.

import { element, icon } from "./element.js";
import { createThumbnail } from "./thumbnail.js";

export class Marks {
  #marks = new Map(); // photo_id → { isLiked, button }

  // `onChange()` is called when the user adds or removes a mark.
  constructor(section, onChange) {
    this.section = section;
    this.list = section.querySelector("ul");
    this.onChange = onChange;
    section.querySelector("#clear-marks").addEventListener("click", () => this.#clear());
  }

  // The fields `like` and `unlike` of a search: photo ids.
  read() {
    const idsOf = (wanted) => [...this.#marks].filter(([, { isLiked }]) => isLiked === wanted).map(([id]) => id);
    return { like: idsOf(true), unlike: idsOf(false) };
  }

  write({ like = [], unlike = [] }) {
    this.#marks.clear();
    for (const id of like) this.#set(id, true);
    for (const id of unlike) this.#set(id, false);
    this.#render();
  }

  add(photoId, isLiked) {
    this.#set(photoId, isLiked);
    this.#render();
    this.onChange();
  }

  #set(photoId, isLiked) {
    const button = createButton(photoId, isLiked);
    button.addEventListener("click", () => this.#remove(photoId));
    this.#marks.set(photoId, { isLiked, button });
  }

  #remove(photoId) {
    const index = [...this.#marks.keys()].indexOf(photoId);
    this.#marks.delete(photoId);
    this.#render();
    const buttons = [...this.#marks.values()].map(({ button }) => button);
    (buttons[index] ?? buttons.at(-1) ?? this.section.parentElement).focus(); // or the focus would be lost
    this.onChange();
  }

  #clear() {
    this.write({});
    this.section.parentElement.focus();
    this.onChange();
  }

  #render() {
    this.section.hidden = this.#marks.size === 0;
    this.list.replaceChildren(...[...this.#marks.values()].map(({ button }) => element("li", {}, button)));
  }
}

function createButton(photoId, isLiked) {
  const label = `Remove mark: ${isLiked ? "more" : "less"} like ${photoId}`;
  const button = element("button", { type: "button", title: label, ariaLabel: label });
  button.append(createThumbnail(photoId), icon(isLiked ? "like" : "unlike"), " ×");
  return button;
}
