// The session as a link: the address follows the query, so that a reload or a shared link shows the same.

import { fromFragment, toFragment } from "./share.js";
import { showToast } from "./toast.js";

const DEBOUNCE_MS = 400; // browsers limit how often a page changes its address

export class SessionLink {
  #isOpening = false;
  #latest = 0; // number of the newest write; older ones are dropped
  #timer = null;

  // `readQuery()` returns the query, or null if it is empty. `onOpen(query)` shows the query of a link.
  constructor(readQuery, onOpen) {
    this.readQuery = readQuery;
    this.onOpen = onOpen;
    addEventListener("hashchange", () => this.open());
  }

  // After a pause in the input. The address has no query if a link cannot hold it.
  writeSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write().catch(() => this.#replaceAddress("")), DEBOUNCE_MS);
  }

  async copy() {
    try {
      await this.#write();
      await navigator.clipboard.writeText(location.href);
      showToast("Link copied.");
    } catch (error) {
      // Browsers allow the clipboard only over TLS or on localhost.
      const hasNoClipboard = error instanceof DOMException || error instanceof TypeError;
      showToast(hasNoClipboard ? "Copy the link from the address bar." : error.message);
    }
  }

  // Shows the query of the address, if it has one.
  async open() {
    this.#isOpening = true;
    try {
      const query = await fromFragment(location.hash);
      if (query) await this.onOpen(query);
    } catch (error) {
      showToast(error.message);
    } finally {
      this.#isOpening = false;
    }
  }

  // Not while a link opens: only a part of its query is on the page then.
  async #write() {
    if (this.#isOpening) return this.writeSoon();
    const number = (this.#latest += 1);
    const query = this.readQuery();
    const fragment = query ? await toFragment(query) : "";
    if (number === this.#latest) this.#replaceAddress(fragment);
  }

  #replaceAddress(fragment) {
    history.replaceState(null, "", fragment || location.pathname + location.search);
  }
}
