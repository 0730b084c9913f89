// Shared links: the query in the URL fragment, which browsers do not send to the server.
//
// Format: JSON, deflated, in base64url. Strokes are integers: the first point, then differences.

import { isOperator } from "./filter_schema.js";
import { simplify } from "./strokes.js";

const PREFIX = "#q1.";
const GRID = 500; // units of a coordinate: two per pixel of the server's rendering
const MAX_LENGTH = 8000; // characters that mail and chat programs transmit
const MAX_ITEMS = { filters: 50, negatives: 50, marks: 200 }; // of a link; the server allows fewer
const MAX_INFLATED_BYTES = 400_000; // more than a link of MAX_LENGTH needs

// Throws an Error for the user if the query does not fit into a link.
export async function toFragment({ drawing, text, weight, category, width, where = [], without = [], like = [], unlike = [], group }) {
  const { strokes, image } = drawing;
  if (image?.blob) throw new Error("A link cannot contain an uploaded image. Send the file as well.");
  const data = { s: strokes.map(packStroke), l: image?.photoId, t: text, w: weight, c: category, p: width };
  if (where.length) data.f = where.map(({ column, op, value }) => [column, op, value]);
  if (without.length) data.n = without;
  if (like.length) data.m = like;
  if (unlike.length) data.u = unlike;
  if (group) data.g = 1;
  const bytes = new TextEncoder().encode(JSON.stringify(data));
  const fragment = PREFIX + toBase64url(await pipe(new CompressionStream("deflate-raw"), bytes));
  if (fragment.length > MAX_LENGTH) throw new Error("This search is too long for a link. Erase a part of the drawing, or remove marks.");
  return fragment;
}

// The query of a link, or null without one. Throws an Error for the user if the link is damaged.
export async function fromFragment(fragment) {
  if (!fragment.startsWith(PREFIX)) return null;
  try {
    if (fragment.length > MAX_LENGTH) throw new RangeError("fragment too long");
    const bytes = await pipe(new DecompressionStream("deflate-raw"), fromBase64url(fragment.slice(PREFIX.length)));
    return validate(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    throw new Error("This link is damaged. Ask the sender for a new one.", { cause: error });
  }
}

// Links are untrusted: checks types and clamps numbers.
function validate({ s, l, t, w, c, p, f = [], n = [], m = [], u = [], g }) {
  if (f.length > MAX_ITEMS.filters) throw new RangeError("too many filters");
  return {
    strokes: s.map(unpackStroke),
    photoId: String(l ?? ""),
    text: String(t ?? ""),
    category: String(c ?? ""),
    weight: clamp(w, 0, 1),
    width: Math.round(clamp(p, 1, 32)),
    where: f.map(validateFilter),
    without: validateTexts(n, MAX_ITEMS.negatives),
    like: validateTexts(m, MAX_ITEMS.marks),
    unlike: validateTexts(u, MAX_ITEMS.marks),
    group: Boolean(g),
  };
}

function validateFilter([column, op, value]) {
  const isScalar = (each) => ["string", "number", "boolean"].includes(typeof each);
  if (typeof column !== "string" || !isOperator(op) || ![value].flat().every(isScalar)) throw new TypeError("not a filter");
  return { column, op, value };
}

function validateTexts(list, limit) {
  const isText = (each) => typeof each === "string" && each !== "";
  if (!Array.isArray(list) || list.length > limit || !list.every(isText)) throw new TypeError("not a list of texts");
  return list;
}

function clamp(value, min, max) {
  if (!Number.isFinite(value)) throw new TypeError("not a number");
  return Math.min(max, Math.max(min, value));
}

function packStroke(stroke) {
  const points = simplify(stroke, 0.5 / GRID).map((point) => point.map((value) => Math.round(value * GRID)));
  return points.flatMap(([x, y], i) => (i ? [x - points[i - 1][0], y - points[i - 1][1]] : [x, y]));
}

function unpackStroke(numbers) {
  if (numbers.length < 2 || numbers.length % 2) throw new RangeError("incomplete point");
  let [x, y] = [0, 0];
  return Array.from({ length: numbers.length / 2 }, (_, i) => {
    [x, y] = [x + numbers[2 * i], y + numbers[2 * i + 1]];
    return [clamp(x / GRID, 0, 1), clamp(y / GRID, 0, 1)];
  });
}

async function pipe(stream, bytes) {
  const chunks = [];
  let length = 0;
  for await (const chunk of readChunks(new Blob([bytes]).stream().pipeThrough(stream))) {
    length += chunk.length;
    if (length > MAX_INFLATED_BYTES) throw new RangeError("query too large");
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

// Not all browsers support `for await` over a stream.
async function* readChunks(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

function toBase64url(bytes) {
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64url(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
