// Entry point: connects the controls of the page.

import { galleries, info, photo, search } from "./api.js";
import { AutoSearch } from "./auto_search.js";
import { Backoff } from "./backoff.js";
import { showDrawing, showTool } from "./drawing_controls.js";
import { Explanation } from "./explanation.js";
import { Fields } from "./fields.js";
import { GalleryChoice } from "./gallery.js";
import { KeyDialog, readKey } from "./key.js";
import { Lightbox } from "./lightbox.js";
import { Marks } from "./marks.js";
import { formatMatch, isUnlikely } from "./match.js";
import { Pad } from "./pad.js";
import { Paging } from "./paging.js";
import { acceptImages, firstImage, galleryImage, readImage } from "./query_image.js";
import { Results } from "./results.js";
import { SessionLink } from "./session_link.js";
import { Shortcuts } from "./shortcuts.js";
import { Status } from "./status.js";
import { photoUri } from "./thumbnail.js";
import { showToast } from "./toast.js";
import { fillExamples } from "./welcome.js";

const WELCOME = "Draw what you are looking for, describe it, or both. Or start with an example:";

const byId = (id) => document.getElementById(id);
const pad = new Pad(byId("canvas"), update);
const fields = new Fields(byId("query"), update);
const status = new Status(byId("results"));
const marks = new Marks(byId("marks"), update);
const onMark = ({ photo_id: photoId }, isLiked) => marks.add(photoId, isLiked);
const explanation = new Explanation(byId("explanation"));
const onExplain = (hit) => readQuery() && explanation.open(readQuery(), hit);
const onOpen = (index) => lightbox.open(results.hits, index);
const results = new Results(byId("hits"), { onOpen, onHold: onExplain, onMark });
const onClose = (index) => results.focus(index);
const lightbox = new Lightbox(byId("lightbox"), { onSimilar: searchSimilar, onExplain, onMark, onClose });
const paging = new Paging(byId("more"), byId("end"), () => autoSearch.searchNow());
const galleryChoice = new GalleryChoice(byId("gallery-choice"));
const keyDialog = new KeyDialog(byId("key"), reconnect);
const sessionLink = new SessionLink(readQuery, openQuery);
let serverInfo = null; // the last response of /v1/info
const reconnectBackoff = new Backoff();
let reconnectTimer = null;

const view = {
  idle() {
    results.show([]);
    paging.update(0);
    if (serverInfo?.gallery === null) status.show("No gallery is published yet, so there is nothing to search.", "error");
    else status.show(WELCOME, "welcome");
  },
  loading: () => status.showLoading(),
  slow: () => status.showSlow(),
  results({ hits, gallery_version: version, timing_ms: time }) {
    results.show(hits);
    paging.update(hits.length);
    if (isUnlikely(hits)) status.show(`Nothing similar here: best match ${formatMatch(hits[0].match)}`, "unlikely");
    else if (hits.length) status.show(`${hits.length} ${hits.length === 1 ? "result" : "results"} in ${Math.round(time.total)} ms`);
    else status.show("No matching photos. Try other text, any category, or fewer filters.", "empty");
    if (serverInfo?.gallery?.version !== version) connect(); // another version was published
  },
  // `seconds` until the automatic retry, or null for none.
  error(error, seconds) {
    if (error.status === 401) return requestKey(error);
    const button = error.status === 429 && seconds !== null ? "" : "retry"; // an earlier retry would get 429 too
    status.showError(error.message, { seconds, button });
  },
};
const autoSearch = new AutoSearch(readQuery, search, view);

function readQuery() {
  const query = { ...fields.read(), ...marks.read(), k: paging.k, drawing: pad.drawing };
  return pad.isEmpty && !query.text && !query.like.length ? null : query;
}

function update() {
  pad.setWidth(fields.read().width);
  showDrawing(pad);
  fields.enableWeight(!pad.isEmpty && fields.read().text !== "");
  fields.showChips();
  paging.reset();
  sessionLink.writeSoon();
  autoSearch.searchSoon();
}

function selectTool(tool) {
  pad.setTool(tool);
  showTool(tool);
}

function changeWidth(difference) {
  fields.changeWidth(difference);
  update();
}

async function loadImage(files) {
  const file = firstImage(files);
  if (!file) return showToast("This is not an image. Use a PNG, JPEG or WebP file.");
  try {
    pad.replace({ image: await readImage(file, serverInfo?.limits) });
  } catch (error) {
    showToast(error.message);
  }
}

// Servers of older releases do not search by a gallery photo.
function supportsSimilar() {
  return serverInfo?.queries?.includes("photo_id") ?? false;
}

async function searchSimilar({ photo_id: photoId }) {
  const source = await photo(photoUri(photoId)).catch(() => ""); // the search needs no thumbnail
  scrollTo({ top: 0 });
  pad.replace({ image: await galleryImage(photoId, source) });
}

function loadExample({ photoId, strokes, text }) {
  if (strokes) pad.replace({ strokes });
  if (text) fields.write({ text });
  if (!strokes && !text) searchSimilar({ photo_id: photoId });
  update();
  scrollTo({ top: 0 });
  byId("results").focus({ preventScroll: true }); // the focused example is hidden now
}

// The query of a link.
async function openQuery(query) {
  fields.write(query);
  marks.write(query);
  if (query.photoId) await searchSimilar({ photo_id: query.photoId });
  else pad.replace(query);
}

async function connect() {
  clearTimeout(reconnectTimer);
  try {
    galleryChoice.show(await galleries());
    showInfo(await info());
    reconnectBackoff.reset();
    if (readQuery() === null) view.idle();
  } catch (error) {
    byId("count").textContent = "not connected";
    byId("gallery-name").textContent = "";
    const seconds = reconnectBackoff.next(error.retryAfter);
    // If there is a query, its search shows the error.
    if (readQuery() === null || error.status === 401) view.error(error, seconds);
    if (seconds !== null) reconnectTimer = setTimeout(connect, seconds * 1000);
  }
  byId("change-key").hidden = readKey() === null;
}

function showInfo(response) {
  serverInfo = response;
  fields.setInfo(serverInfo);
  paging.setLimit(serverInfo.limits.k, serverInfo.gallery?.count ?? 0);
  lightbox.enableSimilar(supportsSimilar());
  shortcuts.setVisible("m", supportsSimilar());
  const { gallery } = serverInfo;
  const count = gallery?.count.toLocaleString("en");
  byId("count").textContent = gallery ? `${count} ${gallery.count === 1 ? "photo" : "photos"}` : "no gallery yet";
  byId("gallery-name").textContent = gallery?.name ?? "";
  fillExamples(byId("examples"), gallery?.examples ?? [], loadExample);
}

function requestKey(error) {
  status.showError(error.message, { button: "enter-key" });
  keyDialog.open({ isRejected: readKey() !== null });
}

function reconnect() {
  reconnectBackoff.reset();
  connect();
  autoSearch.retry();
}

const CLICKS = {
  pen: () => selectTool("pen"),
  erase: () => selectTool("erase"),
  undo: () => pad.undo(),
  redo: () => pad.redo(),
  clear: () => pad.clear(),
  image: () => byId("file").click(),
  "remove-image": () => pad.removeImage(),
  "open-filters": () => byId("filters").showModal(),
  "close-filters": () => byId("filters").close(),
  share: () => sessionLink.copy(),
  help: () => byId("shortcuts").showModal(),
  "change-key": () => keyDialog.open(),
  "enter-key": () => keyDialog.open(),
  retry: reconnect,
};
for (const [id, action] of Object.entries(CLICKS)) byId(id).addEventListener("click", action);

const shortcuts = new Shortcuts(
  [
    { keys: "b", label: "Pen", action: CLICKS.pen },
    { keys: "e", label: "Eraser", action: CLICKS.erase },
    { keys: "[", label: "Thinner pen", action: () => changeWidth(-1) },
    { keys: "]", label: "Thicker pen", action: () => changeWidth(1) },
    { keys: "Ctrl+Z", label: "Undo", action: CLICKS.undo },
    { keys: "Ctrl+Shift+Z Ctrl+Y", label: "Redo", action: CLICKS.redo },
    { keys: "Delete", label: "Clear the drawing", action: CLICKS.clear },
    { keys: "p", label: "Search by an image (or paste or drop one)", action: CLICKS.image },
    { keys: "f", label: "Filters", action: CLICKS["open-filters"] },
    { keys: "/", label: "Edit the text", action: () => fields.focusText() },
    { keys: "w", label: "Without: what results should not show", action: () => byId("without").focus() },
    { keys: "r", label: "Focus the results; arrow keys move, Enter enlarges", action: () => results.focus(0) },
    { keys: "+", label: "More like the focused result", action: () => markFocused(true) },
    { keys: "-", label: "Less like the focused result", action: () => markFocused(false) },
    { keys: "m", label: "Use the focused result as query", action: searchSimilarToFocused },
    { keys: "x", label: "Explain the focused result (or hold it)", action: () => results.focused && onExplain(results.focused) },
    { keys: "l", label: "Copy a link to this query", action: CLICKS.share },
    { keys: "?", label: "Show this help", action: CLICKS.help },
  ],
  byId("shortcut-list"),
  byId("single-keys"),
);

function markFocused(isLiked) {
  if (results.focused) onMark(results.focused, isLiked);
}

function searchSimilarToFocused() {
  if (results.focused && supportsSimilar()) searchSimilar(results.focused);
}

byId("query").addEventListener("submit", (event) => {
  event.preventDefault();
  autoSearch.searchNow();
});
byId("file").addEventListener("change", (event) => {
  loadImage(event.target.files);
  event.target.value = ""; // so that the same file can be selected again
});
acceptImages(loadImage);
byId("filters").addEventListener("click", (event) => event.target === byId("filters") && byId("filters").close());
addEventListener("online", reconnect);

update();
connect();
sessionLink.open();
