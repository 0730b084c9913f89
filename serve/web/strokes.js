// Strokes: lists of [x, y] from 0 to 1, x to the right and y down, as the API takes them. Immutable.

export function roundPoint([x, y]) {
  const round = (value) => Math.min(1, Math.max(0, Math.round(value * 1e4) / 1e4));
  return [round(x), round(y)];
}

export function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}

// Removes points within `tolerance` of the simplified stroke (Douglas and Peucker 1973).
export function simplify(stroke, tolerance) {
  const selected = new Set([0, stroke.length - 1]);
  const stack = [[0, stroke.length - 1]]; // recursion would overflow on long strokes
  while (stack.length) {
    const [start, end] = stack.pop();
    const [index, deviation] = farthestPoint(stroke, start, end);
    if (deviation <= tolerance) continue;
    selected.add(index);
    stack.push([start, index], [index, end]);
  }
  return stroke.filter((_, index) => selected.has(index));
}

function farthestPoint(stroke, start, end) {
  let [index, max] = [start, 0];
  for (let i = start + 1; i < end; i++) {
    const deviation = distanceToSegment(stroke[i], stroke[start], stroke[end]);
    if (deviation > max) [index, max] = [i, deviation];
  }
  return [index, max];
}

function distanceToSegment(point, a, b) {
  const [x, y] = [b[0] - a[0], b[1] - a[1]];
  const t = ((point[0] - a[0]) * x + (point[1] - a[1]) * y) / (x * x + y * y || 1);
  return distance(point, interpolate(a, b, Math.min(1, Math.max(0, t))));
}

// Cuts a disc out of the strokes. Returns the same list if no stroke crosses it.
export function eraseDisc(strokes, centre, radius) {
  const isHit = strokes.map((stroke) => intersects(stroke, centre, radius));
  if (!isHit.includes(true)) return strokes;
  return strokes.flatMap((stroke, i) => (isHit[i] ? partsOutside(stroke, centre, radius) : [stroke]));
}

function intersects(stroke, centre, radius) {
  return stroke.some((point, i) => distanceToSegment(centre, point, stroke[i + 1] ?? point) < radius);
}

function partsOutside(stroke, centre, radius) {
  const parts = [];
  let part = null;
  for (let i = 1; i < stroke.length; i++) {
    const [a, b] = [stroke[i - 1], stroke[i]];
    const stops = [0, ...crossings(a, b, centre, radius), 1];
    for (let j = 1; j < stops.length; j++) {
      const isInside = distance(interpolate(a, b, (stops[j - 1] + stops[j]) / 2), centre) < radius;
      if (isInside) part = null;
      else if (part) part.push(roundPoint(interpolate(a, b, stops[j])));
      else parts.push((part = [roundPoint(interpolate(a, b, stops[j - 1])), roundPoint(interpolate(a, b, stops[j]))]));
    }
  }
  return parts;
}

// Intersections of the segment a–b with the circle, as fractions of its length.
function crossings(a, b, centre, radius) {
  const [x, y] = [b[0] - a[0], b[1] - a[1]];
  const [u, v] = [a[0] - centre[0], a[1] - centre[1]];
  const [square, half] = [x * x + y * y, x * u + y * v];
  const discriminant = half * half - square * (u * u + v * v - radius * radius);
  if (square === 0 || discriminant <= 0) return [];
  return [-1, 1].map((sign) => (sign * Math.sqrt(discriminant) - half) / square).filter((t) => t > 0 && t < 1);
}

function interpolate([x, y], [u, v], t) {
  return [x + (u - x) * t, y + (v - y) * t];
}
