// An element with its properties and children in one expression. Text stays text: nothing is parsed as HTML.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
