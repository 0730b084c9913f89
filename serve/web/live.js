// Searching while one draws and types: waits for a pause, keeps the newest answer, honours Retry-After.

const PAUSE_MS = 250;
const LONGEST_MS = 1200; // a hand that never rests gets hits all the same
const SLOW_MS = 2000;

export class LiveSearch {
  #sent = 0; // how many searches have started: an answer to any but the last is out of date
  #running = null;
  #next = null; // the timer of the next search
  #since = null; // when the first change was that no search has seen yet
  #notBefore = 0; // when the server wants to be asked again

  // `query()` is what to search by, or null for nothing; `view` has idle, busy, slow, found, failed.
  constructor(query, ask, view) {
    this.query = query;
    this.ask = ask;
    this.view = view;
  }

  // After a pause in the drawing and typing.
  soon() {
    const now = performance.now();
    this.#since ??= now;
    this.#schedule(Math.min(now + PAUSE_MS, this.#since + LONGEST_MS));
  }

  // As soon as the server wants to be asked.
  now() {
    this.#schedule(0);
  }

  // Now, whatever was said before.
  retry() {
    this.#notBefore = 0;
    this.now();
  }

  #schedule(at) {
    clearTimeout(this.#next);
    if (this.query() === null) return this.#idle();
    const wait = Math.max(at, this.#notBefore) - performance.now();
    if (wait > 0) this.#next = setTimeout(() => this.#search(), wait);
    else this.#search();
  }

  #idle() {
    this.#sent += 1;
    this.#since = null;
    this.#running?.abort();
    this.view.idle();
  }

  async #search() {
    const query = this.query();
    if (query === null) return this.#idle();
    this.#since = null;
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    const number = (this.#sent += 1);
    const slow = setTimeout(() => number === this.#sent && this.view.slow(), SLOW_MS);
    this.view.busy();
    try {
      const answer = await this.ask(query, running.signal);
      if (number === this.#sent) this.view.found(answer);
    } catch (error) {
      if (number === this.#sent) this.#failed(error);
    } finally {
      clearTimeout(slow);
    }
  }

  #failed(error) {
    this.view.failed(error);
    if (!error.retryAfter) return;
    this.#notBefore = performance.now() + error.retryAfter * 1000;
    this.now();
  }
}
