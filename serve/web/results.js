// The hits as a grid, and one of them large.

export class Results {
  constructor(list, large) {
    this.list = list;
    this.large = large;
    this.hits = [];
    this.current = 0;
    const button = (name) => large.querySelector(`#${name}`);
    button("previous").addEventListener("click", () => this.#step(-1));
    button("next").addEventListener("click", () => this.#step(1));
    button("close").addEventListener("click", () => large.close());
    large.addEventListener("click", (event) => event.target === large && large.close());
    large.addEventListener("keydown", (event) => this.#key(event));
  }

  show(hits) {
    this.hits = hits;
    this.list.replaceChildren(...hits.map((hit, place) => this.#item(hit, place)));
  }

  #item(hit, place) {
    const button = element("button", "hit");
    button.type = "button";
    button.setAttribute("aria-label", `${place + 1}: ${hit.photo_id}, ${hit.category}, score ${score(hit)}`);
    button.append(frame(hit), caption(hit));
    button.addEventListener("click", () => this.#open(place));
    const item = element("li");
    item.append(button);
    return item;
  }

  #open(place) {
    this.current = place;
    const hit = this.hits[place];
    const part = (name) => this.large.querySelector(`#large-${name}`);
    part("picture").src = hit.uri;
    part("picture").alt = `Photo ${hit.photo_id}`;
    part("title").textContent = hit.photo_id;
    part("details").textContent = `· ${hit.category} · score ${score(hit)} · ${place + 1} of ${this.hits.length}`;
    this.large.querySelector("#previous").disabled = place === 0;
    this.large.querySelector("#next").disabled = place === this.hits.length - 1;
    if (!this.large.open) this.large.showModal();
  }

  #step(by) {
    const place = this.current + by;
    if (place >= 0 && place < this.hits.length) this.#open(place);
  }

  #key(event) {
    if (event.key === "ArrowLeft") this.#step(-1);
    if (event.key === "ArrowRight") this.#step(1);
  }
}

function frame(hit) {
  const box = element("span", "frame");
  const picture = element("img");
  picture.loading = "lazy";
  picture.alt = "";
  picture.src = hit.uri;
  picture.addEventListener("error", () => box.replaceChildren("no thumbnail"));
  box.append(picture);
  return box;
}

function caption(hit) {
  const line = element("span", "caption");
  const name = element("span", "name");
  name.textContent = hit.photo_id;
  const value = element("span", "score");
  value.textContent = score(hit);
  line.append(name, value);
  return line;
}

function score(hit) {
  return hit.score.toFixed(3);
}

function element(tag, name = "") {
  const made = document.createElement(tag);
  made.className = name;
  return made;
}
