// Keys, and the list that tells them: one table for both.

import { element } from "./element.js";

const SETTING = "stbir.shortcuts";

export class Shortcuts {
  // `table` holds { keys, does, run }; keys are as `nameOf` writes them, separated by spaces.
  constructor(table, list, toggle) {
    this.toggle = toggle;
    // Speech control can press single letters by mistake, so there is a way to switch them off (WCAG 2.1.4).
    toggle.checked = localStorage.getItem(SETTING) !== "off";
    toggle.addEventListener("change", () => localStorage.setItem(SETTING, toggle.checked ? "on" : "off"));
    this.runs = new Map(table.flatMap(({ keys, run }) => keys.split(" ").map((key) => [key, run])));
    this.entries = new Map(table.map(({ keys, does }) => [keys, entry(keys, does)]));
    list.append(...[...this.entries.values()].flat());
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  // Tells of keys only where what they do can be done.
  offer(keys, offered) {
    for (const part of this.entries.get(keys)) part.hidden = !offered;
  }

  #key(event) {
    const [name, target] = [nameOf(event), event.target];
    const held = name.startsWith("Ctrl+");
    if (event.altKey || target.closest("dialog") || (!held && !this.toggle.checked)) return;
    if (target.matches("select, input:not([type=range])")) return; // keys belong to the text there
    const run = this.runs.get(name);
    if (!run) return;
    event.preventDefault();
    run();
  }
}

// `Ctrl+Shift+Z`, `e`, `?`, `Delete`; the command key of a Mac counts as Ctrl.
function nameOf(event) {
  if (!(event.ctrlKey || event.metaKey)) return event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `Ctrl+${event.shiftKey ? "Shift+" : ""}${event.key.toUpperCase()}`;
}

function entry(keys, does) {
  const caps = keys.split(" ").map((key) => element("kbd", { textContent: key.length === 1 ? key.toUpperCase() : key }));
  const between = caps.flatMap((cap, place) => (place ? [" ", cap] : [cap]));
  return [element("dt", {}, ...between), element("dd", { textContent: does })];
}
