// A query as a link: what a search needs, behind the #, which browsers keep to themselves.
//
// JSON, deflated, in base64url. Strokes are whole numbers, each but the first counted from the one before.

import { OPS } from "./condition.js";
import { simplified } from "./strokes.js";

const MARK = "#q1.";
const GRID = 500; // two units a pixel of what the server draws: more than its pen can show
const LONGEST = 8000; // characters: what mail and chat programs still carry whole
const MOST_CONDITIONS = 50;
const INFLATED = 400_000; // bytes: no link of that length needs more

// Throws an Error with a sentence where the query does not fit into a link.
export async function toFragment({ drawing, words, weight, category, k, width, where = [] }) {
  const { strokes, picture } = drawing;
  if (picture?.blob) throw new Error("A picture cannot travel in a link: send the file along.");
  const short = { s: strokes.map(packed), l: picture?.photoId, t: words, w: weight, c: category, k, p: width };
  if (where.length) short.f = where.map(({ column, op, value }) => [column, op, value]);
  const bytes = new TextEncoder().encode(JSON.stringify(short));
  const fragment = MARK + base64url(await through(new CompressionStream("deflate-raw"), bytes));
  if (fragment.length > LONGEST) throw new Error("This drawing is too long for a link: erase some of it first.");
  return fragment;
}

// The query of a link; null where there is none. Throws an Error where a link is damaged.
export async function fromFragment(fragment) {
  if (!fragment.startsWith(MARK)) return null;
  try {
    if (fragment.length > LONGEST) throw new RangeError("longer than any link made here");
    const bytes = await through(new DecompressionStream("deflate-raw"), bytesOf(fragment.slice(MARK.length)));
    return checked(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    throw new Error("This link is damaged: ask for it again.", { cause: error });
  }
}

// A link may come from anybody: every value is brought into its bounds.
function checked({ s, l, t, w, c, k, p, f = [] }) {
  return {
    strokes: s.map(unpacked),
    like: String(l ?? ""),
    words: String(t ?? ""),
    category: String(c ?? ""),
    weight: within(w, 0, 1),
    k: Math.round(within(k, 1, 1000)),
    width: Math.round(within(p, 1, 32)),
    where: few(f).map(condition),
  };
}

function few(list) {
  if (list.length > MOST_CONDITIONS) throw new RangeError("more conditions than anybody writes");
  return list;
}

function condition([column, op, value]) {
  const plain = [value].flat().every((each) => ["string", "number", "boolean"].includes(typeof each));
  if (typeof column !== "string" || !OPS.includes(op) || !plain) throw new TypeError("not a condition");
  return { column, op, value };
}

function within(value, least, most) {
  if (!Number.isFinite(value)) throw new TypeError("not a number");
  return Math.min(most, Math.max(least, value));
}

function packed(stroke) {
  const points = simplified(stroke, 0.5 / GRID).map((point) => point.map((value) => Math.round(value * GRID)));
  return points.flatMap(([x, y], place) => (place ? [x - points[place - 1][0], y - points[place - 1][1]] : [x, y]));
}

function unpacked(numbers) {
  if (numbers.length < 2 || numbers.length % 2) throw new RangeError("half a point");
  let [x, y] = [0, 0];
  return Array.from({ length: numbers.length / 2 }, (_, place) => {
    [x, y] = [x + numbers[2 * place], y + numbers[2 * place + 1]];
    return [within(x / GRID, 0, 1), within(y / GRID, 0, 1)];
  });
}

async function through(stream, bytes) {
  const chunks = [];
  let length = 0;
  for await (const chunk of readAll(new Blob([bytes]).stream().pipeThrough(stream))) {
    length += chunk.length;
    if (length > INFLATED) throw new RangeError("more than a query can be");
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

// `for await` over a stream itself is not in every browser yet.
async function* readAll(stream) {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

function base64url(bytes) {
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function bytesOf(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
