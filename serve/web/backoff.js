// Delays of automatic retries: Retry-After plus a growing random part, so that pages do not return all at once.

const BASE_S = 0.5;
const MAX_S = 60;
const MAX_RETRIES = 8; // in a row; then the user decides

export class Backoff {
  #retries = 0;

  // Seconds until the next retry; null if a retry cannot help (`retryAfter` null), or after MAX_RETRIES.
  next(retryAfter) {
    if (retryAfter === null || this.#retries >= MAX_RETRIES) return null;
    const growing = Math.min(MAX_S, BASE_S * 2 ** this.#retries);
    this.#retries += 1;
    return retryAfter + (growing * (1 + Math.random())) / 2;
  }

  reset() {
    this.#retries = 0;
  }
}
