// The form fields beside the drawing: text, weight, category, number of results, pen width and filters.

import { selectOption } from "./element.js";
import { Filters } from "./filters.js";

const NAMES = ["text", "weight", "category", "k", "width"];

export class Fields {
  // `onChange()` is called when the user changes a field.
  constructor(form, onChange) {
    this.form = form;
    this.filters = new Filters(form.querySelector("#filters"), onChange);
    for (const name of NAMES) this.#field(name).addEventListener("input", onChange);
  }

  read() {
    return {
      text: this.#field("text").value.trim(),
      weight: this.#field("weight").value / 100,
      category: this.#field("category").value,
      k: this.#field("k").valueAsNumber || 12,
      width: this.#field("width").valueAsNumber,
      where: this.filters.read(),
    };
  }

  write({ text, weight, category, k, width, where }) {
    if (text !== undefined) this.#field("text").value = text;
    if (weight !== undefined) this.#field("weight").value = Math.round(weight * 100);
    if (category !== undefined) selectOption(this.#field("category"), category);
    if (k !== undefined) this.#field("k").value = k;
    if (width !== undefined) this.#field("width").value = width;
    if (where !== undefined) this.filters.write(where);
  }

  // Limits, categories and columns from /v1/info. The selected category stays even if this gallery lacks it.
  setInfo({ limits, gallery }) {
    this.#field("text").maxLength = limits.characters;
    this.#field("k").max = limits.k;
    const category = this.#field("category");
    const selected = category.value;
    const names = gallery?.categories ?? [];
    category.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
    selectOption(category, selected);
    this.filters.setColumns(gallery?.columns ?? {});
  }

  // The weight applies only to a query of both sketch and text.
  enableWeight(hasBoth) {
    const weight = this.#field("weight");
    const sketch = Number(weight.value);
    weight.disabled = !hasBoth;
    weight.setAttribute("aria-valuetext", `${sketch} % sketch, ${100 - sketch} % text`);
    this.form.querySelector("#weight-value").textContent = hasBoth ? `${sketch} : ${100 - sketch}` : "needs both";
  }

  changeWidth(difference) {
    const width = this.#field("width");
    width.value = Number(width.value) + difference;
  }

  focusText() {
    this.#field("text").focus();
  }

  #field(name) {
    return this.form.elements[name];
  }
}
