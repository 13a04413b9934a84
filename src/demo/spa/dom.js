/** The element of an id. */
export const byId = (id) => document.getElementById(id)

/** A new element with a text, and with properties such as `className`. */
export function make(name, text, properties = {}) {
  return Object.assign(document.createElement(name), { textContent: text ?? '' }, properties)
}

/** A name or URL in pieces, which a line may be broken between: behind `/` and `_`, before `.`, never within a word. */
export function breakable(text) {
  return text
    .split(/(?<=[/_](?![/_]))|(?=\.)/)
    .flatMap((piece, index) => (index ? [make('wbr'), piece] : [piece]))
}

/** Text of every element that a selector finds; what is the same already is not announced again. */
export function setText(selector, text) {
  for (const part of document.querySelectorAll(selector)) {
    if (part.textContent !== text) part.textContent = text
  }
}

/** Tells how something went, next to its button. */
export function tell(id, text, kind = 'ok') {
  const place = byId(id)
  place.textContent = text
  place.dataset.kind = kind
}

/** Runs `action` at each click or submit, not twice at once, and tells under `id` why it failed. */
export function onAction(element, id, action) {
  const type = element.tagName === 'FORM' ? 'submit' : 'click'
  const button = type === 'submit' ? element.querySelector('button') : element
  element.addEventListener(type, async (event) => {
    event.preventDefault()
    if (button.ariaDisabled === 'true') return
    // Not `disabled`, which would take the focus away from who uses the keyboard.
    button.ariaDisabled = 'true'
    try {
      await action(event)
    } catch (error) {
      tell(id, wordsFor(error), 'failed')
      if (error.code) byId(id).append(' ', make('a', 'The answer', { href: '#journal' }))
    } finally {
      button.ariaDisabled = 'false'
    }
  })
}

/** What a person is told of a refusal; what Cloakroom said is in the journal. */
function wordsFor({ code, needsSignIn, message }) {
  if (code === 'reauthentication_required') return 'Not sent: the second factor is missing.'
  if (needsSignIn) return 'Not sent: you are signed out.'
  if (code === 'access_denied') return 'Refused: you lack what this route asks for.'
  return code ? `Refused: ${code}.` : `That failed: ${message}.`
}

/** The JSON of an API's answer. @throws Error with the API's own words when it refused. */
export async function jsonOf(response) {
  const body = await response.json()
  if (!response.ok) throw new Error(`the API says ${response.status}, ${body.detail ?? body.title}`)
  return body
}
