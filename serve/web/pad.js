// The drawing: strokes of [x, y] in shares of the paper, so that size and screen do not matter.

const PAPER = 256; // pen width counts pixels of a picture this wide, as the server draws it
const NEAR = 0.004; // points closer than this to the last one say nothing new

export class Pad {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.width = 2;
    this.pointer = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    new ResizeObserver(() => this.#fit()).observe(canvas);
  }

  get empty() {
    return this.strokes.length === 0;
  }

  undo() {
    this.strokes.pop();
    this.#update();
  }

  clear() {
    this.strokes = [];
    this.#update();
  }

  setWidth(width) {
    this.width = width;
    this.#update();
  }

  #begin(event) {
    if (this.pointer !== null || event.button > 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.#place(event)]);
    this.#draw();
    event.preventDefault();
  }

  #go(event) {
    if (event.pointerId !== this.pointer) return;
    const stroke = this.strokes.at(-1);
    for (const step of event.getCoalescedEvents?.() ?? [event]) {
      const [x, y] = this.#place(step);
      const [u, v] = stroke.at(-1);
      if (Math.hypot(x - u, y - v) >= NEAR) stroke.push([x, y]);
    }
    this.#draw();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.#update();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = (at, from, length) => Math.min(1, Math.max(0, Math.round(((at - from) / length) * 1e4) / 1e4));
    return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
  }

  #update() {
    this.#draw();
    this.changed();
  }

  #fit() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (side === this.canvas.width) return;
    this.canvas.width = this.canvas.height = side;
    this.#draw();
  }

  #draw() {
    const side = this.canvas.width;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.lineWidth = (this.width * side) / PAPER;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) {
      pen.beginPath();
      pen.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      for (const [x, y] of stroke) pen.lineTo(x * side, y * side);
      pen.stroke();
    }
  }
}
