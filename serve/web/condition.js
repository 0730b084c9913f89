// One condition on a column of the gallery, as a row of controls.

import { element } from "./element.js";

const AMOUNTS = { eq: "is", ne: "is not", lt: "less than", le: "at most", gt: "more than", ge: "at least", in: "one of" };
const ORDERED = { ...AMOUNTS, lt: "before", le: "up to", gt: "after", ge: "from" };
const TRUTHS = { eq: "is", ne: "is not" };
const TIME = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/;
export const OPS = Object.keys(AMOUNTS);

// By Arrow's types: what comparisons are called, what is to be typed, and what is made of it: undefined where it is none.
const KINDS = [
  { types: /^u?int/, ops: AMOUNTS, wanted: "a whole number", read: (text) => numbered(text, Number.isSafeInteger) },
  { types: /^(halffloat|float|double)/, ops: AMOUNTS, wanted: "a number", read: (text) => numbered(text, Number.isFinite) },
  { types: /^bool/, ops: TRUTHS, wanted: "true or false", read: (text) => text === "true" },
  { types: /^timestamp/, ops: ORDERED, wanted: "a time as 2026-01-31", read: (text) => (isTime(text) ? text : undefined) },
  { types: /^/, ops: ORDERED, wanted: "a text", read: (text) => text },
];
let made = 0;

export class Condition {
  #types = {};
  #given; // the value of a link: as it was sent, until somebody changes it

  // `changed()` is called when a person changes it, `removed()` when it is to go.
  constructor(changed, removed) {
    this.column = element("select", { ariaLabel: "Column" });
    this.op = element("select", { ariaLabel: "Comparison" });
    this.text = element("input", { type: "text", autocomplete: "off", enterKeyHint: "search", ariaLabel: "Value" });
    this.truth = element("select", { ariaLabel: "Value" }, new Option("true"), new Option("false"));
    this.remove = element("button", { type: "button", className: "quiet", textContent: "×" });
    this.problem = element("p", { className: "problem", id: `condition-problem-${(made += 1)}` });
    this.text.setAttribute("aria-describedby", this.problem.id);
    this.group = element("div", { role: "group" }, this.column, this.op, this.text, this.truth, this.remove, this.problem);
    this.item = element("li", {}, this.group);
    this.group.addEventListener("input", (event) => this.#change(event.target, changed));
    this.remove.addEventListener("click", removed);
  }

  // `types`: what conditions may name, as /v1/info tells it; a column of another gallery stays, and the server says so.
  offer(types) {
    const chosen = this.column.value;
    this.#types = types;
    this.column.replaceChildren(...Object.keys(types).map((name) => new Option(name)));
    choose(this.column, chosen || Object.keys(types)[0] || "");
    this.#fit();
  }

  write({ column, op, value }) {
    choose(this.column, column);
    this.#fit();
    choose(this.op, op);
    this.#given = value;
    this.text.value = [value].flat().join(", ");
    this.truth.value = String(value);
  }

  // What is to be met; null while it is not written to the end, or not rightly.
  read() {
    const [column, op, value] = [this.column.value, this.op.value, this.#value()];
    this.#tell(value === undefined);
    return value === undefined || value === null ? null : { column, op, value };
  }

  name(number) {
    this.group.ariaLabel = `Condition ${number}`;
    this.remove.ariaLabel = `Remove condition ${number}`;
  }

  // null: nothing is written yet; undefined: something that cannot be meant.
  #value() {
    if (this.#given !== undefined) return this.#given;
    const { read } = this.#kind();
    if (!this.truth.hidden) return read(this.truth.value);
    const parts = this.op.value === "in" ? this.text.value.split(",") : [this.text.value];
    const values = parts.map((part) => part.trim()).filter(Boolean).map(read);
    if (values.length === 0) return null;
    if (values.includes(undefined)) return undefined;
    return this.op.value === "in" ? values : values[0];
  }

  #kind() {
    return KINDS.find(({ types }) => types.test(this.#types[this.column.value] ?? ""));
  }

  #change(target, changed) {
    this.#given = undefined;
    if (target === this.column) this.#fit();
    changed();
  }

  // Comparisons and values as the column's type has them.
  #fit() {
    const { ops, wanted } = this.#kind();
    const chosen = this.op.value;
    this.op.replaceChildren(...Object.entries(ops).map(([op, label]) => new Option(label, op)));
    this.op.value = chosen in ops ? chosen : "eq";
    this.text.hidden = ops === TRUTHS;
    this.truth.hidden = !this.text.hidden;
    this.text.inputMode = ops === AMOUNTS ? "decimal" : "";
    this.text.placeholder = wanted;
    this.problem.textContent = "";
  }

  #tell(wrong) {
    this.text.ariaInvalid = String(wrong);
    const wanted = this.op.value === "in" ? `${this.#kind().wanted}, or more with commas between` : this.#kind().wanted;
    this.problem.textContent = wrong ? `Write ${wanted}.` : "";
  }
}

function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(new Option(value));
  select.value = value;
}

function numbered(text, fits) {
  const number = Number(text);
  return fits(number) ? number : undefined;
}

function isTime(text) {
  return TIME.test(text) && !Number.isNaN(Date.parse(text));
}
