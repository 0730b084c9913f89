// The server, in two calls. What goes wrong is a Refusal that can be shown as it is.

export class Refusal extends Error {
  constructor(message, retryAfter = null) {
    super(message);
    this.retryAfter = retryAfter; // seconds, or null where trying again will not help
  }
}

export async function info(signal) {
  return ask("/v1/info", { signal });
}

export async function search(query, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("/v1/search", { method: "POST", headers, body: JSON.stringify(query), signal });
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached.", 5);
  }
  if (response.ok) return response.json();
  throw await refusal(response);
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const passing = [429, 503, 504].includes(response.status);
  const wait = Number(response.headers.get("Retry-After")) || 5;
  return new Refusal(problem.detail ?? `The server answered ${response.status}.`, passing ? wait : null);
}
