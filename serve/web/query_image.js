// Query images: { name, bitmap, blob } from a file, or { name, bitmap, photoId } from the gallery.

const MAX_SIDE = 1024; // pixels; image encoders take less
const FORM_OVERHEAD = 4096; // bytes of the form besides the image

// Decodes a file upright, shrinks it and drops its metadata. Transparency stays: the server chooses the
// paper by the ink. Throws an Error for the user.
export async function readImage(file, limits) {
  const original = await decode(file);
  const bitmap = resize(original, scaleFor(original, limits));
  original.close();
  const type = file.type === "image/jpeg" ? file.type : "image/png";
  const blob = await bitmap.convertToBlob({ type, quality: 0.92 });
  const maxBytes = (limits?.body_bytes ?? Infinity) - FORM_OVERHEAD;
  if (blob.size > maxBytes) {
    const sizes = `${formatSize(blob.size)} after resizing, and the limit is ${formatSize(maxBytes)}`;
    throw new Error(`${file.name} is too large: ${sizes}.`);
  }
  return { name: file.name, bitmap, blob };
}

// A gallery photo, with the thumbnail at `source` if it loads. The search uses its id.
export async function galleryImage(photoId, source) {
  const thumbnail = new Image();
  thumbnail.src = source;
  const isLoaded = await thumbnail.decode().then(() => true, () => false);
  return { name: photoId, bitmap: isLoaded ? thumbnail : new OffscreenCanvas(1, 1), photoId };
}

export function firstImage(files) {
  return [...(files ?? [])].find((file) => file.type.startsWith("image/"));
}

// `onFiles(files)` is called when the user pastes an image or drops files.
export function acceptImages(onFiles) {
  document.addEventListener("paste", (event) => {
    if (firstImage(event.clipboardData.files)) onFiles(event.clipboardData.files);
  });
  document.addEventListener("dragover", (event) => event.preventDefault()); // or the browser opens the file
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) onFiles(event.dataTransfer.files);
  });
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name} cannot be read as an image. Use a PNG, JPEG or WebP file.`);
  }
}

function scaleFor({ width, height }, limits) {
  const maxPixels = limits?.sketch_pixels ?? Infinity;
  return Math.min(1, MAX_SIDE / Math.max(width, height), Math.sqrt(maxPixels / (width * height)));
}

function resize(image, scale) {
  const side = (length) => Math.max(1, Math.floor(length * scale));
  const canvas = new OffscreenCanvas(side(image.width), side(image.height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function formatSize(bytes) {
  return bytes < 1e6 ? `${Math.max(0, Math.floor(bytes / 1000))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
