// How a drawing looks: its strokes as the server draws them, or its picture, on a canvas of any size.

export const PIXELS = 256; // pen widths count pixels of a picture this wide, as the server draws it

export class Paper {
  #paths = new WeakMap(); // of strokes: they never change
  #due = null;

  constructor(canvas, draw) {
    this.canvas = canvas;
    this.draw = draw;
    new ResizeObserver(() => this.#fit()).observe(canvas);
  }

  // Draws before the next frame, however often it is asked to.
  soon() {
    this.#due ??= requestAnimationFrame(() => {
      this.#due = null;
      this.draw();
    });
  }

  clear() {
    const { width, height } = this.canvas;
    this.pen = this.canvas.getContext("2d");
    this.pen.setTransform(1, 0, 0, 1, 0, 0);
    this.pen.clearRect(0, 0, width, height);
    this.pen.setTransform(width, 0, 0, height, 0, 0); // from here on in shares of the paper
    this.pen.lineCap = this.pen.lineJoin = "round";
    this.pen.strokeStyle = getComputedStyle(this.canvas).color;
  }

  strokes(strokes, width) {
    this.pen.lineWidth = width / PIXELS;
    for (const stroke of strokes) this.pen.stroke(this.#path(stroke));
  }

  // Whole and in the middle, on white, as the server lays it.
  picture(image) {
    const scale = 1 / Math.max(image.width, image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    this.pen.imageSmoothingQuality = "high";
    this.pen.drawImage(image, (1 - width) / 2, (1 - height) / 2, width, height);
  }

  ring([x, y], radius) {
    this.pen.lineWidth = 1.5 / this.canvas.clientWidth;
    this.pen.beginPath();
    this.pen.ellipse(x, y, radius, radius, 0, 0, 2 * Math.PI);
    this.pen.stroke();
  }

  #path(stroke) {
    const known = this.#paths.get(stroke);
    if (known) return known;
    const path = new Path2D();
    path.moveTo(...stroke[0]);
    for (const point of stroke) path.lineTo(...point);
    this.#paths.set(stroke, path);
    return path;
  }

  #fit() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (side === this.canvas.width || side === 0) return;
    this.canvas.width = this.canvas.height = side;
    this.draw();
  }
}
