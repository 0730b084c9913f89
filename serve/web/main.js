// The page: which control does what.

import { info, search } from "./api.js";
import { LiveSearch } from "./live.js";
import { Pad } from "./pad.js";
import { Results } from "./results.js";

const at = (id) => document.getElementById(id);
const results = new Results(at("hits"), at("large"));
const pad = new Pad(at("pad"), changed);

const view = {
  idle() {
    say("Draw a shape, type a few words, or both: the photos that fit appear here.", "welcome");
    results.show([]);
  },
  busy: () => at("results").setAttribute("aria-busy", "true"),
  slow: () => say("Still searching …"),
  found(answer) {
    results.show(answer.hits);
    const n = answer.hits.length;
    say(n ? `${n} ${n === 1 ? "hit" : "hits"} in ${Math.round(answer.timing_ms.total)} ms` : "No photo fits.");
  },
  failed(error) {
    say(error.retryAfter ? `${error.message} Trying again soon …` : error.message, "bad");
    at("retry").hidden = false;
  },
};
const live = new LiveSearch(query, search, view);

function query() {
  const text = at("words").value.trim();
  if (pad.empty && !text) return null;
  const body = { k: Number(at("k").value) || 12, sketch_weight: at("balance").value / 100 };
  if (text) body.text = text;
  if (!pad.empty) Object.assign(body, { sketch: pad.strokes, stroke_width: pad.width });
  if (at("category").value) body.category = at("category").value;
  return body;
}

function changed() {
  const both = !pad.empty && at("words").value.trim() !== "";
  at("undo").disabled = at("clear").disabled = pad.empty;
  at("invitation").hidden = !pad.empty;
  at("balance").parentElement.classList.toggle("idle", !both);
  at("balance").setAttribute("aria-valuetext", `${at("balance").value} % sketch`);
  live.soon();
}

function say(message, look = "") {
  at("message").textContent = message;
  at("message").className = look;
  at("retry").hidden = true;
  at("results").setAttribute("aria-busy", "false");
}

function describe(known) {
  at("k").max = known.limits.k;
  const there = known.gallery;
  at("gallery").textContent = there ? `${there.count.toLocaleString()} photos · version ${there.version}` : "no gallery yet";
  const categories = there?.categories ?? [];
  at("category").append(...categories.map((name) => new Option(name, name)));
  at("category-label").hidden = categories.length < 2;
}

at("undo").addEventListener("click", () => pad.undo());
at("clear").addEventListener("click", () => pad.clear());
at("pen").addEventListener("input", (event) => pad.setWidth(Number(event.target.value)));
at("retry").addEventListener("click", () => live.now());
for (const id of ["words", "balance", "k", "category"]) at(id).addEventListener("input", changed);
at("query").addEventListener("submit", (event) => {
  event.preventDefault();
  live.now();
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) pad.undo();
});

changed();
info().then(describe, (error) => (at("gallery").textContent = error.message));
