// A picture to search by, from a file: upright, on white, small enough to send. Its place and camera stay here.

const SIDE = 1024; // pixels: more than any tower looks at
const FORM = 4096; // bytes of a request beside the picture, amply

// { name, image, blob }. Throws an Error with a sentence for whoever chose the file.
export async function readPicture(file, limits) {
  const whole = await decoded(file);
  const sheet = drawn(whole, shrink(whole, limits));
  whole.close();
  const type = file.type === "image/jpeg" ? file.type : "image/png";
  const blob = await sheet.convertToBlob({ type, quality: 0.92 });
  const most = (limits?.body_bytes ?? Infinity) - FORM;
  if (blob.size > most) {
    throw new Error(`${file.name} is too large: ${size(blob.size)} as it would be sent, ${size(most)} are allowed.`);
  }
  return { name: file.name, image: sheet, blob };
}

// The same of a photo of the gallery, whose picture is at `source`: it is searched by under its id.
export async function photoPicture(photoId, source) {
  const image = new Image();
  image.src = source;
  const there = await image.decode().then(() => true, () => false);
  return { name: photoId, image: there ? image : new OffscreenCanvas(1, 1), photoId };
}

// The first picture among what was pasted, dropped or chosen.
export function pictureIn(files) {
  return [...(files ?? [])].find((file) => file.type.startsWith("image/"));
}

async function decoded(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name} cannot be read as a picture. PNG, JPEG and WebP can.`);
  }
}

function shrink({ width, height }, limits) {
  const most = limits?.sketch_pixels ?? Infinity;
  return Math.min(1, SIDE / Math.max(width, height), Math.sqrt(most / (width * height)));
}

function drawn(image, scale) {
  const side = (length) => Math.max(1, Math.floor(length * scale));
  const sheet = new OffscreenCanvas(side(image.width), side(image.height));
  const pen = sheet.getContext("2d");
  pen.fillStyle = "#fff"; // what is transparent is paper, here as on the server
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, sheet.width, sheet.height);
  return sheet;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(0, Math.floor(bytes / 1000))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
