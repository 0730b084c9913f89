// What is going on, in a line above the hits: read out when it changes, in the same place whatever it says.

const PENDING_MS = 150; // quicker answers need no sign that they are awaited

export class Status {
  #countdown = null;
  #pending = null;

  constructor(section) {
    this.section = section;
  }

  say(message, look = "") {
    this.#settle();
    this.#part("message").textContent = message;
    this.section.dataset.look = look;
  }

  // Over the hits that are there, which stay until others come.
  busy() {
    clearTimeout(this.#pending);
    this.#pending = setTimeout(() => this.section.setAttribute("aria-busy", "true"), PENDING_MS);
  }

  slow() {
    this.#part("message").textContent = "Still searching …";
  }

  // `seconds` until it is tried again; null where that is up to the person, who gets a button.
  failed(message, { seconds = null, button = "" } = {}) {
    this.say(message, seconds === null ? "bad" : "wait");
    if (button) this.#offer(button);
    if (seconds !== null) this.#count(Math.ceil(seconds));
  }

  #offer(button) {
    this.#part(button).hidden = false;
  }

  // Beside the message, not in it: a screen reader would read every second out.
  #count(seconds) {
    this.#part("countdown").textContent = `Searching again in ${seconds} s`;
    if (seconds > 1) this.#countdown = setTimeout(() => this.#count(seconds - 1), 1000);
  }

  #settle() {
    clearTimeout(this.#pending);
    clearTimeout(this.#countdown);
    this.section.setAttribute("aria-busy", "false");
    this.#part("countdown").textContent = "";
    for (const button of ["retry", "enter-key"]) this.#part(button).hidden = true;
  }

  #part(name) {
    return this.section.querySelector(`#${name}`);
  }
}
