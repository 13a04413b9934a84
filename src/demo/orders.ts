import { text } from 'node:stream/consumers'
import { type DemoCall, type DemoOperation, refuseCall, sendJson } from './demo-api.ts'

type Order = {
  readonly id: string
  readonly item: string
  readonly quantity: number
  readonly status: string
  readonly placed: string
}

const ORDERS: readonly Order[] = [
  { id: 'A-1042', item: 'Wool overcoat, charcoal', quantity: 1, status: 'shipped', placed: '2026-11-14' },
  { id: 'A-1047', item: 'Leather gloves, size 8', quantity: 2, status: 'packing', placed: '2026-11-17' },
  { id: 'A-1051', item: 'Umbrella, walnut handle', quantity: 1, status: 'placed', placed: '2026-11-19' },
]

const MAX_ORDERS = 20
const MAX_ITEM_LENGTH = 80

/** What the orders API knows and does: a list, which a person can add to, and a stream of news about it. */
export function createOrders() {
  const added = new Map<string, Order[]>()
  let next = 1052

  const ordersOf = (sub: string) => [...(added.get(sub) ?? []), ...ORDERS]

  async function place({ req, res, sub, received }: DemoCall): Promise<void> {
    const asked = readOrder(await text(req))
    if (!asked) return refuseCall(res, 422, 'an order is { "item": TEXT, "quantity": 1 to 99 }')
    const placed = new Date().toISOString().slice(0, 10)
    const order = { id: `A-${next++}`, ...asked, status: 'placed', placed }
    added.set(sub, [order, ...(added.get(sub) ?? [])].slice(0, MAX_ORDERS))
    sendJson(res, 201, { order, received })
  }

  const operations: readonly DemoOperation[] = [
    { method: 'POST', path: /^\/orders$/, run: place },
    { method: 'GET', path: /^\/orders\/events$/, run: sendEvents },
  ]
  return {
    content: ({ sub = '' }: { sub?: string }) => ({ api: 'orders', orders: ordersOf(sub) }),
    operations,
  }
}

function readOrder(body: string): Pick<Order, 'item' | 'quantity'> | undefined {
  try {
    const { item, quantity } = JSON.parse(body) as Record<string, unknown>
    const isItem = typeof item === 'string' && item.trim() !== '' && item.length <= MAX_ITEM_LENGTH
    if (!isItem || !Number.isInteger(quantity) || Number(quantity) < 1 || Number(quantity) > 99)
      return undefined
    return { item: item.trim(), quantity: Number(quantity) }
  } catch {
    return undefined
  }
}

const EVENT_EVERY_MS = 2000
/** Each connection ends after so many, as those through load balancers do: the page sees how it comes back. */
const EVENTS_PER_CONNECTION = 8
const MAX_MISSED = 20
const STATUSES = ['placed', 'packing', 'packed', 'shipped', 'delivered']

/**
 * News of orders as an event stream (HTML §9.2). Number n is what happens in the n-th interval of the clock, so that nothing
 * is kept for those who come back with `Last-Event-ID`.
 */
function sendEvents({ req, res, received }: DemoCall): void {
  const current = () => Math.floor(Date.now() / EVENT_EVERY_MS) % 1_000_000
  const now = current()
  const known = Number(req.headers['last-event-id'] ?? Number.NaN)
  const isResumed = known <= now && known > now - MAX_MISSED
  let last = isResumed ? known : now - 1
  let left = EVENTS_PER_CONNECTION
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  const hello = { resumedAfter: isResumed ? known : null, received }
  res.write(`retry: 1000\nevent: hello\ndata: ${JSON.stringify(hello)}\n\n`)
  const send = () => {
    while (last < current()) {
      last += 1
      left -= 1
      res.write(`id: ${last}\nevent: order\ndata: ${JSON.stringify(eventOf(last))}\n\n`)
    }
    if (left <= 0) res.end()
  }
  send()
  const timer = setInterval(send, EVENT_EVERY_MS / 8)
  res.on('close', () => clearInterval(timer))
}

function eventOf(number: number) {
  const { id, item } = ORDERS[number % ORDERS.length]!
  return { number, id, item, status: STATUSES[Math.floor(number / ORDERS.length) % STATUSES.length] }
}
