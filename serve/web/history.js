// What was on the paper before, and what was taken back. Whole drawings: they share their strokes.

const MOST = 300;

export class History {
  #before = [];
  #after = [];

  constructor(now) {
    this.now = now;
  }

  get canUndo() {
    return this.#before.length > 0;
  }

  get canRedo() {
    return this.#after.length > 0;
  }

  add(drawing) {
    this.#before.push(this.now);
    if (this.#before.length > MOST) this.#before.shift();
    this.#after = [];
    this.now = drawing;
  }

  undo() {
    if (!this.canUndo) return;
    this.#after.push(this.now);
    this.now = this.#before.pop();
  }

  redo() {
    if (!this.canRedo) return;
    this.#before.push(this.now);
    this.now = this.#after.pop();
  }
}
