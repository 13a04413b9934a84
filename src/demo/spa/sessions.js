import { cloakroom } from './cloakroom.js'
import { byId, jsonOf, make, onAction, tell } from './dom.js'

/** The person's sessions, each of which he can end, as after a lost phone. */
export function startSessions() {
  onAction(byId('end-others'), 'sessions-result', async () => {
    await cloakroom.fetch('/bff/sessions', { method: 'DELETE' })
    await showSessions()
    tell('sessions-result', 'All others have ended.')
  })
}

export async function showSessions() {
  const { sessions } = await jsonOf(await cloakroom.fetch('/bff/sessions', { background: true }))
  byId('sessions').replaceChildren(...sessions.map(row))
  byId('end-others').hidden = sessions.length < 2
}

function row({ id, created, userAgent, current }) {
  const item = make('li')
  const since = new Date(created).toLocaleTimeString(undefined, {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  })
  const name = `${browserOf(userAgent ?? '')}, since ${since}`
  const button = make('button', 'End', {
    type: 'button',
    ariaLabel: `End ${current ? 'this session' : name}`,
  })
  item.append(
    make('span', name),
    ...(current ? [make('span', 'this one', { className: 'chip' })] : []),
    button,
  )
  onAction(button, 'sessions-result', async () => {
    await cloakroom.fetch(`/bff/sessions/${id}`, { method: 'DELETE' })
    if (current) await cloakroom.refresh()
    else {
      await showSessions()
      // Its button is gone.
      byId('sessions').focus()
    }
    tell(
      'sessions-result',
      current ? 'This session has ended. Place an order, and see.' : 'That session has ended.',
    )
  })
  return item
}

/** Roughly: the list is for a person to recognise his devices. */
function browserOf(userAgent) {
  const browser = ['Edg', 'OPR', 'Firefox', 'Chrome', 'Safari'].find((name) => userAgent.includes(`${name}/`))
  const system = ['Android', 'iPhone', 'iPad', 'Windows', 'Mac OS', 'Linux'].find((name) =>
    userAgent.includes(name),
  )
  const names = { Edg: 'Edge', OPR: 'Opera' }
  return [names[browser] ?? browser ?? 'A client', system].filter(Boolean).join(' on ')
}
