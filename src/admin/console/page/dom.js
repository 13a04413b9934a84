/** Builds elements. Text is always text: what comes from the server becomes no markup anywhere. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter((child) => child !== undefined && child !== ''))
  return element
}

/** The element with this id, or the body of the table with it. */
export const byId = (id) => document.getElementById(id)

/** Sets a text only when it is another one, so that a selection and a screen reader are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** Fills a list with one element for each item; an item that says the same as before keeps its element. */
export function fill(parent, items, keyOf, elementOf) {
  const before = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]))
  const kept = items.map((item, index) => {
    const key = `${keyOf(item, index)} ${JSON.stringify(item)}`
    const element = before.get(key) ?? elementOf(item)
    element.dataset.key = key
    return element
  })
  if (kept.length === parent.children.length && kept.every((one, at) => one === parent.children[at])) return
  parent.replaceChildren(...kept)
}

/** Fills the body of a table; `cellsOf` gives the cells of one item. */
export function fillTable(id, items, { keyOf = (_, index) => index, cellsOf, empty }) {
  const table = byId(id)
  const body = (table.tBodies ? table : table.querySelector('table')).tBodies[0]
  const columns = body.parentElement.tHead.rows[0].cells.length
  if (items.length === 0) {
    fill(
      body,
      [empty],
      () => 'empty',
      (text) => el('tr', {}, el('td', { colspan: columns, class: 'empty' }, text)),
    )
    return
  }
  fill(body, items, keyOf, (item) => el('tr', {}, ...cellsOf(item)))
}

/** Fills a `dl` with pairs of a name and a value; a value is a text or an element. */
export function fillPairs(id, pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '')
  fill(
    byId(id),
    shown.map(([name, value]) => (value instanceof Node ? [name, value.outerHTML, value] : [name, value])),
    ([name]) => name,
    ([name, text, node]) => el('div', {}, el('dt', {}, name), el('dd', {}, node ?? text)),
  )
}
