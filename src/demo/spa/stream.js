import { cloakroom } from './cloakroom.js'
import { byId, make, tell } from './dom.js'
import { write } from './journal.js'

const WORDS = {
  connecting: 'Connecting…',
  open: 'Following.',
  'signed-out': 'Waits for you to sign in.',
  closed: 'Stopped.',
}

/** An event stream that comes back after its last event, also after a sign-in. */
export function startStream() {
  const button = byId('follow')
  let stream
  let seen = { events: 0, connections: 0, missed: 0, last: undefined }

  function onMessage({ event, data }) {
    const news = JSON.parse(data)
    if (event === 'hello') return greet(news)
    seen.events += 1
    if (seen.last !== undefined) seen.missed += Math.max(0, news.number - seen.last - 1)
    seen.last = news.number
    byId('events').prepend(make('li', `#${news.number} ${news.id} is ${news.status}`))
    while (byId('events').children.length > 2) byId('events').lastElementChild.remove()
    show()
  }

  function greet({ resumedAfter, received }) {
    seen.connections += 1
    const resumed = resumedAfter === null ? 'from now on' : `resumed after #${resumedAfter}`
    const { aud: audience } = received.claims
    write({ status: 200, title: 'GET /api/orders/events', text: `stream ${resumed}`, audience })
    show()
  }

  function show() {
    const { events, connections, missed } = seen
    byId('stream-counts').textContent = `events ${events}, connections ${connections}, missed ${missed}`
  }

  function onState(state) {
    tell('stream-result', WORDS[state], state === 'signed-out' ? 'failed' : 'ok')
    if (state !== 'closed') return
    button.textContent = 'Follow'
    stream = undefined
  }

  button.addEventListener('click', () => {
    if (stream) return stream.close()
    seen = { events: 0, connections: 0, missed: 0, last: undefined }
    button.textContent = 'Stop'
    stream = cloakroom.eventSource('/api/orders/events', { onMessage, onState })
  })
}
