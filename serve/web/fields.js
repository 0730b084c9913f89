// The form fields beside the drawing: text, negatives, weight, pen width, category, conditions and grouping.

import { Chips } from "./chips.js";
import { selectOption } from "./element.js";
import { Filters } from "./filters.js";
import { Without } from "./without.js";

const NAMES = ["text", "weight", "category", "width", "group"];

export class Fields {
  // `onChange()` is called when the user changes a field.
  constructor(form, onChange) {
    this.form = form;
    this.filters = new Filters(document.getElementById("conditions"), onChange);
    this.without = new Without(document.getElementById("without"), onChange);
    this.chips = new Chips(document.getElementById("chips"));
    this.filterCount = document.getElementById("filter-count");
    this.onChange = onChange;
    for (const name of NAMES) this.#field(name).addEventListener("input", onChange);
  }

  read() {
    return {
      text: this.#field("text").value.trim(),
      weight: this.#field("weight").value / 100,
      category: this.#field("category").value,
      width: this.#field("width").valueAsNumber,
      where: this.filters.read(),
      without: this.without.read(),
      group: this.#field("group").checked,
    };
  }

  write({ text, weight, category, width, where, without, group }) {
    if (text !== undefined) this.#field("text").value = text;
    if (weight !== undefined) this.#field("weight").value = Math.round(weight * 100);
    if (category !== undefined) selectOption(this.#field("category"), category);
    if (width !== undefined) this.#field("width").value = width;
    if (where !== undefined) this.filters.write(where);
    if (without !== undefined) this.without.write(without);
    if (group !== undefined) this.#field("group").checked = group;
  }

  // Limits, categories and columns from /v1/info. The selected category stays even if this gallery lacks it.
  setInfo({ limits, gallery }) {
    this.#field("text").maxLength = limits.characters;
    this.without.setLimits(limits);
    const category = this.#field("category");
    const selected = category.value;
    const names = gallery?.categories ?? [];
    category.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
    selectOption(category, selected);
    this.filters.setColumns(gallery?.columns ?? {});
  }

  // Shows what is in force above the results, and the number of it that the drawer holds.
  showChips() {
    const [category, group] = [this.#field("category"), this.#field("group")];
    const drawer = this.filters.chips();
    if (category.value) drawer.unshift({ label: category.value, remove: () => this.#remove(() => (category.value = "")) });
    if (group.checked) drawer.push({ label: "grouped", remove: () => this.#remove(() => (group.checked = false)) });
    this.filterCount.textContent = drawer.length || "";
    this.chips.show([...this.without.chips(), ...drawer]);
  }

  #remove(reset) {
    reset();
    this.onChange();
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
