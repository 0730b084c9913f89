// The controls around the canvas: tools, placeholder and the name of the query image.

const byId = (id) => document.getElementById(id);

export function showDrawing(pad) {
  const { strokes, image } = pad.drawing;
  byId("undo").disabled = !pad.history.canUndo;
  byId("redo").disabled = !pad.history.canRedo;
  byId("clear").disabled = pad.isEmpty;
  byId("placeholder").hidden = !pad.isEmpty;
  byId("query-image").hidden = image === null;
  byId("image-name").textContent = image ? (image.photoId ? `Similar to ${image.name}` : image.name) : "";
  byId("canvas").setAttribute("aria-label", `Drawing area: ${image ? `image ${image.name}` : countStrokes(strokes)}`);
}

export function showTool(tool) {
  byId("drawing-area").dataset.tool = tool;
  for (const name of ["pen", "erase"]) byId(name).setAttribute("aria-pressed", name === tool);
}

function countStrokes({ length }) {
  return length === 0 ? "empty" : `${length} ${length === 1 ? "stroke" : "strokes"}`;
}
