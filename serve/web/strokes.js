// Strokes: lists of [x, y] in shares of the paper, x right, y down, as the server takes them. Never changed in place.

export function rounded([x, y]) {
  const share = (value) => Math.min(1, Math.max(0, Math.round(value * 1e4) / 1e4));
  return [share(x), share(y)];
}

export function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}

// The stroke without the points that lie within `tolerance` of the line through the others (Douglas and Peucker 1973).
export function simplified(stroke, tolerance) {
  const kept = new Set([0, stroke.length - 1]);
  const open = [[0, stroke.length - 1]]; // a stack: a long stroke would exhaust recursion
  while (open.length) {
    const [first, last] = open.pop();
    const [place, away] = farthest(stroke, first, last);
    if (away <= tolerance) continue;
    kept.add(place);
    open.push([first, place], [place, last]);
  }
  return stroke.filter((_, place) => kept.has(place));
}

function farthest(stroke, first, last) {
  let [place, most] = [first, 0];
  for (let i = first + 1; i < last; i++) {
    const away = toSegment(stroke[i], stroke[first], stroke[last]);
    if (away > most) [place, most] = [i, away];
  }
  return [place, most];
}

function toSegment(point, a, b) {
  const [x, y] = [b[0] - a[0], b[1] - a[1]];
  const along = ((point[0] - a[0]) * x + (point[1] - a[1]) * y) / (x * x + y * y || 1);
  return distance(point, mixed(a, b, Math.min(1, Math.max(0, along))));
}

// The strokes without what lies in a disc: one that crosses it falls into pieces. The same list where nothing does.
export function erased(strokes, centre, radius) {
  const touched = strokes.map((stroke) => touches(stroke, centre, radius));
  if (!touched.includes(true)) return strokes;
  return strokes.flatMap((stroke, place) => (touched[place] ? outside(stroke, centre, radius) : [stroke]));
}

function touches(stroke, centre, radius) {
  return stroke.some((point, place) => toSegment(centre, point, stroke[place + 1] ?? point) < radius);
}

function outside(stroke, centre, radius) {
  const pieces = [];
  let piece = null;
  for (let i = 1; i < stroke.length; i++) {
    const [a, b] = [stroke[i - 1], stroke[i]];
    const stops = [0, ...crossings(a, b, centre, radius), 1];
    for (let j = 1; j < stops.length; j++) {
      const inside = distance(mixed(a, b, (stops[j - 1] + stops[j]) / 2), centre) < radius;
      if (inside) piece = null;
      else if (piece) piece.push(rounded(mixed(a, b, stops[j])));
      else pieces.push((piece = [rounded(mixed(a, b, stops[j - 1])), rounded(mixed(a, b, stops[j]))]));
    }
  }
  return pieces;
}

// Where the segment from a to b crosses the circle, as shares of its length.
function crossings(a, b, centre, radius) {
  const [x, y] = [b[0] - a[0], b[1] - a[1]];
  const [u, v] = [a[0] - centre[0], a[1] - centre[1]];
  const [square, half] = [x * x + y * y, x * u + y * v];
  const root = half * half - square * (u * u + v * v - radius * radius);
  if (square === 0 || root <= 0) return [];
  return [-1, 1].map((sign) => (sign * Math.sqrt(root) - half) / square).filter((share) => share > 0 && share < 1);
}

function mixed([x, y], [u, v], share) {
  return [x + (u - x) * share, y + (v - y) * share];
}
