// Draws strokes or an image on a <canvas> of any size, as the server renders them.

const SERVER_PIXELS = 256; // width of the server's rendering, in whose pixels the pen width is given

export class Canvas {
  #paths = new WeakMap(); // Path2D by stroke; strokes are immutable
  #frame = null; // pending animation frame

  constructor(element, draw) {
    this.element = element;
    this.draw = draw;
    new ResizeObserver(() => this.#resize()).observe(element);
  }

  // Draws before the next frame, at most once.
  requestDraw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.draw();
    });
  }

  clear() {
    const { width, height } = this.element;
    this.context = this.element.getContext("2d");
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, width, height);
    this.context.setTransform(width, 0, 0, height, 0, 0); // coordinates from 0 to 1
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.strokeStyle = getComputedStyle(this.element).color;
  }

  drawStrokes(strokes, width) {
    this.context.lineWidth = width / SERVER_PIXELS;
    for (const stroke of strokes) this.context.stroke(this.#path(stroke));
  }

  // Scaled to fit and centred on white, as the server pads it.
  drawImage(image) {
    const scale = 1 / Math.max(image.width, image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(image, (1 - width) / 2, (1 - height) / 2, width, height);
  }

  // Contributions by cell, rows from the top: --raised above 0, --lowered below, the strongest opaque.
  drawHeat(cells) {
    const style = getComputedStyle(this.element);
    const map = new OffscreenCanvas(cells[0].length, cells.length);
    const context = map.getContext("2d");
    const max = Math.max(...cells.flat().map(Math.abs)) || 1;
    for (const [y, row] of cells.entries()) {
      for (const [x, value] of row.entries()) {
        context.globalAlpha = Math.abs(value) / max;
        context.fillStyle = style.getPropertyValue(value < 0 ? "--lowered" : "--raised");
        context.fillRect(x, y, 1, 1);
      }
    }
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(map, 0, 0, 1, 1);
  }

  drawCircle([x, y], radius) {
    this.context.lineWidth = 1.5 / this.element.clientWidth;
    this.context.beginPath();
    this.context.ellipse(x, y, radius, radius, 0, 0, 2 * Math.PI);
    this.context.stroke();
  }

  #path(stroke) {
    const cached = this.#paths.get(stroke);
    if (cached) return cached;
    const path = new Path2D();
    path.moveTo(...stroke[0]);
    for (const point of stroke) path.lineTo(...point);
    this.#paths.set(stroke, path);
    return path;
  }

  #resize() {
    const side = Math.round(this.element.clientWidth * devicePixelRatio);
    if (side === this.element.width || side === 0) return;
    this.element.width = this.element.height = side;
    this.draw();
  }
}
