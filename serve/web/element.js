// DOM helpers.

// Strings among the children become text nodes and are never parsed as HTML.
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Selects an option, and adds it if the list lacks it.
export function selectOption(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
  select.value = value;
}
