// The gallery that the page searches: `?gallery=NAME` in its address, else the default one.

const DEFAULT = "default";
const NAME = new URLSearchParams(location.search).get("gallery") || DEFAULT;

// The path of the routes of the gallery.
export const ROOT = NAME === DEFAULT ? "/v1" : `/v1/galleries/${encodeURIComponent(NAME)}`;

// A list of the galleries that the user may open, shown if there is a choice.
export class GalleryChoice {
  constructor(select) {
    this.select = select;
    select.addEventListener("change", () => this.#open(select.value));
  }

  // `galleries`: [{ name, … }], the response of /v1/galleries.
  show(galleries) {
    const names = galleries.map((gallery) => gallery.name);
    this.select.hidden = names.every((name) => name === NAME);
    if (!names.includes(NAME)) names.unshift(NAME); // refused: the others are there to choose
    this.select.replaceChildren(...names.map((name) => new Option(name, name, false, name === NAME)));
  }

  // Without the query: its marks and filters are those of another gallery.
  #open(name) {
    location.assign(name === DEFAULT ? location.pathname : `${location.pathname}?gallery=${encodeURIComponent(name)}`);
  }
}
