import { text } from 'node:stream/consumers'
import { type DemoCall, type DemoOperation, refuseCall, sendJson } from './demo-api.ts'

type Invoice = {
  readonly id: string
  readonly order: string
  /** Euro cents. */
  readonly amount: number
  readonly status: string
  readonly due: string
}

const INVOICES: readonly Invoice[] = [
  { id: 'INV-2211', order: 'A-1042', amount: 28900, status: 'paid', due: '2026-11-28' },
  { id: 'INV-2216', order: 'A-1047', amount: 11800, status: 'open', due: '2026-12-01' },
  { id: 'INV-2220', order: 'A-1051', amount: 6450, status: 'open', due: '2026-12-03' },
]

/** What the billing API knows and does: invoices, the payment of one, and a report. Who may do what, Cloakroom's routes say. */
export function createInvoices() {
  const paid = new Map<string, Set<string>>()

  const invoicesOf = (sub: string) =>
    INVOICES.map((invoice) => (paid.get(sub)?.has(invoice.id) ? { ...invoice, status: 'paid' } : invoice))

  async function pay({ req, res, sub, received }: DemoCall): Promise<void> {
    const wanted = await text(req)
    const invoice = INVOICES.find(({ id }) => JSON.stringify({ invoice: id }) === wanted)
    if (!invoice) return refuseCall(res, 422, 'a payment is { "invoice": ID }')
    paid.set(sub, (paid.get(sub) ?? new Set()).add(invoice.id))
    sendJson(res, 201, { payment: { invoice: invoice.id, amount: invoice.amount }, received })
  }

  function report({ res, received }: DemoCall): void {
    const total = INVOICES.reduce((sum, { amount }) => sum + amount, 0)
    sendJson(res, 200, { report: { invoices: INVOICES.length, total }, received })
  }

  const operations: readonly DemoOperation[] = [
    { method: 'POST', path: /^\/payments$/, run: pay },
    { method: 'GET', path: /^\/report$/, run: report },
  ]
  return {
    content: ({ sub = '' }: { sub?: string }) => ({
      api: 'billing',
      currency: 'EUR',
      invoices: invoicesOf(sub),
    }),
    operations,
  }
}
