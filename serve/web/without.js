// What results should not show: texts, entered one by one in a field. Each becomes a chip above the results.

import { showToast } from "./toast.js";

export class Without {
  #texts = [];
  #limit = Infinity; // of the server

  // `onChange()` is called when the user adds or removes a text.
  constructor(input, onChange) {
    this.input = input;
    this.onChange = onChange;
    input.addEventListener("change", () => this.#add(input.value.trim())); // Enter, or leaving the field
  }

  setLimits({ negatives, characters }) {
    this.#limit = negatives;
    this.input.maxLength = characters;
  }

  read() {
    return [...this.#texts];
  }

  write(texts) {
    this.#texts = [...texts];
  }

  // For display, each with the function that removes it.
  chips() {
    return this.#texts.map((text) => ({ label: `without ${text}`, remove: () => this.#remove(text) }));
  }

  #add(text) {
    if (this.#texts.length >= this.#limit) return showToast(`At most ${this.#limit} texts. Remove one first.`);
    this.input.value = "";
    if (!text || this.#texts.includes(text)) return;
    this.#texts.push(text);
    this.onChange();
  }

  #remove(text) {
    this.#texts = this.#texts.filter((other) => other !== text);
    this.input.focus();
    this.onChange();
  }
}
