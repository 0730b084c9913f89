// Drawings of common categories, for the examples. Coordinates are x and y in turn, from 0 to 100.

export const DRAWINGS = {
  shoe: [
    curve(13, 39, 11, 52, 11, 62, 12, 70),
    curve(13, 39, 20, 42, 28, 43, 36, 40),
    curve(36, 40, 38, 32, 44, 29, 48, 33, 50, 37),
    curve(50, 37, 58, 47, 70, 54, 82, 58, 88, 63, 89, 70),
    line(12, 70, 89, 70),
    curve(12, 70, 10, 75, 14, 79, 50, 79, 86, 79, 92, 75, 89, 70),
    line(43, 44, 53, 39),
    line(49, 49, 58, 44),
    line(55, 53, 64, 48),
    curve(76, 56, 71, 62, 71, 70),
    curve(24, 70, 25, 60, 21, 50, 13, 46),
    curve(36, 70, 42, 64, 45, 56, 43, 44),
  ],
  chair: [
    curve(31, 16, 50, 12, 69, 16),
    curve(32, 26, 50, 22, 68, 26),
    line(31, 16, 34, 54),
    line(69, 16, 66, 54),
    line(42, 24, 43, 54),
    line(50, 23, 50, 54),
    line(58, 24, 57, 54),
    line(34, 54, 66, 54, 75, 64, 25, 64, 34, 54),
    line(25, 64, 25, 68, 75, 68, 75, 64),
    line(28, 68, 26, 93),
    line(72, 68, 74, 93),
    line(37, 68, 37, 86),
    line(63, 68, 63, 86),
    line(27, 80, 73, 80),
  ],
  cup: [
    curve(27, 30, 34, 26, 50, 24, 66, 26, 73, 30, 66, 34, 50, 36, 34, 34, 27, 30),
    curve(27, 30, 29, 50, 34, 66, 41, 74),
    curve(73, 30, 71, 50, 66, 66, 59, 74),
    curve(41, 74, 50, 76, 59, 74),
    curve(72, 38, 83, 37, 88, 46, 82, 57, 69, 59),
    curve(72, 43, 80, 43, 82, 47, 78, 53, 70, 54),
    curve(36, 70, 20, 75, 14, 80, 28, 87, 50, 89, 72, 87, 86, 80, 80, 75, 64, 70),
  ],
  vase: [
    curve(40, 16, 50, 13, 60, 16, 50, 19, 40, 16),
    curve(40, 16, 43, 26, 38, 36, 28, 50, 29, 68, 38, 82, 40, 86),
    curve(60, 16, 57, 26, 62, 36, 72, 50, 71, 68, 62, 82, 60, 86),
    curve(40, 86, 50, 89, 60, 86),
  ],
  lamp: [
    curve(38, 14, 50, 11, 62, 14, 50, 17, 38, 14),
    line(38, 14, 24, 46),
    line(62, 14, 76, 46),
    curve(24, 46, 50, 52, 76, 46),
    line(48, 52, 48, 78),
    line(52, 52, 52, 78),
    curve(32, 85, 38, 80, 48, 78),
    curve(52, 78, 62, 80, 68, 85),
    curve(32, 85, 50, 90, 68, 85),
    line(64, 49, 64, 60),
  ],
  jar: [
    curve(46, 14, 50, 10, 54, 14, 50, 18, 46, 14),
    curve(32, 27, 38, 21, 50, 18, 62, 21, 68, 27),
    curve(32, 27, 50, 31, 68, 27),
    curve(33, 29, 23, 42, 23, 64, 33, 82, 36, 86),
    curve(67, 29, 77, 42, 77, 64, 67, 82, 64, 86),
    curve(36, 86, 50, 89, 64, 86),
    curve(24, 42, 12, 40, 11, 54, 22, 60),
    curve(76, 42, 88, 40, 89, 54, 78, 60),
  ],
};

function line(...numbers) {
  return toPoints(numbers).map(([x, y]) => [x / 100, y / 100]);
}

// A smooth line through the points (Catmull and Rom 1974), with eight steps per segment.
function curve(...numbers) {
  const points = line(...numbers);
  const last = points.length - 1;
  const isClosed = `${points[0]}` === `${points[last]}`;
  const at = (index) => points[isClosed ? (index + last) % last : Math.min(Math.max(index, 0), last)];
  const smooth = [points[0]];
  for (let index = 0; index < last; index++) {
    const controls = [-1, 0, 1, 2].map((offset) => at(index + offset));
    for (let step = 1; step <= 8; step++) smooth.push(interpolate(controls, step / 8));
  }
  return smooth;
}

function interpolate([a, b, c, d], t) {
  return [0, 1].map((axis) => {
    const [p, q, r, s] = [a, b, c, d].map((point) => point[axis]);
    const value = q + (t / 2) * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
    return Math.round(value * 1e4) / 1e4;
  });
}

function toPoints(numbers) {
  return Array.from({ length: numbers.length / 2 }, (_, i) => numbers.slice(2 * i, 2 * i + 2));
}
