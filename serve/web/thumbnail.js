// Thumbnails of gallery photos.

import { photo } from "./api.js";
import { element } from "./element.js";
import { ROOT } from "./gallery.js";

const MAX_ATTEMPTS = 4;

export function photoUri(photoId) {
  return `${ROOT}/photos/${encodeURIComponent(photoId)}`;
}

// An <img> that stays empty if the photo cannot be loaded.
export function createThumbnail(photoId) {
  const image = element("img", { alt: "", className: "loaded", loading: "lazy" });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src)); // a blob URL if it was fetched with a key
  photo(photoUri(photoId)).then((source) => (image.src = source), () => image.remove());
  return image;
}

// Loads a photo into an <img>, with retries while the server is full. `onMissing()` is called on failure.
export async function loadPhoto(image, uri, onMissing) {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    try {
      image.src = await photo(uri, attempt > 0); // an <img> does not report why it failed
      await image.decode();
      image.classList.add("loaded");
      return;
    } catch (error) {
      if (attempt > 0 && !error.retryAfter) break;
      await sleep(error.retryAfter ?? 0);
    }
  }
  onMissing();
}

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}
