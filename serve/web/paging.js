// The number of results to ask for: one page, and one more each time that the end of the list comes into view.

const PAGE = 24; // fills a large screen

export class Paging {
  #limit = PAGE; // of the server, or the number of photos if that is less
  #isServerLimit = false;
  k = PAGE;

  // `onMore()` is called after `k` has grown.
  constructor(button, note, onMore) {
    this.button = button;
    this.note = note;
    this.onMore = onMore;
    this.observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.#more());
    button.addEventListener("click", () => this.#more());
  }

  // `limit`: results of a search at most. `count`: photos of the gallery.
  setLimit(limit, count) {
    this.#isServerLimit = limit < count;
    this.#limit = Math.max(1, Math.min(limit, count));
    this.k = Math.min(this.k, this.#limit);
  }

  // Back to one page.
  reset() {
    this.k = Math.min(PAGE, this.#limit);
  }

  // After a response with `count` hits.
  update(count) {
    const isFull = count > 0 && count === this.k;
    this.button.hidden = !isFull || this.k === this.#limit;
    this.note.hidden = !isFull || this.k < this.#limit || !this.#isServerLimit;
    this.note.textContent = `These are the best ${count}. Add text or filters to see others.`;
    this.observer.disconnect();
    if (!this.button.hidden) this.observer.observe(this.button); // reports at once if it is still in view
  }

  #more() {
    this.observer.disconnect();
    this.k = Math.min(this.k + PAGE, this.#limit);
    this.onMore();
  }
}
