// Keyboard shortcuts and the list that shows them.

import { element } from "./element.js";

const SETTING = "stbir.shortcuts";

export class Shortcuts {
  // `table`: { keys, label, action }, with names as `keyName` returns them, separated by spaces.
  constructor(table, list, checkbox) {
    this.checkbox = checkbox;
    // Speech input can trigger single-letter keys by mistake, so they can be disabled (WCAG 2.1.4).
    checkbox.checked = localStorage.getItem(SETTING) !== "off";
    checkbox.addEventListener("change", () => localStorage.setItem(SETTING, checkbox.checked ? "on" : "off"));
    this.actions = new Map(table.flatMap(({ keys, action }) => keys.split(" ").map((key) => [key, action])));
    this.entries = new Map(table.map(({ keys, label }) => [keys, createEntry(keys, label)]));
    list.append(...[...this.entries.values()].flat());
    document.addEventListener("keydown", (event) => this.#handleKey(event));
  }

  // Shows or hides a list entry.
  setVisible(keys, isVisible) {
    for (const part of this.entries.get(keys)) part.hidden = !isVisible;
  }

  #handleKey(event) {
    const [name, target] = [keyName(event), event.target];
    const isEnabled = name.startsWith("Ctrl+") || this.checkbox.checked;
    if (event.altKey || target.closest("dialog") || !isEnabled) return;
    if (target.matches("select, input:not([type=range])")) return; // the field takes the key
    const action = this.actions.get(name);
    if (!action) return;
    event.preventDefault();
    action();
  }
}

// `Ctrl+Shift+Z`, `e`, `?`, `Delete`; the command key of a Mac counts as Ctrl.
function keyName(event) {
  if (!(event.ctrlKey || event.metaKey)) return event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `Ctrl+${event.shiftKey ? "Shift+" : ""}${event.key.toUpperCase()}`;
}

function createEntry(keys, label) {
  const caps = keys.split(" ").map((key) => element("kbd", { textContent: key.length === 1 ? key.toUpperCase() : key }));
  const spaced = caps.flatMap((cap, i) => (i ? [" ", cap] : [cap]));
  return [element("dt", {}, ...spaced), element("dd", { textContent: label })];
}
