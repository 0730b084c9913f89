// The probability that a hit is the photo meant: `match`, null where the server does not know it.

const MIN_LIKELY = 0.1; // below it, nothing similar has been found

export function formatMatch(match) {
  const percent = Math.round(100 * match);
  return percent < 1 ? "<1 %" : `${percent} %`;
}

// Whether even the best hit is probably another photo.
export function isUnlikely([best]) {
  return typeof best?.match === "number" && best.match < MIN_LIKELY;
}
