// The status line above the results, a live region for screen readers.

const LOADING_DELAY_MS = 150; // faster responses show no progress bar

export class Status {
  #countdownTimer = null;
  #loadingTimer = null;

  constructor(section) {
    this.section = section;
  }

  show(message, state = "") {
    this.#reset();
    this.#part("message").textContent = message;
    this.section.dataset.state = state;
  }

  // The current hits stay until the response arrives.
  showLoading() {
    clearTimeout(this.#loadingTimer);
    this.#loadingTimer = setTimeout(() => this.section.setAttribute("aria-busy", "true"), LOADING_DELAY_MS);
  }

  showSlow() {
    this.#part("message").textContent = "Still searching …";
  }

  // `seconds` until an automatic retry, or null for none. `button`: id of the button to show.
  showError(message, { seconds = null, button = "" } = {}) {
    this.show(message, seconds === null ? "error" : "retrying");
    if (button) this.#part(button).hidden = false;
    if (seconds !== null) this.#countDown(Math.ceil(seconds));
  }

  // Not in the live region, or a screen reader would read out each second.
  #countDown(seconds) {
    this.#part("countdown").textContent = `Retrying in ${seconds} s`;
    if (seconds > 1) this.#countdownTimer = setTimeout(() => this.#countDown(seconds - 1), 1000);
  }

  #reset() {
    clearTimeout(this.#loadingTimer);
    clearTimeout(this.#countdownTimer);
    this.section.setAttribute("aria-busy", "false");
    this.#part("countdown").textContent = "";
    for (const button of ["retry", "enter-key"]) this.#part(button).hidden = true;
  }

  #part(name) {
    return this.section.querySelector(`#${name}`);
  }
}
