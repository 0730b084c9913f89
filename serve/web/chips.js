// The filters and negatives in force, above the results: a button each, which removes it.

import { element } from "./element.js";

export class Chips {
  #shown = "";

  constructor(list) {
    this.list = list;
  }

  // `filters`: { label, remove } each.
  show(filters) {
    const labels = filters.map(({ label }) => label);
    if (JSON.stringify(labels) === this.#shown) return; // keeps the focus
    this.#shown = JSON.stringify(labels);
    this.list.replaceChildren(...filters.map((filter) => element("li", {}, createChip(filter))));
  }
}

function createChip({ label, remove }) {
  const chip = element("button", { type: "button", title: "Remove this filter", ariaLabel: `Remove filter ${label}` });
  chip.append(`${label} ×`);
  chip.addEventListener("click", remove);
  return chip;
}
