// The page: which control does what.

import { info, photo, search } from "./api.js";
import { Fields } from "./fields.js";
import { KeyDialog, readKey } from "./key.js";
import { Large } from "./large.js";
import { LiveSearch } from "./live.js";
import { Pad } from "./pad.js";
import { photoPicture, pictureIn, readPicture } from "./picture.js";
import { Results } from "./results.js";
import { fromFragment, toFragment } from "./share.js";
import { Shortcuts } from "./shortcuts.js";
import { Status } from "./status.js";
import { tell } from "./toast.js";
import { fillExamples } from "./welcome.js";

const WELCOME = "Draw a shape, type a few words, or both. Photos that fit appear here.";

const at = (id) => document.getElementById(id);
const pad = new Pad(at("pad"), edited);
const fields = new Fields(at("query"), edited);
const status = new Status(at("results"));
const results = new Results(at("hits"), (place) => large.open(results.hits, place));
const large = new Large(at("large"), { liked: like, closed: (place) => results.focus(place) });
const key = new KeyDialog(at("key"), again);
let known = null; // what /v1/info said last
let reconnect = null; // the timer of asking it again

const view = {
  idle() {
    results.show([]);
    if (known?.gallery === null) status.say("No gallery is published yet: there is nothing to search.", "bad");
    else status.say(WELCOME, "welcome");
  },
  busy: () => status.busy(),
  slow: () => status.slow(),
  found({ hits, gallery_version: version, timing_ms: time }) {
    results.show(hits);
    if (hits.length) status.say(`${hits.length} ${hits.length === 1 ? "photo" : "photos"} in ${Math.round(time.total)} ms`);
    else status.say("No photo fits. Try other words, any category, or fewer conditions.", "none");
    if (known?.gallery?.version !== version) connect(); // another version is published
  },
  failed(error) {
    if (error.status === 401) return askForKey(error);
    const button = error.status === 429 ? "" : "retry"; // full: asking sooner would not help
    status.failed(error.message, { seconds: error.retryAfter, button });
  },
};
const live = new LiveSearch(query, search, view);

function query() {
  const asked = { ...fields.read(), drawing: pad.drawing };
  return pad.empty && !asked.words ? null : asked;
}

function edited() {
  const { strokes, picture } = pad.drawing;
  pad.setWidth(fields.read().width);
  at("undo").disabled = !pad.canUndo;
  at("redo").disabled = !pad.canRedo;
  at("clear").disabled = pad.empty;
  at("invitation").hidden = !pad.empty;
  at("shown").textContent = picture ? (picture.photoId ? `Photos like ${picture.name}` : picture.name) : "";
  at("pad").setAttribute("aria-label", `Drawing area: ${picture ? `picture ${picture.name}` : counted(strokes)}`);
  fields.weigh(!pad.empty && fields.read().words !== "");
  live.soon();
}

function counted({ length }) {
  return length === 0 ? "empty" : `${length} ${length === 1 ? "stroke" : "strokes"}`;
}

function use(tool) {
  pad.setTool(tool);
  at("paper").dataset.tool = tool;
  for (const name of ["pen", "erase"]) at(name).setAttribute("aria-pressed", name === tool);
}

function widen(by) {
  fields.widen(by);
  edited();
}

async function take(files) {
  const file = pictureIn(files);
  if (!file) return tell("That is no picture. PNG, JPEG and WebP can be searched by.");
  try {
    pad.show({ picture: await readPicture(file, known?.limits) });
  } catch (error) {
    tell(error.message);
  }
}

// Not every server searches by a photo of its gallery.
function offersLike() {
  return known?.queries?.includes("photo_id") ?? false;
}

async function like({ photo_id: photoId, uri }) {
  const source = await photo(uri).catch(() => ""); // it can be searched by without a thumbnail too
  pad.show({ picture: await photoPicture(photoId, source) });
}

function start({ strokes, words }) {
  pad.show({ strokes });
  fields.write({ words });
  edited();
  at("results").focus({ preventScroll: true }); // the example that had the focus is gone
}

async function share() {
  try {
    const asked = query();
    history.replaceState(null, "", asked ? await toFragment(asked) : location.pathname);
    await navigator.clipboard.writeText(location.href);
    tell("Link copied.");
  } catch (error) {
    // Browsers give pages from elsewhere than this machine a clipboard only over TLS.
    const noClipboard = error instanceof DOMException || error instanceof TypeError;
    tell(noClipboard ? "The link is in the address bar: copy it from there." : error.message);
  }
}

async function openLink() {
  try {
    const shared = await fromFragment(location.hash);
    if (!shared) return;
    fields.write(shared);
    if (shared.like) await like({ photo_id: shared.like, uri: `/v1/photos/${encodeURIComponent(shared.like)}` });
    else pad.show(shared);
  } catch (error) {
    tell(error.message);
  }
}

async function connect() {
  clearTimeout(reconnect);
  try {
    describe(await info());
    if (query() === null) view.idle();
  } catch (error) {
    at("count").textContent = "not connected";
    at("version").textContent = "";
    // Where there is a query, its search tells what is wrong.
    if (query() === null || error.status === 401) view.failed(error);
    if (error.retryAfter) reconnect = setTimeout(connect, error.retryAfter * 1000);
  }
  at("change-key").hidden = readKey() === null;
}

function describe(told) {
  known = told;
  fields.limit(known);
  large.offerLike(offersLike());
  shortcuts.offer("m", offersLike());
  const { gallery } = known;
  const count = gallery?.count.toLocaleString("en");
  at("count").textContent = gallery ? `${count} ${gallery.count === 1 ? "photo" : "photos"}` : "no gallery yet";
  at("version").textContent = gallery ? ` · version ${gallery.version}` : "";
}

function askForKey(error) {
  status.failed(error.message, { button: "enter-key" });
  key.ask({ refused: readKey() !== null });
}

function again() {
  connect();
  live.retry();
}

const CLICKS = {
  pen: () => use("pen"),
  erase: () => use("erase"),
  undo: () => pad.undo(),
  redo: () => pad.redo(),
  clear: () => pad.clear(),
  picture: () => at("file").click(),
  share,
  help: () => at("shortcuts").showModal(),
  "change-key": () => key.ask(),
  "enter-key": () => key.ask(),
  retry: again,
};
for (const [id, act] of Object.entries(CLICKS)) at(id).addEventListener("click", act);

const shortcuts = new Shortcuts(
  [
    { keys: "b", does: "Pen", run: CLICKS.pen },
    { keys: "e", does: "Eraser", run: CLICKS.erase },
    { keys: "[", does: "Thinner pen", run: () => widen(-1) },
    { keys: "]", does: "Thicker pen", run: () => widen(1) },
    { keys: "Ctrl+Z", does: "Undo", run: CLICKS.undo },
    { keys: "Ctrl+Shift+Z Ctrl+Y", does: "Redo", run: CLICKS.redo },
    { keys: "Delete", does: "Clear the paper", run: CLICKS.clear },
    { keys: "p", does: "Search by a picture (or paste one, or drop it)", run: CLICKS.picture },
    { keys: "/", does: "Type words", run: () => fields.focusWords() },
    { keys: "r", does: "To the results; arrows lead through them, Enter makes one large", run: () => results.focus(0) },
    { keys: "m", does: "More like the result in focus", run: likeFocused },
    { keys: "l", does: "Copy a link to this query", run: share },
    { keys: "?", does: "This list", run: CLICKS.help },
  ],
  at("keys"),
  at("single-keys"),
);

function likeFocused() {
  if (results.focused && offersLike()) like(results.focused);
}

at("query").addEventListener("submit", (event) => {
  event.preventDefault();
  live.now();
});
at("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => {
  if (pictureIn(event.clipboardData.files)) take(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => event.preventDefault()); // or the browser leaves for the file
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
});
// A small screen is for the paper and the results; a wide one has room for everything.
const wide = matchMedia("(min-width: 47.51rem)");
const unfold = () => (at("more").open = wide.matches);
wide.addEventListener("change", unfold);
addEventListener("online", again);
addEventListener("hashchange", openLink);

unfold();
fillExamples(at("examples"), start);
edited();
connect();
openLink();
