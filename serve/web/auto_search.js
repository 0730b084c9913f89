// Search while the user draws and types: debounced, newest response only, with retries after Retry-After.

import { Backoff } from "./backoff.js";

const DEBOUNCE_MS = 250;
const MAX_DELAY_MS = 1200; // also searches while the pen never pauses
const SLOW_MS = 2000;

export class AutoSearch {
  #latest = 0; // number of the newest search; responses to older ones are dropped
  #request = null; // AbortController of the running search
  #timer = null; // of the next search
  #changedAt = null; // time of the first change since the last search
  #notBefore = 0; // earliest time that the server allows
  #backoff = new Backoff();

  // `readQuery()` returns the query, or null if it is empty. `view` has idle, loading, slow, results and error.
  constructor(readQuery, search, view) {
    this.readQuery = readQuery;
    this.search = search;
    this.view = view;
  }

  // After a pause in the input.
  searchSoon() {
    const now = performance.now();
    this.#changedAt ??= now;
    this.#schedule(Math.min(now + DEBOUNCE_MS, this.#changedAt + MAX_DELAY_MS));
  }

  // As soon as Retry-After allows.
  searchNow() {
    this.#schedule(0);
  }

  // Immediately, in spite of Retry-After.
  retry() {
    this.#notBefore = 0;
    this.#backoff.reset();
    this.searchNow();
  }

  #schedule(time) {
    clearTimeout(this.#timer);
    if (this.readQuery() === null) return this.#cancel();
    const delay = Math.max(time, this.#notBefore) - performance.now();
    if (delay > 0) this.#timer = setTimeout(() => this.#run(), delay);
    else this.#run();
  }

  #cancel() {
    this.#latest += 1;
    this.#changedAt = null;
    this.#request?.abort();
    this.view.idle();
  }

  async #run() {
    const query = this.readQuery();
    if (query === null) return this.#cancel();
    this.#changedAt = null;
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    const number = (this.#latest += 1);
    const slow = setTimeout(() => number === this.#latest && this.view.slow(), SLOW_MS);
    this.view.loading();
    try {
      const response = await this.search(query, request.signal);
      this.#backoff.reset();
      if (number === this.#latest) this.view.results(response);
    } catch (error) {
      if (number === this.#latest) this.#handleError(error);
    } finally {
      clearTimeout(slow);
    }
  }

  #handleError(error) {
    const seconds = this.#backoff.next(error.retryAfter);
    this.#notBefore = performance.now() + (seconds ?? error.retryAfter ?? 0) * 1000;
    this.view.error(error, seconds);
    if (seconds !== null) this.searchNow();
  }
}
