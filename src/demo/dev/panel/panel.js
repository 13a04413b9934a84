const $ = (id) => document.getElementById(id)

/** Names and paths in pieces, which a line may be broken between, never within a word. */
function breakable(text) {
  const pieces = text.split(/(?<=[/_](?![/_]))|(?=\.)/)
  return pieces.flatMap((piece, index) => (index ? [document.createElement('wbr'), piece] : [piece]))
}

/** An element with text and attributes; what is not text goes in by `append`. */
function element(name, { text, ...attributes } = {}) {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = text
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

/** Roles that a person had when the panel saw him first: one that is taken away can be given back. */
const everSeen = new Map()

async function change(name, input = {}) {
  const answer = await fetch(`/api/switches/${name}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-csrf': '1' },
    body: JSON.stringify(input),
  })
  const body = await answer.json()
  say(answer.ok ? body.done : body.detail)
  await show()
  return body
}

let silence
function say(text) {
  clearTimeout(silence)
  $('done').textContent = text
  silence = setTimeout(() => {
    $('done').textContent = ''
  }, 6000)
}

async function show() {
  const answer = await fetch('/api/state').catch(() => undefined)
  $('trouble').hidden = answer?.ok === true
  if (!answer?.ok) {
    $('trouble').textContent = 'cloakroom dev does not answer. This page goes on when it is back.'
    return
  }
  const state = await answer.json()
  $('app').href = state.appUrl
  $('about').textContent = `${state.appUrl} · provider: ${state.provider}, ${state.issuer}`
  keepFocus(() => {
    showPersons(state.persons)
    showSessions(state)
    showToggles(state)
  })
}

/** What is drawn anew keeps the focus of a keyboard. */
function keepFocus(draw) {
  const key = document.activeElement?.dataset.key
  draw()
  if (key) document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus()
}

function showPersons(persons) {
  $('persons').replaceChildren(
    ...persons.map((person) => {
      const { sub, name, email = sub, roles = [] } = person
      const known = new Set([...(everSeen.get(sub) ?? []), ...roles])
      everSeen.set(sub, known)
      const who = element('div')
      who.append(element('strong', { text: name }), element('br'), element('small', { text: email }))
      const enter = element('button', {
        text: 'Sign in',
        class: 'primary',
        type: 'button',
        'data-key': `in ${sub}`,
      })
      enter.setAttribute('aria-label', `Sign in as ${name}`)
      enter.addEventListener('click', () => signIn(sub))
      const list = element('div', { class: 'roles' })
      for (const role of known) list.append(roleButton({ sub, name, role, has: roles.includes(role) }))
      const item = element('li')
      item.append(who, enter, list)
      return item
    }),
  )
}

function roleButton({ sub, name, role, has }) {
  const button = element('button', {
    ...{ text: role, class: 'role', type: 'button', 'aria-pressed': String(has) },
    ...{ 'aria-label': `${name} has the role ${role}`, 'data-key': `role ${sub} ${role}` },
  })
  button.addEventListener('click', () => change('role', { person: sub, role, on: !has }))
  return button
}

async function signIn(person) {
  const { url } = await change('sign-in', { person })
  if (url) window.open(url, '_blank', 'noopener')
}

function showSessions({ persons, sessions }) {
  const items = sessions.map(({ person, id, idleSeconds, userAgent }) => {
    const item = element('li')
    const browser = /(Firefox|Edg|Chrome|Safari)\/\d+/.exec(userAgent)?.[0] ?? userAgent.slice(0, 24)
    item.append(element('strong', { text: person }), ` ${id} `)
    item.append(element('small', { text: `idle in ${minutes(idleSeconds)} · ${browser}` }))
    return item
  })
  $('sessions').replaceChildren(
    ...(items.length > 0 ? items : [element('li', { text: 'Nobody is signed in.' })]),
  )
  const chosen = $('whose').value
  const options = persons.map(({ sub }) => element('option', { text: sub, value: sub }))
  $('whose').replaceChildren(element('option', { text: 'everybody', value: '' }), ...options)
  $('whose').value = persons.some(({ sub }) => sub === chosen) ? chosen : ''
}

function minutes(seconds) {
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

function showToggles({ apis, isProviderDown }) {
  const provider = toggle({ label: 'Provider down', isOn: isProviderDown, name: 'provider-down' })
  const ofApis = apis.flatMap(({ path, rejectsTokens, demandsSecondFactor }) => [
    element('h3', { text: path }),
    toggle({ label: 'Rejects our tokens', isOn: rejectsTokens, name: 'reject-token', path }),
    toggle({ label: 'Demands a second factor', isOn: demandsSecondFactor, name: 'second-factor', path }),
  ])
  $('toggles').replaceChildren(provider, ...ofApis)
}

function toggle({ label, isOn, name, path }) {
  const button = element('button', {
    ...{ text: label, type: 'button', role: 'switch', 'aria-checked': String(isOn) },
    'data-key': `${name} ${path ?? ''}`,
  })
  if (path) button.setAttribute('aria-label', `${path}: ${label}`)
  button.addEventListener('click', () => change(name, { on: !isOn, ...(path && { path }) }))
  return button
}

for (const button of document.querySelectorAll('[data-switch]'))
  button.addEventListener('click', () => {
    const person = $('whose').value
    change(button.dataset.switch, person && button.dataset.switch !== 'reset' ? { person } : {})
  })

/** Files of the application are most of the lines, and the least of interest. */
function isOfInterest({ kind, route = '', resource, status = 200 }) {
  return kind !== 'request' || resource !== undefined || route.startsWith('bff/') || status >= 400
}

const MOST_LINES = 300

function addLine(entry) {
  const row = element('tr', { 'data-kind': entry.kind, class: isOfInterest(entry) ? '' : 'plain' })
  row.hidden = $('only-apis').checked && !isOfInterest(entry)
  const what = element('td')
  what.append(...breakable(entry.what))
  const why = element('td')
  why.append(...breakable(entry.why ?? ''))
  if (entry.why) what.append(element('small', { text: entry.why, class: 'why-small' }))
  row.append(
    element('td', { text: new Date(entry.at).toLocaleTimeString() }),
    what,
    element('td', { text: entry.status ?? '', class: statusClass(entry.status) }),
    element('td', { text: entry.route ?? '' }),
    element('td', { text: entry.resource ?? '' }),
    why,
    element('td', { text: entry.who ?? '', class: 'who' }),
    element('td', { text: entry.ms === undefined ? '' : Math.round(entry.ms), class: 'number' }),
  )
  $('lines').prepend(row)
  while ($('lines').childElementCount > MOST_LINES) $('lines').lastElementChild.remove()
  $('no-lines').hidden = true
}

function statusClass(status = 0) {
  return status >= 500 ? 'bad' : status >= 400 ? 'warn' : status >= 200 ? 'good' : ''
}

$('only-apis').addEventListener('change', () => {
  for (const row of document.querySelectorAll('tr.plain')) row.hidden = $('only-apis').checked
})
$('clear').addEventListener('click', () => $('lines').replaceChildren())

let planned
const log = new EventSource('/api/log')
log.addEventListener('message', ({ data }) => {
  addLine(JSON.parse(data))
  // A sign-in or a sign-out is seen here first.
  clearTimeout(planned)
  planned = setTimeout(show, 300)
})
log.addEventListener('error', () => show())
setInterval(() => document.visibilityState === 'visible' && show(), 5000)
show()
