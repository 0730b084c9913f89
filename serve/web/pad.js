// The sketch pad: turns mouse, pen and touch input into a drawing.
//
// A drawing is { strokes, image }: strokes, or a query image in their place.

import { Canvas } from "./canvas.js";
import { History } from "./history.js";
import { distance, eraseDisc, roundPoint, simplify } from "./strokes.js";

const EMPTY = { strokes: [], image: null };
const MIN_STEP = 0.002; // shorter moves add no point
const TOLERANCE = 0.0007; // of a simplified stroke: a fifth of a pixel of the server's rendering
const ERASER_RADIUS = 0.03;
const [PRIMARY, PEN_ERASER] = [0, 5]; // PointerEvent.button

export class Pad {
  #pointer = null; // id of the pointer that draws
  #stroke = null; // stroke in progress
  #remaining = null; // strokes that remain while erasing
  #position = null; // of the pointer, for the eraser's circle
  history = new History(EMPTY);
  tool = "pen";
  width = 2;

  // `onChange()` is called at every change of the drawing, during a stroke too.
  constructor(element, onChange) {
    this.element = element;
    this.onChange = onChange;
    this.canvas = new Canvas(element, () => this.#draw());
    element.addEventListener("pointerdown", (event) => this.#start(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerleave", () => this.#setPosition(null));
    for (const type of ["pointerup", "pointercancel"]) element.addEventListener(type, (event) => this.#end(event));
  }

  get drawing() {
    const { strokes, image } = this.history.current;
    if (this.#stroke) return { strokes: [...strokes, this.#stroke], image: null };
    return { strokes: this.#remaining ?? strokes, image };
  }

  get isEmpty() {
    const { strokes, image } = this.drawing;
    return strokes.length === 0 && image === null;
  }

  undo() {
    this.history.undo();
    this.#update();
  }

  redo() {
    this.history.redo();
    this.#update();
  }

  clear() {
    if (!this.isEmpty) this.replace(EMPTY);
  }

  // Replaces the drawing by strokes or an image.
  replace({ strokes = [], image = null }) {
    this.history.add({ strokes, image });
    this.#update();
  }

  // Back to the drawing before the image, also after a chain of images.
  removeImage() {
    this.replace(this.history.findLast(({ image }) => image === null) ?? EMPTY);
  }

  setWidth(width) {
    this.width = width;
    this.canvas.requestDraw();
  }

  setTool(tool) {
    this.tool = tool;
    this.canvas.requestDraw();
  }

  #start(event) {
    if (this.#pointer !== null || ![PRIMARY, PEN_ERASER].includes(event.button)) return;
    event.preventDefault();
    this.#pointer = event.pointerId;
    this.element.setPointerCapture(event.pointerId);
    const point = this.#toPoint(event);
    if (this.tool === "erase" || event.button === PEN_ERASER) this.#erase(point, point);
    else this.#stroke = [point];
    this.#setPosition(point);
  }

  #move(event) {
    const point = this.#toPoint(event);
    if (event.pointerId === this.#pointer) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.#extend(this.#toPoint(each));
      this.onChange();
    }
    this.#setPosition(point);
  }

  #extend(point) {
    if (this.#remaining) this.#erase(this.#position, point);
    else if (distance(point, this.#stroke.at(-1)) >= MIN_STEP) this.#stroke = [...this.#stroke, point];
    this.#position = point;
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    const { strokes } = this.history.current;
    const [remaining, stroke] = [this.#remaining, this.#stroke];
    this.#pointer = this.#remaining = this.#stroke = null;
    if (stroke) this.history.add({ strokes: [...strokes, simplify(stroke, TOLERANCE)], image: null });
    else if (remaining !== strokes) this.history.add({ strokes: remaining, image: null });
    if (event.pointerType === "touch") this.#position = null;
    this.#update();
  }

  // Erases in steps of half a radius, so that fast moves leave no gaps.
  #erase(from, to) {
    this.#remaining ??= this.history.current.strokes;
    const steps = Math.ceil(distance(from, to) / (ERASER_RADIUS / 2)) || 1;
    for (let i = 1; i <= steps; i++) {
      const [x, y] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * i) / steps);
      this.#remaining = eraseDisc(this.#remaining, [x, y], ERASER_RADIUS);
    }
  }

  #setPosition(point) {
    this.#position = point;
    this.canvas.requestDraw();
  }

  #toPoint(event) {
    const box = this.element.getBoundingClientRect();
    return roundPoint([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  }

  #update() {
    this.canvas.requestDraw();
    this.onChange();
  }

  #draw() {
    const { strokes, image } = this.drawing;
    this.canvas.clear();
    if (image) this.canvas.drawImage(image.bitmap);
    this.canvas.drawStrokes(strokes, this.width);
    const isErasing = this.#remaining || this.tool === "erase";
    if (this.#position && isErasing) this.canvas.drawCircle(this.#position, ERASER_RADIUS);
  }
}
