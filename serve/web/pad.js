// The drawing and the hand that makes it: mouse, pen or finger, drawing or erasing.
//
// A drawing is { strokes, picture }: strokes, or one picture instead of them.

import { History } from "./history.js";
import { Paper } from "./paper.js";
import { distance, erased, rounded, simplified } from "./strokes.js";

const BLANK = { strokes: [], picture: null };
const NEAR = 0.002; // points closer than this to the last one say nothing new
const STRAIGHT = 0.0007; // a fifth of a pixel of what the server draws
const ERASER = 0.03;
const [PRIMARY, PEN_ERASER] = [0, 5]; // PointerEvent.button

export class Pad {
  #history = new History(BLANK);
  #pointer = null;
  #stroke = null; // the stroke under way
  #rest = null; // while erasing: the strokes that are left
  #at = null; // where the pointer is, for the eraser's ring
  tool = "pen";
  width = 2;

  // `changed()` is called when there is something new, in the middle of a stroke too.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.paper = new Paper(canvas, () => this.#draw());
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
  }

  get drawing() {
    const { strokes, picture } = this.#history.now;
    if (this.#stroke) return { strokes: [...strokes, this.#stroke], picture: null };
    return { strokes: this.#rest ?? strokes, picture };
  }

  get empty() {
    const { strokes, picture } = this.drawing;
    return strokes.length === 0 && picture === null;
  }

  get canUndo() {
    return this.#history.canUndo;
  }

  get canRedo() {
    return this.#history.canRedo;
  }

  undo() {
    this.#history.undo();
    this.#update();
  }

  redo() {
    this.#history.redo();
    this.#update();
  }

  clear() {
    if (!this.empty) this.show(BLANK);
  }

  // Puts strokes or a picture on the paper, in place of what is there.
  show({ strokes = [], picture = null }) {
    this.#history.add({ strokes, picture });
    this.#update();
  }

  setWidth(width) {
    this.width = width;
    this.paper.soon();
  }

  setTool(tool) {
    this.tool = tool;
    this.paper.soon();
  }

  #begin(event) {
    if (this.#pointer !== null || ![PRIMARY, PEN_ERASER].includes(event.button)) return;
    event.preventDefault();
    this.#pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#place(event);
    if (this.tool === "erase" || event.button === PEN_ERASER) this.#erase(at, at);
    else this.#stroke = [at];
    this.#point(at);
  }

  #move(event) {
    const at = this.#place(event);
    if (event.pointerId === this.#pointer) {
      const steps = event.getCoalescedEvents?.() ?? [];
      for (const step of steps.length ? steps : [event]) this.#go(this.#place(step));
      this.changed();
    }
    this.#point(at);
  }

  #go(at) {
    if (this.#rest) this.#erase(this.#at, at);
    else if (distance(at, this.#stroke.at(-1)) >= NEAR) this.#stroke = [...this.#stroke, at];
    this.#at = at;
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    const { strokes } = this.#history.now;
    const [rest, stroke] = [this.#rest, this.#stroke];
    this.#pointer = this.#rest = this.#stroke = null;
    if (stroke) this.#history.add({ strokes: [...strokes, simplified(stroke, STRAIGHT)], picture: null });
    else if (rest !== strokes) this.#history.add({ strokes: rest, picture: null });
    if (event.pointerType === "touch") this.#at = null;
    this.#update();
  }

  // In steps smaller than the eraser, so that a quick hand leaves no islands.
  #erase(from, to) {
    this.#rest ??= this.#history.now.strokes;
    const steps = Math.ceil(distance(from, to) / (ERASER / 2)) || 1;
    for (let i = 1; i <= steps; i++) {
      const [x, y] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * i) / steps);
      this.#rest = erased(this.#rest, [x, y], ERASER);
    }
  }

  #point(at) {
    this.#at = at;
    this.paper.soon();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return rounded([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  }

  #update() {
    this.paper.soon();
    this.changed();
  }

  #draw() {
    const { strokes, picture } = this.drawing;
    this.paper.clear();
    if (picture) this.paper.picture(picture.image);
    this.paper.strokes(strokes, this.width);
    if (this.#at && (this.#rest || this.tool === "erase")) this.paper.ring(this.#at, ERASER);
  }
}
