import { watchExchanges } from './cloakroom.js'
import { byId, make } from './dom.js'

const MAX_ENTRIES = 40

/** Writes every call of a person into the journal; those of the page itself only when they are refused. */
export function startJournal() {
  watchExchanges(({ method, path, status, body, durationMs, isBackground }) => {
    if (path === '/bff/user' || (isBackground && status < 400)) return
    const by = body?.code || path.startsWith('/bff/') ? 'Cloakroom' : 'the API'
    const result = status < 400 ? 'answered' : 'refused'
    write({
      status,
      title: `${method} ${path.replace(/[\w-]{30,}/, '…')}`,
      text: `${result} by ${by} in ${durationMs} ms${body?.code ? `: ${body.code}` : ''}`,
      audience: body?.received?.claims.aud,
      details: status >= 400 ? body : undefined,
    })
  })
}

/** Writes one entry. `audience` is that of the token which the API got; `details` is shown as it came. */
export function write({ status, title, text, audience, details }) {
  const entry = make('li')
  const head = make('p', '', { className: 'entry-head' })
  const pill = make('span', String(status), { className: 'pill' })
  pill.dataset.kind = status === 'new' || status < 400 ? 'ok' : 'failed'
  head.append(
    pill,
    make('code', title),
    make('time', new Date().toLocaleTimeString(undefined, { hourCycle: 'h23' })),
  )
  entry.append(head, make('p', text, { className: 'soft' }))
  if (audience) entry.append(make('p', `token for ${audience}`, { className: 'audience' }))
  if (details) {
    const more = make('details', '', { open: true })
    more.append(make('summary', 'application/problem+json'), make('pre', JSON.stringify(details, null, 2)))
    entry.append(more)
  }
  const list = byId('entries')
  if (details) for (const open of list.querySelectorAll('details[open]')) open.open = false
  list.prepend(entry)
  while (list.children.length > MAX_ENTRIES) list.lastElementChild.remove()
}
