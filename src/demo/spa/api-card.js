import { clockTime, secondsUntil } from './clock.js'
import { breakable } from './dom.js'

/** One API's card: what it says about the access token it received. `onRenewal` is told of each new one. */
export function createApiCard({ title, path, rowsTitle, rowsOf, onRenewal }) {
  const card = document.getElementById('api-card').content.firstElementChild.cloneNode(true)
  const part = (name) => card.querySelector(`[data-${name}]`)
  const ring = card.querySelector('.ring-left')
  let claims

  card.dataset.api = path.split('/').at(-1)
  part('title').textContent = title
  part('path').textContent = `GET ${path}`
  part('rows-title').textContent = rowsTitle
  part('summary').ariaLabel = `The whole answer of ${title}`

  function showStatus({ status, body, durationMs }) {
    const pill = part('status')
    pill.textContent =
      status === 200 ? `200 in ${durationMs} ms` : `${status} ${body?.code ?? body?.title ?? ''}`
    pill.dataset.kind = status === 200 ? 'ok' : 'failed'
  }

  function showClaims(next) {
    const isNewToken = claims?.iat !== next.iat
    const isFirst = claims === undefined
    claims = next
    part('aud').replaceChildren(...breakable([next.aud].flat().join(', ')))
    part('sub').textContent = next.sub
    part('scopes').replaceChildren(
      ...String(next.scope ?? '')
        .split(' ')
        .filter(Boolean)
        .map(chip),
    )
    part('issued').textContent = clockTime(next.iat)
    part('expires').textContent = clockTime(next.exp)
    if (isNewToken) addRenewal(isFirst ? 'issued' : 'renewed', next.iat)
    if (isNewToken && !isFirst) {
      flash(card)
      onRenewal(card.dataset.api, next.aud)
    }
  }

  function addRenewal(what, iat) {
    const item = document.createElement('li')
    item.textContent = `${what} at ${clockTime(iat)}`
    part('renewals').prepend(item)
    while (part('renewals').children.length > 2) part('renewals').lastElementChild.remove()
  }

  return {
    element: card,
    path,
    /** Shows the answer of one call. */
    show(answer) {
      showStatus(answer)
      if (answer.status !== 200) return
      showClaims(answer.body.received.claims)
      part('rows').replaceChildren(...rowsOf(answer.body).slice(0, 4).map(row))
      part('answer').textContent = JSON.stringify(answer.body, null, 2)
    },
    /** Moves the countdown. */
    tick() {
      if (!claims) return
      const left = secondsUntil(claims.exp)
      part('left').textContent = String(Math.ceil(left))
      ring.style.strokeDashoffset = String(100 - (100 * left) / (claims.exp - claims.iat))
      card.classList.toggle('expiring', left < 10)
    },
  }
}

function chip(text) {
  const element = document.createElement('span')
  element.className = 'chip'
  element.textContent = text
  return element
}

function row(cells) {
  const line = document.createElement('tr')
  for (const text of cells) line.insertCell().textContent = text
  return line
}

function flash(element) {
  element.classList.remove('renewed')
  requestAnimationFrame(() => element.classList.add('renewed'))
}
