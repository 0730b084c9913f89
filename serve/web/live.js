// Searching while one draws and types: waits for a pause, drops what is out of date, says when it is slow.

const PAUSE_MS = 250;
const SLOW_MS = 2500;

export class LiveSearch {
  // `query()` gives the body of a search, or null for none; `view` has idle, busy, slow, found, failed.
  constructor(query, ask, view) {
    this.query = query;
    this.ask = ask;
    this.view = view;
    this.running = null; // the request under way
    this.next = null; // the timer of the next one
  }

  soon() {
    this.#stop();
    if (this.query() === null) this.view.idle();
    else this.next = setTimeout(() => this.now(), PAUSE_MS);
  }

  async now() {
    this.#stop();
    const body = this.query();
    if (body === null) return this.view.idle();
    const running = (this.running = new AbortController());
    const slow = setTimeout(() => this.view.slow(), SLOW_MS);
    running.signal.addEventListener("abort", () => clearTimeout(slow));
    this.view.busy();
    try {
      this.view.found(await this.ask(body, running.signal));
    } catch (error) {
      if (!running.signal.aborted) this.#failed(error);
    } finally {
      clearTimeout(slow);
    }
  }

  #failed(error) {
    this.view.failed(error);
    if (error.retryAfter) this.next = setTimeout(() => this.now(), error.retryAfter * 1000);
  }

  #stop() {
    this.running?.abort();
    clearTimeout(this.next);
  }
}
