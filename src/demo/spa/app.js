import { createApiCard } from './api-card.js'
import { cloakroom } from './cloakroom.js'
import { countdown } from './clock.js'
import { byId, jsonOf, make, setText } from './dom.js'
import { showFiles, startFiles } from './files.js'
import { startJournal, write } from './journal.js'
import { startOrder } from './order.js'
import { showInvoices, startPayment, startReport } from './payment.js'
import { showSessions, startSessions } from './sessions.js'
import { signInByPopup } from './sign-in-dialog.js'
import { startStream } from './stream.js'

const CALL_EVERY_MS = 5000

const euros = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'EUR' })
const onRenewal = (api, audience) =>
  write({ status: 'new', title: api, text: 'access token renewed by Cloakroom', audience })

const cards = [
  createApiCard({
    title: 'Orders',
    path: '/api/orders',
    rowsTitle: 'Orders',
    rowsOf: ({ orders }) => orders.map(({ id, item, status }) => [id, item, status]),
    onRenewal,
  }),
  createApiCard({
    title: 'Billing',
    path: '/api/billing',
    rowsTitle: 'Invoices',
    rowsOf: ({ invoices }) =>
      invoices.map(({ id, amount, status }) => [id, euros.format(amount / 100), status]),
    onRenewal,
  }),
]
let calls = 0

byId('apis').append(...cards.map((card) => card.element))
startJournal()
startOrder({ onPlaced: () => callBoth({ background: true }) })
startPayment({ onPaid: () => callBoth({ background: true }) })
startReport()
startStream()
startFiles()
startSessions()

byId('call-both').addEventListener('click', () => callBoth())
byId('sign-out').addEventListener('click', () => cloakroom.signOut())
byId('sign-in-again').addEventListener('click', () =>
  thenFocusPage(signInByPopup(cloakroom, 'notice-result')),
)
byId('stay').addEventListener('click', () => thenFocusPage(cloakroom.extend()))

cloakroom.subscribe(showSession)
cloakroom.on('signed-in', showSignedIn)
// What was on the page is the other person's.
cloakroom.on('user-changed', () => location.reload())

const { status } = await cloakroom.refresh().catch(() => ({ status: 'unreachable' }))
if (status === 'signed-out') byId('signed-out').hidden = false
if (status === 'unreachable') notice('Cloakroom does not answer. Is it still running?')
setInterval(tick, 250)
setInterval(() => {
  const isIn = cloakroom.getSnapshot().status === 'signed-in'
  if (isIn && byId('auto').checked) callBoth({ background: true })
}, CALL_EVERY_MS)

/** The button that had the focus may be gone. */
async function thenFocusPage(action) {
  await action.catch(() => {})
  if (byId('notice').hidden) byId('signed-in').focus()
}

/** Both at once: Cloakroom renews what is due for each, one refresh at a time. Only calls of a person extend the session. */
async function callBoth({ background = false } = {}) {
  const answers = await Promise.all(cards.map((card) => call(card.path, background)))
  answers.forEach((answer, index) => {
    cards[index].show(answer)
  })
  calls += answers.length
  byId('calls').textContent = `${calls} calls, 0 tokens seen`
  const billing = answers[1]
  if (billing.status === 200) showInvoices(billing.body.invoices)
}

async function call(path, background) {
  const startedAt = performance.now()
  try {
    const response = await cloakroom.fetch(path, { background })
    const durationMs = Math.round(performance.now() - startedAt)
    return { status: response.status, body: await jsonOf(response), durationMs }
  } catch ({ status = 0, code = 'no connection' }) {
    return { status, body: { code } }
  }
}

async function showSignedIn() {
  const { user } = cloakroom.getSnapshot()
  byId('signed-out').hidden = true
  byId('signed-in').hidden = false
  for (const part of document.querySelectorAll('[data-signed-in]')) part.hidden = false
  showUser(user)
  showWhatScriptsSee(user)
  showSession()
  await Promise.all([callBoth({ background: true }), showSessions(), showFiles()]).catch(() => {})
}

/** Signed out while the page is open: what a person typed stays, and a sign-in goes on where he was. */
function showSession() {
  const { status, expiring } = cloakroom.getSnapshot()
  const wasIn = !byId('signed-in').hidden
  const isOut = wasIn && status === 'signed-out'
  notice(
    isOut
      ? 'Your session has ended. What you typed is still here.'
      : expiring
        ? 'Your session ends soon.'
        : '',
  )
  byId('sign-in-again').hidden = !isOut
  byId('stay').hidden = isOut || !expiring
  tick()
}

function showUser(user) {
  const name = user.name ?? user.sub
  const words = name.split(/\s+/)
  setText('[data-name]', name)
  setText(
    '[data-initials]',
    words
      .map((word) => /\p{L}/u.exec(word)?.[0] ?? '')
      .join('')
      .slice(0, 2)
      .toUpperCase(),
  )
  setText('[data-email]', user.email ?? '')
  setText('.person [data-sub]', user.sub)
  const facts = [...[user.roles ?? 'no role'].flat(), ...(user.acr ? [`acr ${user.acr}`] : [])]
  byId('facts').replaceChildren(...facts.flatMap((text) => [' ', make('span', text, { className: 'chip' })]))
}

function showWhatScriptsSee(user) {
  const seen = [
    ['document.cookie', JSON.stringify(document.cookie)],
    ['localStorage', `${localStorage.length} entries`],
    ['sessionStorage', `${sessionStorage.length} entries`],
    ['/bff/user', Object.keys(user).join(', ')],
  ]
  byId('sees').replaceChildren(
    ...seen.flatMap(([name, value]) => [tagged('dt', 'code', name), tagged('dd', 'code', value)]),
  )
}

function tagged(outer, inner, text) {
  const element = make(outer)
  element.append(make(inner, text))
  return element
}

function tick() {
  const { expiresAt } = cloakroom.getSnapshot()
  setText(
    '[data-session-left]',
    expiresAt ? countdown(Math.max(0, (expiresAt - Date.now()) / 1000)) : 'ended',
  )
  for (const card of cards) card.tick()
}

function notice(message) {
  byId('notice-text').textContent = message
  byId('notice').hidden = message === ''
}
