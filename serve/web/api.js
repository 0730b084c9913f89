// The server, call by call. What goes wrong is a Refusal that can be shown as it is.

import { authorization, readKey } from "./key.js";

const PASSING = [429, 503, 504]; // trying again may help
const PAUSE_S = 5; // before it, where the server names none

export class Refusal extends Error {
  // `retryAfter` in seconds, or null where trying again will not help; `status` 0: no answer at all.
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function info() {
  return (await ask("/v1/info", { headers: authorization() })).json();
}

export async function search(query, signal) {
  const { picture, fields } = parts(query);
  const { body, headers } = picture ? form(picture, fields) : json(fields);
  return (await ask("/v1/search", { method: "POST", headers: { ...headers, ...authorization() }, body, signal })).json();
}

// What an <img> can show of a photo. It sends no key of its own: with one, and where one wants to know what
// went wrong, the bytes are fetched here.
export async function photo(uri, fetched = false) {
  if (!readKey() && !fetched) return uri;
  return URL.createObjectURL(await (await ask(uri, { headers: authorization() })).blob());
}

function parts({ drawing, words, weight, category, k, width, where }) {
  const { strokes, picture } = drawing;
  const drawn = strokes.length > 0 || picture !== null;
  const fields = { k };
  if (words) fields.text = words;
  if (category) fields.category = category;
  if (where.length) fields.where = where;
  if (words && drawn) fields.sketch_weight = weight;
  if (strokes.length) Object.assign(fields, { sketch: strokes, stroke_width: width });
  if (picture?.photoId) fields.photo_id = picture.photoId;
  return { picture: picture?.blob, fields };
}

function json(fields) {
  return { headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
}

function form(picture, fields) {
  const body = new FormData();
  const text = (value) => (typeof value === "object" ? JSON.stringify(value) : value); // conditions are a list
  for (const [name, value] of Object.entries(fields)) body.append(name, text(value));
  body.append("sketch", picture, "sketch");
  return { headers: {}, body };
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(navigator.onLine ? "The server cannot be reached." : "You are offline.", 0, PAUSE_S);
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const { status, headers } = response;
  const { detail: said = `the server answered ${status}` } = await response.json().catch(() => ({}));
  const detail = said.replace(/^where\.(\d+)\.\w+/, (_, place) => `condition ${Number(place) + 1}`);
  if (status === 500) return new Refusal(`${sentence(detail)} Request ${headers.get("X-Request-Id")}.`, status);
  if (!PASSING.includes(status)) return new Refusal(sentence(detail), status);
  // What stands behind the semicolon is advice to try again, which the page follows by itself.
  return new Refusal(sentence(detail.split(";")[0]), status, seconds(headers.get("Retry-After")));
}

// Retry-After is a number of seconds or a date (RFC 9110, 10.2.3).
function seconds(header) {
  const wait = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(wait, 1) : PAUSE_S;
}

function sentence(detail) {
  const text = detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
