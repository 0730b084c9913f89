// What is asked beside the drawing: words, balance, category, how many hits, the pen's width, conditions.

import { Conditions } from "./conditions.js";

const NAMES = ["words", "balance", "category", "k", "width"];

export class Fields {
  // `changed()` is called when a person changes one of them.
  constructor(form, changed) {
    this.form = form;
    this.conditions = new Conditions(form.querySelector("#conditions"), changed);
    for (const name of NAMES) this.#field(name).addEventListener("input", changed);
  }

  read() {
    return {
      words: this.#field("words").value.trim(),
      weight: this.#field("balance").value / 100,
      category: this.#field("category").value,
      k: this.#field("k").valueAsNumber || 12,
      width: this.#field("width").valueAsNumber,
      where: this.conditions.read(),
    };
  }

  write({ words, weight, category, k, width, where }) {
    if (words !== undefined) this.#field("words").value = words;
    if (weight !== undefined) this.#field("balance").value = Math.round(weight * 100);
    if (category !== undefined) this.#choose(category);
    if (k !== undefined) this.#field("k").value = k;
    if (width !== undefined) this.#field("width").value = width;
    if (where !== undefined) this.conditions.write(where);
  }

  // Takes limits, categories and columns from what /v1/info tells.
  limit({ limits, gallery }) {
    this.#field("words").maxLength = limits.characters;
    this.#field("k").max = limits.k;
    const chosen = this.#field("category").value;
    const names = gallery?.categories ?? [];
    this.#field("category").replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
    this.#choose(chosen);
    this.conditions.offer(gallery?.columns ?? {});
  }

  // The balance means something only where there are two things to weigh.
  weigh(both) {
    const balance = this.#field("balance");
    const sketch = Number(balance.value);
    balance.disabled = !both;
    balance.setAttribute("aria-valuetext", `${sketch} % sketch, ${100 - sketch} % words`);
    this.form.querySelector("#shares").textContent = both ? `${100 - sketch} : ${sketch}` : "needs both";
  }

  widen(by) {
    const width = this.#field("width");
    width.value = Number(width.value) + by;
  }

  focusWords() {
    this.#field("words").focus();
  }

  // A link may name a category of another gallery: it is shown, and the server says that it is not there.
  #choose(category) {
    const field = this.#field("category");
    if (![...field.options].some((option) => option.value === category)) field.append(new Option(category, category));
    field.value = category;
  }

  #field(name) {
    return this.form.elements[name];
  }
}
