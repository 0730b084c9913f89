// Conditions on columns of the gallery, one row of controls each.

import { element, selectOption } from "./element.js";
import { OPERATORS, columnType, operatorsOf } from "./filter_schema.js";

const STANDARD_COLUMNS = ["category", "photo_id"]; // in every gallery, so listed last
const HIDDEN_COLUMN = "content"; // SHA-256 of the photo

export class Filters {
  #columns = {};
  #rows = [];

  // `onChange()` is called when the user adds, changes or removes a filter.
  constructor(section, onChange) {
    this.section = section;
    this.list = section.querySelector("ul");
    this.addButton = section.querySelector("button");
    this.onChange = onChange;
    this.addButton.addEventListener("click", () => this.#add().column.focus());
  }

  // The complete and valid filters.
  read() {
    return this.#rows.map((row) => row.read()).filter(Boolean);
  }

  // The same for display, each with the function that removes it.
  chips() {
    const rows = this.#rows.filter((row) => row.read());
    return rows.map((row) => ({ label: row.label, remove: () => this.#remove(row) }));
  }

  write(where) {
    this.#rows = [];
    for (const filter of where) this.#add().write(filter);
    this.#render();
  }

  // `columns`: Arrow type by name, from /v1/info.
  setColumns(columns) {
    const own = Object.keys(columns).filter((name) => ![...STANDARD_COLUMNS, HIDDEN_COLUMN].includes(name));
    const names = [...own, ...STANDARD_COLUMNS.filter((name) => name in columns)];
    this.#columns = Object.fromEntries(names.map((name) => [name, columns[name]]));
    for (const row of this.#rows) row.setColumns(this.#columns);
    this.#render();
  }

  #add() {
    const row = new FilterRow(this.onChange, () => this.#remove(row));
    row.setColumns(this.#columns);
    this.#rows.push(row);
    this.#render();
    return row;
  }

  #remove(row) {
    const index = this.#rows.indexOf(row);
    this.#rows.splice(index, 1);
    this.#render();
    (this.#rows[index]?.removeButton ?? this.addButton).focus(); // or the focus would leave the form
    this.onChange();
  }

  #render() {
    this.section.hidden = this.#rows.length === 0 && Object.keys(this.#columns).length === 0;
    this.#rows.forEach((row, index) => row.setNumber(index + 1));
    this.list.replaceChildren(...this.#rows.map(({ item }) => item));
  }
}

class FilterRow {
  static #count = 0;
  #columns = {};
  #linkValue; // the value of a shared link, sent unchanged until the user edits the row

  constructor(onChange, onRemove) {
    this.column = element("select", { ariaLabel: "Column" });
    this.op = element("select", { ariaLabel: "Operator" });
    this.text = element("input", { type: "text", autocomplete: "off", enterKeyHint: "search", ariaLabel: "Value" });
    this.boolean = element("select", { ariaLabel: "Value" }, new Option("true"), new Option("false"));
    this.removeButton = element("button", { type: "button", className: "quiet", textContent: "×" });
    this.error = element("p", { className: "error", id: `filter-error-${(FilterRow.#count += 1)}` });
    this.text.setAttribute("aria-describedby", this.error.id);
    const controls = [this.column, this.op, this.text, this.boolean, this.removeButton, this.error];
    this.group = element("div", { role: "group" }, ...controls);
    this.item = element("li", {}, this.group);
    this.group.addEventListener("input", (event) => this.#edit(event.target, onChange));
    this.removeButton.addEventListener("click", onRemove);
  }

  // The selected column stays even if this gallery lacks it; the server then returns an error.
  setColumns(columns) {
    const selected = this.column.value;
    this.#columns = columns;
    this.column.replaceChildren(...Object.keys(columns).map((name) => new Option(name)));
    selectOption(this.column, selected || Object.keys(columns)[0] || "");
    this.#updateControls();
  }

  write({ column, op, value }) {
    selectOption(this.column, column);
    this.#updateControls();
    selectOption(this.op, op);
    this.#linkValue = value;
    this.text.value = [value].flat().join(", ");
    this.boolean.value = String(value);
  }

  // null while the value is empty or invalid.
  read() {
    const [column, op, value] = [this.column.value, this.op.value, this.#value()];
    this.#showError(value === undefined);
    return value === undefined || value === null ? null : { column, op, value };
  }

  get label() {
    const { column, op, value } = this.read();
    return `${column} ${OPERATORS[op]} ${[value].flat().join(", ")}`;
  }

  setNumber(number) {
    this.group.ariaLabel = `Condition ${number}`;
    this.removeButton.ariaLabel = `Remove condition ${number}`;
  }

  // null: empty. undefined: invalid.
  #value() {
    if (this.#linkValue !== undefined) return this.#linkValue;
    const { parse } = this.#type();
    if (!this.boolean.hidden) return parse(this.boolean.value);
    const parts = this.op.value === "in" ? this.text.value.split(",") : [this.text.value];
    const values = parts.map((part) => part.trim()).filter(Boolean).map(parse);
    if (values.length === 0) return null;
    if (values.includes(undefined)) return undefined;
    return this.op.value === "in" ? values : values[0];
  }

  #type() {
    return columnType(this.#columns[this.column.value]);
  }

  #edit(target, onChange) {
    this.#linkValue = undefined;
    if (target === this.column) this.#updateControls();
    onChange();
  }

  // Operators and value control for the type of the column.
  #updateControls() {
    const { name, hint } = this.#type();
    const operators = operatorsOf(name);
    const selected = this.op.value;
    this.op.replaceChildren(...operators.map((op) => new Option(OPERATORS[op], op)));
    this.op.value = operators.includes(selected) ? selected : "eq";
    this.text.hidden = name === "boolean";
    this.boolean.hidden = !this.text.hidden;
    this.text.inputMode = name === "integer" || name === "float" ? "decimal" : "";
    this.text.placeholder = hint;
    this.error.textContent = "";
  }

  #showError(isInvalid) {
    this.text.ariaInvalid = String(isInvalid);
    const { hint } = this.#type();
    const expected = this.op.value === "in" ? `${hint}, or several separated by commas` : hint;
    this.error.textContent = isInvalid ? `Enter ${expected}.` : "";
  }
}
