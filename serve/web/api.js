// Calls of the HTTP API. A failed call throws an ApiError whose message can be shown to the user.

import { ROOT } from "./gallery.js";
import { authorization, readKey } from "./key.js";

const RETRYABLE = [429, 503, 504];
const DEFAULT_RETRY_S = 5; // without a Retry-After header
const LISTS = ["where", "without", "like", "unlike"]; // fields of a search

export class ApiError extends Error {
  // `retryAfter`: seconds, or null if a retry cannot help. `status`: 0 without a response.
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function info() {
  return (await request(`${ROOT}/info`, { headers: authorization() })).json();
}

// The galleries that the user may open.
export async function galleries() {
  return (await (await request("/v1/galleries", { headers: authorization() })).json()).galleries;
}

export function search(query, signal) {
  return post(`${ROOT}/search`, query, signal);
}

// What each part of a query contributed to the score of a photo: { score, cells, words }.
export function explain(query, photoId) {
  return post(`${ROOT}/explain?hit=${encodeURIComponent(photoId)}`, query);
}

async function post(path, query, signal) {
  const { file, fields } = toFields(query);
  const { body, headers } = file ? formBody(file, fields) : jsonBody(fields);
  return (await request(path, { method: "POST", headers: { ...headers, ...authorization() }, body, signal })).json();
}

// A URL for the `src` of an <img>. An <img> sends no API key and reports no status: with a key, or with
// `download`, the bytes are fetched here and returned as a blob URL.
export async function photo(uri, download = false) {
  if (!readKey() && !download) return uri;
  return URL.createObjectURL(await (await request(uri, { headers: authorization() })).blob());
}

// The original of a photo as a blob URL, reduced for a screen, and its page on the web (or null).
export async function largePhoto(uri) {
  const response = await request(`${uri}?size=large`, { headers: authorization() });
  const [, link = null] = /^<(https?:[^>]*)>/.exec(response.headers.get("Link")) ?? [];
  return { source: URL.createObjectURL(await response.blob()), link };
}

function toFields({ drawing, text, weight, category, k, width, group, ...lists }) {
  const { strokes, image } = drawing;
  const hasSketch = strokes.length > 0 || image !== null;
  const fields = { k };
  if (text) fields.text = text;
  if (category) fields.category = category;
  for (const name of LISTS) if (lists[name].length) fields[name] = lists[name];
  if (group) fields.group = true;
  if (text && hasSketch) fields.sketch_weight = weight;
  if (strokes.length) Object.assign(fields, { sketch: strokes, stroke_width: width });
  if (image?.photoId) fields.photo_id = image.photoId;
  return { file: image?.blob, fields };
}

function jsonBody(fields) {
  return { headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
}

function formBody(file, fields) {
  const body = new FormData();
  const toText = (value) => (typeof value === "object" ? JSON.stringify(value) : value); // LISTS
  for (const [name, value] of Object.entries(fields)) body.append(name, toText(value));
  body.append("sketch", file, "sketch");
  return { headers: {}, body };
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(navigator.onLine ? "The server cannot be reached." : "You are offline.", 0, DEFAULT_RETRY_S);
  }
  if (response.ok) return response;
  throw await toError(response);
}

async function toError(response) {
  const { status, headers } = response;
  const { detail = `the server returned status ${status}` } = await response.json().catch(() => ({}));
  const message = detail.replace(/^where\.(\d+)\.\w+/, (_, index) => `condition ${Number(index) + 1}`);
  if (status === 500) return new ApiError(`${toSentence(message)} Request ID: ${headers.get("X-Request-Id")}.`, status);
  if (!RETRYABLE.includes(status)) return new ApiError(toSentence(message), status);
  // The text after the semicolon advises a retry, which the page does itself.
  return new ApiError(toSentence(message.split(";")[0]), status, parseRetryAfter(headers.get("Retry-After")));
}

// Seconds. Retry-After is a number of seconds or a date (RFC 9110, 10.2.3).
function parseRetryAfter(header) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(seconds, 1) : DEFAULT_RETRY_S;
}

function toSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
