// Column types, operators and values of filters.

// The operators with their symbols. JSON: a test compares it with OPS in stbir/gallery/filters.py.
export const OPERATORS = { "eq": "=", "ne": "≠", "lt": "<", "le": "≤", "gt": ">", "ge": "≥", "in": "in" };
const BOOLEAN_OPERATORS = ["eq", "ne"];

const TIMESTAMP = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/;
// `arrow` matches the type in /v1/info. `parse` returns undefined for text that is not of the type.
const TYPES = [
  { name: "integer", arrow: /^u?int/, hint: "a whole number", parse: (text) => parseNumber(text, Number.isSafeInteger) },
  { name: "float", arrow: /^(halffloat|float|double)/, hint: "a number", parse: (text) => parseNumber(text, Number.isFinite) },
  { name: "boolean", arrow: /^bool/, hint: "true or false", parse: (text) => text === "true" },
  { name: "timestamp", arrow: /^timestamp/, hint: "a time such as 2026-01-31", parse: (text) => (isTimestamp(text) ? text : undefined) },
  { name: "string", arrow: /^/, hint: "text", parse: (text) => text },
];

export function columnType(arrowType = "") {
  return TYPES.find(({ arrow }) => arrow.test(arrowType));
}

export function operatorsOf(type) {
  return type === "boolean" ? BOOLEAN_OPERATORS : Object.keys(OPERATORS);
}

export function isOperator(op) {
  return Object.hasOwn(OPERATORS, op);
}

function parseNumber(text, isValid) {
  const number = Number(text);
  return isValid(number) ? number : undefined;
}

function isTimestamp(text) {
  return TIMESTAMP.test(text) && !Number.isNaN(Date.parse(text));
}
