// Undo history: entire drawings, which share their strokes.

const MAX_STATES = 300;

export class History {
  #past = [];
  #future = [];

  constructor(current) {
    this.current = current;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  add(drawing) {
    this.#past.push(this.current);
    if (this.#past.length > MAX_STATES) this.#past.shift();
    this.#future = [];
    this.current = drawing;
  }

  // The newest earlier drawing that fulfils a condition, or undefined.
  findLast(isMatch) {
    return this.#past.findLast(isMatch);
  }

  undo() {
    if (!this.canUndo) return;
    this.#future.push(this.current);
    this.current = this.#past.pop();
  }

  redo() {
    if (!this.canRedo) return;
    this.#past.push(this.current);
    this.current = this.#future.pop();
  }
}
