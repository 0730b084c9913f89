// What photos must meet beside the query: conditions on columns of the gallery.

import { Condition } from "./condition.js";

const EVERYWHERE = ["category", "photo_id"]; // in every gallery: behind what the catalogue tells
const NOBODYS = "content"; // a digest, which nobody types

export class Conditions {
  #types = {};
  #rows = [];

  // `changed()` is called when a person adds, changes or removes one.
  constructor(part, changed) {
    this.part = part;
    this.list = part.querySelector("ul");
    this.button = part.querySelector("button");
    this.changed = changed;
    this.button.addEventListener("click", () => this.#add().column.focus());
  }

  // Those that are written to the end, all to be met.
  read() {
    const where = this.#rows.map((row) => row.read()).filter(Boolean);
    this.part.querySelector("span").textContent = where.length ? ` (${where.length})` : "";
    return where;
  }

  write(where) {
    this.#rows = [];
    for (const condition of where) this.#add().write(condition);
    this.#show();
    this.part.open = where.length > 0;
  }

  // `columns`: what /v1/info says of the gallery's, name and type.
  offer(columns) {
    const own = Object.keys(columns).filter((name) => ![...EVERYWHERE, NOBODYS].includes(name));
    const names = [...own, ...EVERYWHERE.filter((name) => name in columns)];
    this.#types = Object.fromEntries(names.map((name) => [name, columns[name]]));
    for (const row of this.#rows) row.offer(this.#types);
    this.#show();
  }

  #add() {
    const row = new Condition(this.changed, () => this.#remove(row));
    row.offer(this.#types);
    this.#rows.push(row);
    this.#show();
    return row;
  }

  #remove(row) {
    const place = this.#rows.indexOf(row);
    this.#rows.splice(place, 1);
    this.#show();
    (this.#rows[place]?.remove ?? this.button).focus(); // the focus must not fall off the page
    this.changed();
  }

  #show() {
    this.part.hidden = this.#rows.length === 0 && Object.keys(this.#types).length === 0;
    this.#rows.forEach((row, place) => row.name(place + 1));
    this.list.replaceChildren(...this.#rows.map(({ item }) => item));
  }
}
