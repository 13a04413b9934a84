import { createApiCard } from './api-card.js'
import { callApi, fetchUser, isSignedOut, signOut } from './bff.js'
import { countdown, secondsUntil } from './clock.js'

const CALL_EVERY_MS = 5000

const element = (id) => document.getElementById(id)
const euros = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'EUR' })

const cards = [
  createApiCard({
    title: 'Orders',
    path: '/api/orders',
    rowsTitle: 'Orders',
    rowsOf: ({ orders }) => orders.map(({ id, item, status }) => [id, item, status]),
  }),
  createApiCard({
    title: 'Billing',
    path: '/api/billing',
    rowsTitle: 'Invoices',
    rowsOf: ({ invoices }) =>
      invoices.map(({ id, amount, status }) => [id, euros.format(amount / 100), status]),
  }),
]

let sessionEndsAt = 0
let calls = 0
let timers = []

element('apis').append(...cards.map((card) => card.element))
element('call-both').addEventListener('click', callBoth)
element('sign-out').addEventListener('click', async () => {
  stop()
  location.assign(await signOut())
})
await start()

async function start() {
  const answer = await fetchUser().catch(() => ({ status: 0 }))
  if (answer.status === 200) {
    showSignedIn(answer.body)
    timers = [setInterval(tick, 250), setInterval(() => element('auto').checked && callBoth(), CALL_EVERY_MS)]
    await callBoth()
  } else {
    showSignedOut(
      isSignedOut(answer)
        ? ''
        : `Cloakroom does not answer as it should (${answer.status || 'no connection'}).`,
    )
  }
}

/** Both at once: Cloakroom renews what is due for each, one refresh at a time. */
async function callBoth() {
  const button = element('call-both')
  button.disabled = true
  try {
    const answers = await Promise.all(cards.map((card) => callApi(card.path)))
    if (answers.some(isSignedOut)) return showSignedOut('Your session ended. Sign in to go on.')
    answers.forEach((answer, index) => {
      cards[index].show(answer)
    })
    calls += answers.length
    element('calls').textContent = `${calls} calls, 0 tokens seen`
    await refreshSessionTimer()
    notice('')
  } catch {
    notice('No connection to Cloakroom. The next call tries again.')
  } finally {
    button.disabled = false
  }
}

async function refreshSessionTimer() {
  const answer = await fetchUser()
  if (isSignedOut(answer)) return showSignedOut('Your session ended. Sign in to go on.')
  if (answer.status === 200) showUser(answer.body)
}

function showSignedIn(user) {
  element('signed-out').hidden = true
  element('signed-in').hidden = false
  for (const part of document.querySelectorAll('[data-signed-in]')) part.hidden = false
  showUser(user)
  showWhatScriptsSee(user)
  tick()
}

function showSignedOut(message) {
  stop()
  element('signed-in').hidden = true
  element('signed-out').hidden = false
  for (const part of document.querySelectorAll('[data-signed-in]')) part.hidden = true
  notice(message)
}

function showUser(user) {
  const name = user.name ?? user.sub
  const initials = name
    .split(/\s+/)
    .map((word) => word[0])
    .join('')
    .slice(0, 2)
  sessionEndsAt = Date.now() / 1000 + user['bff:session_expires_in']
  setText('[data-name]', name)
  setText('[data-initials]', initials.toUpperCase())
  setText('[data-email]', user.email ?? '')
  setText('.person [data-sub]', user.sub)
}

function showWhatScriptsSee(user) {
  const claims = Object.keys(user).filter((name) => !name.startsWith('bff:'))
  const seen = [
    ['document.cookie', JSON.stringify(document.cookie)],
    ['localStorage', `${localStorage.length} entries`],
    ['sessionStorage', `${sessionStorage.length} entries`],
    ['/bff/user', claims.join(', ')],
  ]
  element('sees').replaceChildren(
    ...seen.flatMap(([name, value]) => [tagged('dt', 'code', name), tagged('dd', 'code', value)]),
  )
}

function tagged(outer, inner, text) {
  const element = document.createElement(outer)
  element.append(document.createElement(inner))
  element.firstChild.textContent = text
  return element
}

function tick() {
  setText('[data-session-left]', countdown(secondsUntil(sessionEndsAt)))
  for (const card of cards) card.tick()
}

function stop() {
  for (const timer of timers) clearInterval(timer)
  timers = []
}

function notice(message) {
  element('notice').textContent = message
  element('notice').hidden = message === ''
}

function setText(selector, text) {
  for (const part of document.querySelectorAll(selector)) {
    if (part.textContent !== text) part.textContent = text
  }
}
