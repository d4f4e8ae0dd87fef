/** Return a new element: `properties` are set on it, `children` (nodes or text) put into it. */
export function element(tag, properties = {}, ...children) {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...children);
  return created;
}
